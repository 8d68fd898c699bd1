"""How the figures look: colors, markers, panels, labels and legends."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "CYCLE",
    "DASHES",
    "MARKERS",
    "SMALL",
    "TEXT",
    "curve",
    "legend",
    "name_panel",
    "panels",
    "styles",
]

# Okabe and Ito's palette, which every color vision can tell apart, with three of Paul Tol's for its yellow.
CYCLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
    "#882255",
    "#DDCC77",
    "#332288",
)

# A method has the same color in all figures, from the same two palettes. Networks, sets and samples, which no
# figure shows beside methods, share theirs; FDNN is blue and DDNN red in the paper.
COLORS = {
    "raw": "#000000",
    "fixed": "#117733",
    "shipped": "#AA4499",
    "oracle": "#661100",
    "gap": "#D55E00",
    "mixup": "#E69F00",
    "label_smoothing": "#CC79A7",
    "focal": "#009E73",
    "ts": "#56B4E9",
    "mts": "#0072B2",
    "ts_converged": "#332288",
    "mts_converged": "#882255",
    "FDNN": "#0072B2",
    "Full data": "#0072B2",
    "in": "#0072B2",
    "DDNN": "#D55E00",
    "MTT": "#D55E00",
    "MDT": "#009E73",
    "MTT with MDT": "#009E73",
    "RTP": "#E69F00",
    "out": "#E69F00",
    "DC": "#56B4E9",
    "DSA": "#CC79A7",
    "Random images": "#000000",
}
MARKERS = "os^vDPX<>*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
TEXT = 8  # points
SMALL = 7  # points


def panels(
    shape: tuple[int, int], size: tuple[float, float], wide: float = 0, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its `(rows, columns)` axes.

    Args:
        shape: rows and columns of panels; there is always at least one panel.
        size: width and height of a panel in inches.
        wide: least width of the figure in inches.
        options: of `Figure.subplots`.
    """
    rows, columns = max(shape[0], 1), max(shape[1], 1)
    width, height = size
    figure = Figure(figsize=(max(width * columns, wide), height * rows), dpi=130, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.tick_params(labelsize=SMALL)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def name_panel(axis: Axes, x: str | None = None, y: str | None = None, title: str | None = None) -> None:
    """The names of a panel and its axes."""
    if x is not None:
        axis.set_xlabel(x, fontsize=TEXT)
    if y is not None:
        axis.set_ylabel(y, fontsize=TEXT)
    if title is not None:
        axis.set_title(title, fontsize=TEXT)


def legend(figure: Figure, **options: Any) -> None:
    """One legend of all panels below them, in as few lines as fit; the figure grows by them."""
    handles = {}
    for axis in figure.axes:
        for handle, name in zip(*axis.get_legend_handles_labels()):
            handles[name] = handle
    if not handles:
        return
    lines, columns = _legend_shape(list(handles), figure.get_figwidth())
    figure.set_figheight(figure.get_figheight() + 0.16 * lines + 0.1)  # inches: the lines, and a margin
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL,
        title_fontsize=SMALL,
        frameon=False,
        handlelength=2.8,
        **options,
    )


def _legend_shape(names: list[str], width: float) -> tuple[int, int]:
    """The fewest lines in which the names fit into `width` inches, and their columns."""
    widths = [0.5 + 0.06 * len(name) for name in names]  # inches: the handle, and each letter
    shapes = [(len(names), 1)]
    for columns in range(2, len(names) + 1):
        of_columns = [max(part) for part in np.array_split(widths, columns)]
        if sum(of_columns) < width:
            lines = -(-len(names) // columns)
            shapes.append((lines, columns))
    return min(shapes)


def styles(labels: Iterable[str]) -> dict[str, dict[str, str]]:
    """A color and a marker for each label: its own color, else the next of `CYCLE` that is no label's own."""
    labels = list(labels)
    taken = {COLORS.get(label) for label in labels}
    free = [color for color in CYCLE if color not in taken]
    following = itertools.cycle(free or CYCLE)
    chosen = {}
    for label, marker in zip(labels, itertools.cycle(MARKERS)):
        color = COLORS.get(label) or next(following)
        chosen[label] = {"color": color, "marker": marker}
    return chosen


def curve(axis: Axes, points: pd.DataFrame, x: str, number: str, **style: Any) -> None:
    """Means as a line, one standard deviation to both sides as a band."""
    mean = points[f"{number}_mean_percent"]
    std = points[f"{number}_std_percent"]
    axis.plot(points[x], mean, markersize=4, linewidth=1.2, **style)
    axis.fill_between(points[x], mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)
