"""The ECE at a temperature from real images, by how many networks and how many images it was fitted with."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.cells import METHODS
from stages.reporting.drawing import Drawn, percents
from stages.reporting.style import COLORS, TEXT, curve, legend, name_panel, panels

__all__ = ["reach_figure"]

APART = 1.1  # a number of images must be so many times another for both to stand below an axis
ACROSS = 2  # rows beside each other in the figure, with two panels each
VARIED = {"networks": "networks (count)", "images": "real images (count)"}  # the x axes
LEVELS = {"raw": ":", "oracle": "--"}
NAMES = {"shipped": "T from other networks on real images", "raw": "Raw", "oracle": METHODS["oracle"]}


def reach_figure(reached: dict[str, dict]) -> Drawn:
    """The ECE at a temperature from real images, by the number of networks and by the number of images.

    Raw and the oracle are level lines.

    Args:
        reached: `data/reach/<row>.json` by row.
    """
    points = []
    for row, result in reached.items():
        for entry in result["entries"]:
            point = {"row": row} | _place(entry)
            if "varied" in point:
                points.append(point | percents("ece", entry["ece"]))
    data = pd.DataFrame(points)
    return Drawn(data, _draw_reach, {}, _what_it_takes(data))


def _what_it_takes(data: pd.DataFrame) -> str:
    """By how much more networks, and more real images, change the mean ECE at most."""
    parts = []
    for varied in VARIED:
        changes = {}
        for row, of_row in data[data["varied"] == varied].groupby("row", sort=False):
            ece = of_row.sort_values("count")["ece_mean_percent"]
            changes[row] = ece.iloc[-1] - ece.iloc[0]
        if changes:
            row = max(changes, key=lambda row: abs(changes[row]))
            parts.append(f"the {VARIED[varied].split(' (')[0]} by {changes[row]:+.1f} points (`{row}`)")
    if not parts:
        return ""
    return f"From the fewest to the most, the mean ECE changes at most: with {' and with '.join(parts)}."


def _place(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry is in the figure: a point of a curve, a level line, or nothing."""
    part = entry["part"]
    if part in VARIED:
        return {"varied": part, "count": entry[part], "method": "shipped"}
    if part == "reference" and entry["choice"] in LEVELS:
        return {"varied": "", "count": np.nan, "method": entry["choice"]}
    return {}


def _draw_reach(data: pd.DataFrame) -> Figure:
    rows = list(data["row"].unique())
    columns = min(ACROSS, len(rows))
    lines = -(-len(rows) // ACROSS)
    figure, axes = panels((lines, 2 * columns), (2.2, 1.6), wide=4)
    pairs = axes.reshape(-1, 2)
    for i, (row, two_panels) in enumerate(zip(rows, pairs)):
        of_row = data[data["row"] == row]
        two_panels[1].sharey(two_panels[0])
        two_panels[1].tick_params(labelleft=False)
        lowest = i + columns >= len(rows)
        for axis, varied in zip(two_panels, VARIED):
            _reach_panel(axis, of_row, varied)
            name_panel(axis, x=VARIED[varied] if lowest else None)
        two_panels[0].set_ylim(bottom=0)
        name_panel(two_panels[0], y="ECE (%)")
        two_panels[0].set_title(row, fontsize=TEXT, loc="left")
    for axis in pairs[len(rows) :].flat:
        axis.remove()
    legend(figure)
    return figure


def _reach_panel(axis: Axes, of_row: pd.DataFrame, varied: str) -> None:
    points = of_row[of_row["varied"] == varied].drop_duplicates("count")
    if varied == "images":
        axis.set_xscale("log")
    counts = sorted(points["count"])
    apart = [count for count, following in itertools.pairwise(counts) if following > APART * count]
    ticks = [*apart, *counts[-1:]]
    axis.set_xticks(ticks, [f"{count:g}" for count in ticks])
    axis.minorticks_off()
    curve(axis, points, "count", "ece", label=NAMES["shipped"], color=COLORS["shipped"], marker="o")
    for method, dash in LEVELS.items():
        for ece in of_row.loc[of_row["method"] == method, "ece_mean_percent"]:
            axis.axhline(ece, color=COLORS[method], linestyle=dash, linewidth=1.4, label=NAMES[method])
