"""pictures: every distilled set as a grid of images, beside the curve of its distillation.

    python -m stages.pictures
"""

import csv
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from stages.shared.errors import run_stage
from stages.shared.files import replacing
from stages.shared.settings import Section, listed_suites, pick, read_yaml

__all__ = ["PictureRow", "as_pictures", "grid", "picture"]

SHOWN = 10  # images of a class
ACROSS = 20  # images side by side


class PictureRow(Section):
    """The key of `runs.<row>` that says which images the row was distilled from."""

    dataset: str


def as_pictures(images: np.ndarray, transform: dict[str, np.ndarray]) -> np.ndarray:
    """Undo whitening or normalisation and cut to [0, 1]: `(N, C, H, W)` -> `(N, H, W, C)`."""
    mean, inverse = transform["mean"], transform["inverse"]
    if inverse.ndim == 1:
        pixels = images * inverse[:, None, None] + mean[:, None, None]
    else:
        pixels = (images.reshape(len(images), -1) @ inverse + mean).reshape(images.shape)
    return pixels.clip(0, 1).transpose(0, 2, 3, 1)


def grid(pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One image of `(N, H, W, C)` pictures, class after class, the first ten of each, with white lines between them.

    A class is a line where it has several pictures and there are at most 20 classes.
    """
    chosen = np.concatenate([np.flatnonzero(labels == k)[:SHOWN] for k in np.unique(labels)])
    of_a_class = min(SHOWN, int(np.bincount(labels).max()))
    few = of_a_class > 1 and len(np.unique(labels)) <= ACROSS
    across = of_a_class if few else min(ACROSS // of_a_class * of_a_class, math.ceil(len(chosen) / 2))
    _, height, width, channels = pictures.shape
    canvas = np.ones((math.ceil(len(chosen) / across) * (height + 1) + 1, across * (width + 1) + 1, channels))
    for i, index in enumerate(chosen):
        top, left = i // across * (height + 1) + 1, i % across * (width + 1) + 1
        canvas[top : top + height, left : left + width] = pictures[index]
    return canvas


def picture(name: str, image: np.ndarray, curve: dict[str, list[float]]) -> Figure:
    """The grid and, where something was learned, the loss and the learned step size by iteration."""
    learned = bool(curve["iteration"])
    figure = Figure(figsize=(8 if learned else 4.5, 3.6))
    axes = figure.subplots(1, 2 if learned else 1, squeeze=False)[0]
    axes[0].imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0].set_title(name, fontsize=9)
    axes[0].axis("off")
    if learned:
        axes[1].plot(curve["iteration"], curve["loss"], color="#0072B2", linewidth=1)
        axes[1].set(xlabel="iteration", ylabel="loss")
        if "step_size" in curve:
            right = axes[1].twinx()
            right.plot(curve["iteration"], curve["step_size"], color="#D55E00", linewidth=1)
            right.set_ylabel("learned step size", color="#D55E00")
    figure.tight_layout()
    return figure


def read_curve(path: Path) -> dict[str, list[float]]:
    with path.open() as file:
        names, *rows = csv.reader(file)
    return {key: [float(row[i]) for row in rows] for i, key in enumerate(names)}


def main() -> None:
    for suite in listed_suites():
        for name, values in read_yaml(suite)["runs"].items():
            folder = Path("data/distill") / name
            distilled = load_file(folder / "set.safetensors") if folder.exists() else {}
            if "images" not in distilled:  # not built yet, or the whole training split
                continue
            row = pick(PictureRow, values, f"{suite}: runs.{name}")
            transform = load_file(Path("data/prepare") / row.dataset / "transform.safetensors")
            image = grid(as_pictures(distilled["images"], transform), distilled["labels"])
            with replacing(Path("reports/distilled") / f"{name}.png") as temporary:
                picture(name, image, read_curve(folder / "curve.csv")).savefig(temporary, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    run_stage(main)
