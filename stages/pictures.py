"""pictures: every distilled set as a grid of images, beside the curve of its distillation.

    python -m stages.pictures

A picture is drawn again only when its set, its curve or the drawing has changed.
"""

import math
from inspect import getfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.images.pixels import to_pixels
from stages.reporting.families import families
from stages.reporting.redraw import digest, drawing_code, redraw
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, read_curve, replacing, tensor_names
from stages.settings.rows import REPORTS, Row, listed_rows
from stages.settings.tables import TableKeys

__all__ = ["as_pictures", "compared", "draw_row", "grid", "picture", "pictures"]

ALIKE = 0.05  # of black to white: what two sets may differ by on average and look the same
SHOWN = 10  # images of a class
ACROSS = 20  # images side by side


def as_pictures(images: np.ndarray, transform: dict[str, np.ndarray]) -> np.ndarray:
    """Undo whitening or normalisation and cut to [0, 1]: `(N, C, H, W)` -> `(N, H, W, C)`."""
    pixels = to_pixels(images, transform["mean"], transform["inverse"])
    return pixels.clip(0, 1).transpose(0, 2, 3, 1)


def grid(pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One image of the first ten `(N, H, W, C)` pictures of each class, with white lines between them.

    A class is a line where it has several pictures and there are at most 20 classes.
    """
    lines = lines_of_grid(labels)
    across = max(len(line) for line in lines)
    _, height, width, channels = pictures.shape
    canvas = np.ones((len(lines) * (height + 1) + 1, across * (width + 1) + 1, channels))
    for i, line in enumerate(lines):
        top = i * (height + 1) + 1
        for j, index in enumerate(line):
            left = j * (width + 1) + 1
            canvas[top : top + height, left : left + width] = pictures[index]
    return canvas


def lines_of_grid(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of the pictures of each line.

    Where labels are soft, classes may have unequal numbers of pictures.
    """
    classes = np.unique(labels)
    by_class = [np.flatnonzero(labels == k)[:SHOWN] for k in classes]
    of_a_class = max(len(of_class) for of_class in by_class)
    if of_a_class > 1 and len(classes) <= ACROSS:
        return by_class
    chosen = np.concatenate(by_class)
    whole_classes = ACROSS // of_a_class * of_a_class
    across = min(whole_classes, math.ceil(len(chosen) / 2))
    return [chosen[first : first + across] for first in range(0, len(chosen), across)]


def picture(name: str, image: np.ndarray, curve: dict[str, list[float]], note: str = "") -> Figure:
    """The grid and, where something was learned, the loss and the learned step size by iteration.

    Args:
        note: a sentence below them.
    """
    learned = bool(curve["iteration"])
    figure = Figure(figsize=(8 if learned else 4.5, 3.6))
    axes = figure.subplots(1, 2 if learned else 1, squeeze=False)[0]
    shown = image if image.shape[2] == 3 else image[..., 0]
    axes[0].imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0].set_title(name, fontsize=9)
    axes[0].axis("off")
    if learned:
        _draw_curve(axes[1], curve)
    if note:
        figure.supxlabel(note, fontsize=8)
    figure.tight_layout()
    return figure


def _draw_curve(axis: Axes, curve: dict[str, list[float]]) -> None:
    axis.plot(curve["iteration"], curve["loss"], color="#0072B2", linewidth=1)
    axis.set(xlabel="iteration", ylabel="loss")
    if "step_size" in curve:
        right = axis.twinx()
        right.plot(curve["iteration"], curve["step_size"], color="#D55E00", linewidth=1)
        right.set_ylabel("learned step size", color="#D55E00")


def curve_of(row: Row) -> dict[str, list[float]]:
    columns = read_curve(row.curve, row.distilled)
    return {name: [float(value) for value in column] for name, column in columns.items()}


class Pictured(NamedTuple):
    """A set as its picture shows it."""

    pictures: np.ndarray  # (N, H, W, C) in [0, 1]
    labels: np.ndarray  # (N, ...)


def pictured(row: Row) -> Pictured:
    """A row's set, or its first set where it has several."""
    distilled = read_arrays(row.distilled)
    transform = read_arrays(row.prepared / "transform.safetensors")
    labels = distilled["labels"]
    first = distilled.get("set", np.zeros_like(labels)) == 0
    return Pictured(as_pictures(distilled["images"][first], transform), labels[first])


def compared(masked: np.ndarray, plain: np.ndarray, name: str) -> str:
    """How far a set that was distilled with masks is from the same without; "" where images do not match.

    Args:
        masked: `(N, H, W, C)` pictures.
        plain: the same of the set without masks.
        name: the row of the set without masks.
    """
    if masked.shape != plain.shape:
        return ""
    difference = float(np.abs(masked - plain).mean())
    measure = f"Pixels differ from those of {name} by {difference:.3f} on average (black to white: 1)"
    return f"{measure}: the two look alike." if difference < ALIKE else f"{measure}."


def draw_row(row: Row, plain: Row | None) -> None:
    """Write the picture of a row's set.

    Args:
        plain: for a set that was distilled with masks, the row that differs in nothing else.
    """
    shown = pictured(row)
    note = compared(shown.pictures, pictured(plain).pictures, plain.name) if plain else ""
    figure = picture(row.name, grid(*shown), curve_of(row), note)
    with replacing(row.picture) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def has_images(row: Row) -> bool:
    """Whether the row's set is there and has images of its own; one without is the whole training split."""
    if not row.distilled.exists():
        return False
    return "images" in tensor_names(row.distilled)


def pictures() -> None:
    """Write reports/distilled."""
    rows = {row.name: row for row in listed_rows() if has_images(row)}
    code = drawing_code([Path(__file__), Path(getfile(to_pixels))])
    plain = plain_rows(rows)
    keys = {}
    for name, row in rows.items():
        inputs = [row.distilled, row.curve, row.prepared / "transform.safetensors"]
        if name in plain:
            inputs.append(plain[name].distilled)
        keys[name] = digest(code.encode(), *(path.read_bytes() for path in inputs))
    redraw(REPORTS / "distilled", keys, (".png",), lambda name: draw_row(rows[name], plain.get(name)))


def plain_rows(rows: dict[str, Row]) -> dict[str, Row]:
    """By row with MDT the row that differs from it in nothing but MDT."""
    plain = {}
    for family in families({name: row.keys(TableKeys) for name, row in rows.items()}):
        for masked in (family.mdt, family.mdt_ds):
            if masked is not None:
                plain[masked] = rows[family.plain]
    return plain


def main() -> None:
    pictures()


if __name__ == "__main__":
    run_stage(main)
