"""Figure 10, Section 6: ECE by the number of distilled images per class."""

from collections import Counter
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.drawing import Drawn, percents
from stages.reporting.style import legend, name_panel, panels, styles

__all__ = ["figure10"]

ACROSS = 3  # panels beside each other
ASIDE = 0.16  # of the distance between two numbers of images, which the methods of one number share


def figure10(results: dict[str, dict[int, dict[str, dict]]], titles: dict[str, str]) -> Drawn:
    """Figure 10: ECE by images per class, a panel for each set of rows, a line for each method.

    Args:
        results: `{rows: {images per class: {method: {"ece": [one a repeat]}}}}`, shares in [0, 1]; a
            method may be missing at some numbers of images.
        titles: the methods to show, with their names.
    """
    points = []
    for rows, by_ipc in results.items():
        for key in titles:
            for ipc in sorted(by_ipc):
                if key in by_ipc[ipc]:
                    point = {"rows": rows, "ipc": ipc, "method": key}
                    points.append(point | percents("ece", by_ipc[ipc][key]["ece"]))
    data = pd.DataFrame(points, columns=["rows", "ipc", "method", *percents("ece", [0])])
    return Drawn(data, _draw_by_ipc, {"titles": titles}, _lowest(data, titles))


def _lowest(data: pd.DataFrame, titles: dict[str, str]) -> str:
    """The methods with the lowest mean ECE at each number of images."""
    parts = []
    for ipc, of_ipc in data.groupby("ipc"):
        best = of_ipc.loc[of_ipc.groupby("rows", sort=False)["ece_mean_percent"].idxmin(), "method"]
        counts = Counter(titles[method] for method in best).most_common()
        words = ", ".join(f"{name} {count} of {len(best)}" for name, count in counts)
        parts.append(f"{ipc}: {words}")
    return f"Lowest mean ECE, in how many panels, by images per class: {'; '.join(parts)}." if parts else ""


def _draw_by_ipc(data: pd.DataFrame, titles: dict[str, str]) -> Figure:
    subjects = data["rows"].unique()
    columns = min(ACROSS, len(subjects))
    lines = -(-len(subjects) // ACROSS)
    figure, axes = panels((lines, columns), (2.6, 2.2), wide=4.6)
    for i, (axis, subject) in enumerate(zip(axes.flat, subjects)):
        _panel(axis, data[data["rows"] == subject], titles)
        name_panel(axis, title=subject, y="ECE (%)" if i % columns == 0 else None)
        if i + columns >= len(subjects):
            name_panel(axis, x="distilled images per class (count)")
    for axis in axes.flat[len(subjects) :]:
        axis.remove()
    legend(figure)
    return figure


def _panel(axis: Axes, points: pd.DataFrame, titles: dict[str, str]) -> None:
    """Numbers of images at equal distances, the methods of a number beside each other."""
    counts = sorted(points["ipc"].unique())
    looks: dict[str, Any] = styles(titles)
    for i, (key, style) in enumerate(looks.items()):
        of_method = points[points["method"] == key]
        aside = ASIDE * ((i + 0.5) / len(looks) - 0.5)
        x = of_method["ipc"].map(counts.index) + aside
        mean = of_method["ece_mean_percent"]
        std = of_method["ece_std_percent"]
        if len(of_method):
            axis.errorbar(x, mean, std, label=titles[key], markersize=4, linewidth=1, **style)
    axis.set_xticks(range(len(counts)), [str(count) for count in counts])
    axis.set_xlim(-0.3, len(counts) - 0.7)
    axis.set_ylim(bottom=0)
