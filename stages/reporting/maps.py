"""Figures 4, 6 and 12(b), Section 3.3: t-SNE of what a network makes of test images, colored by class."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.drawing import Drawn, stacked
from stages.reporting.style import CYCLE, MARKERS, legend, name_panel, panels

__all__ = ["figure4", "figure12b", "same_class_nearby"]

Blocks = dict[str, np.ndarray]  # (n, 2) maps of the same n images, by block of the network


def figure4(embeddings: dict[str, Blocks], labels: np.ndarray, classes: list[str]) -> Drawn:
    """Figures 4 and 6: the features after each block. A network is a line of panels, a block a column.

    Args:
        embeddings: `{label: {block: (n, 2)}}`, of the same n images everywhere.
        labels: `(n,)` class numbers.
        classes: names of the classes.
    """
    maps = {}
    by_block: dict[str, dict[str, np.ndarray]] = {}
    for label, blocks in embeddings.items():
        for block, embedding in blocks.items():
            maps[label, block] = embedding
            by_block.setdefault(block, {})[label] = embedding
    points = _points(maps, labels, classes)
    return Drawn(
        stacked(points, "network", "block"),
        _draw_maps,
        {"down": "network", "across": "block", "classes": list(classes)},
        _nearby(by_block, labels),
    )


def figure12b(embeddings: dict[str, dict[str, Blocks]], labels: np.ndarray, classes: list[str]) -> Drawn:
    """Figure 12(b): Figure 6 by training loss. A block of a network is a line of panels, a loss a column.

    Args:
        embeddings: `{loss: {label: {block: (n, 2)}}}`.
    """
    maps = {}
    last_block: dict[str, dict[str, np.ndarray]] = {}
    for loss, networks in embeddings.items():
        for label, blocks in networks.items():
            for block, embedding in blocks.items():
                maps[f"{label}\n{block}", loss] = embedding
                last_block.setdefault(f"the last block, {loss}", {})[label] = embedding
    points = _points(dict(sorted(maps.items(), key=_by_line(maps))), labels, classes)
    return Drawn(
        stacked(points, "network", "loss"),
        _draw_maps,
        {"down": "network", "across": "loss", "classes": list(classes)},
        _nearby(last_block, labels),
    )


def _by_line(maps: dict[tuple[str, str], np.ndarray]) -> Callable:
    """The key that sorts maps line by line, in the order in which lines come first."""
    lines = list(dict.fromkeys(line for line, _ in maps))
    return lambda item: lines.index(item[0][0])


def _points(maps: dict[Any, np.ndarray], labels: np.ndarray, classes: list[str]) -> dict[Any, pd.DataFrame]:
    points = {}
    for panel, embedding in maps.items():
        x, y = embedding.T
        points[panel] = pd.DataFrame({"class": np.take(classes, labels), "x": x, "y": y})
    return points


def _nearby(maps: dict[str, dict[str, np.ndarray]], labels: np.ndarray) -> str:
    """How often the nearest point of a map is of the same class, by the groups of the maps."""
    parts = []
    for group, of_group in maps.items():
        shares = []
        for name, embedding in of_group.items():
            shares.append(f"{name} {100 * same_class_nearby(embedding, labels):.0f} %")
        parts.append(f"{group}: {', '.join(shares)}")
    head = "Share of the points whose nearest point on the map is of their class."
    return f"{head} After {'; after '.join(parts)}." if parts else ""


def same_class_nearby(embedding: np.ndarray, labels: np.ndarray) -> float:
    """The share of the points of an `(n, 2)` map whose nearest other point has the same label."""
    points = np.asarray(embedding, float)
    squares = np.square(points[:, None] - points).sum(-1)
    np.fill_diagonal(squares, np.inf)
    return float(np.mean(labels[squares.argmin(1)] == labels))


def _draw_maps(data: pd.DataFrame, down: str, across: str, classes: list[str]) -> Figure:
    lines = data[down].unique()
    columns = data[across].unique()
    figure, axes = panels((len(lines), len(columns)), (1.7, 1.6))
    for axes_of_line, line in zip(axes, lines):
        name_panel(axes_of_line[0], y=f"{line}\nt-SNE 2 (a. u.)")
        for axis, column in zip(axes_of_line, columns):
            shown = (data[down] == line) & (data[across] == column)
            _scatter(axis, data[shown], classes)
    for top, bottom, column in zip(axes[0], axes[-1], columns):
        name_panel(top, title=column)
        name_panel(bottom, x="t-SNE 1 (a. u.)")
    legend(figure, markerscale=2.5)
    return figure


def _scatter(axis: Axes, points: pd.DataFrame, classes: list[str]) -> None:
    """Points in a color and a marker a class; one image a panel in an SVG, megabytes of paths otherwise."""
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", "datalim")
    axis.set_rasterization_zorder(2)  # that of points is 1, of axes and names 2 and more
    for i, name in enumerate(classes):
        of_class = points[points["class"] == name]
        color = CYCLE[i % len(CYCLE)]
        # Beyond ten classes the colors come again, with other markers.
        marker = MARKERS[(i + i // len(CYCLE)) % len(MARKERS)]
        style: dict[str, Any] = {"color": color, "marker": marker, "linewidths": 0, "alpha": 0.7}
        if len(of_class):
            axis.scatter(of_class["x"], of_class["y"], 5, label=name, **style)
