"""The first figure of the page: ECE of MTS by mask ratio for each starting value, and what it is beside.

Its title says which of the two moves ECE more, starting values or mask ratios, as far as both were tried.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from stages.reporting.cells import Results
from stages.reporting.choices import printed_ece
from stages.reporting.claims import data_set
from stages.reporting.drawing import Drawn
from stages.reporting.evidence import distilled_plain, place
from stages.reporting.rows_of_figures import NAMES
from stages.reporting.style import COLORS, SMALL, TEXT, legend, name_panel, panels

__all__ = ["conclusion", "hero", "hero_row"]

SIZE = (4.1, 4.0)  # inches: the width of a phone's screen at 96 pixels an inch
STARTS = ("#88CCEE", "#0072B2", "#E69F00", "#882255", "#117733")  # colors of the starting values, in order
SHAPES = ("o", "s", "^", "D", "v")
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # percent
WORKING = 0.5  # the largest mask ratio at which MTS works, in Section 6 of the paper
APART = 0.055  # least distance of two labels beside the axis, as a share of its height
DASHES: dict[str, Any] = {
    "raw": ":",
    "paper": "--",
    "fixed": "-.",
    "shipped": (0, (5, 1, 1, 1)),
    "oracle": (0, (1, 1)),
}


def hero_row(results: Results, ablations: dict[str, dict]) -> str | None:
    """The row that the figure shows: of MTT, and with the most images per class, where several can be shown.

    As everywhere, published rows of the paper's data sets are first and digits last. Rows with a shipped
    temperature go before rows without. None where no distilled row has results of `ablate`.
    """
    candidates = [name for name in distilled_plain(results) if name in ablations]

    def order(name: str) -> tuple:
        row = results.rows[name]
        is_shipped = bool(results.method(name, "shipped"))
        return place(results, name), row.method != "mtt", not is_shipped, -(row.ipc or 0)

    return min(candidates, key=order, default=None)


def hero(results: Results, ablations: dict[str, dict], row: str) -> Drawn:
    """The figure of a row: a curve for each starting value, and level lines."""
    ablation = ablations[row]
    points = []
    for (start, ratio), ece in sorted(_early_stopped(ablation).items()):
        points.append(_point("mts", f"T = {start:g}", ratio, ece, start))
    for method, name in _levels(results).items():
        numbers = results.method(row, method)
        if numbers:
            points.append(_point(method, name, np.nan, 100 * float(np.mean(numbers["ece"]))))
    printed = printed_ece(results.rows[row]).get("mts")
    if printed is not None:
        mean = printed[0] if isinstance(printed, list) else printed
        points.append(_point("paper", "the paper's MTS", np.nan, mean))
    words = {
        "title": conclusion(ablation),
        "subtitle": _subtitle(results, row),
        "ratio": 100 * ablation["ratio"],
    }
    return Drawn(pd.DataFrame(points), _draw, words)


def conclusion(ablation: dict) -> str:
    """By how many points ECE differs between starting values and between mask ratios; the larger first."""
    starts, ratios = _tried(ablation)
    tried = [("starts", starts), ("mask ratios", ratios)]
    (first, larger), (second, smaller) = sorted(tried, key=lambda of: _range(of[1]), reverse=True)
    head = f"{first.capitalize()} of MTS {_ends(larger)} move ECE by {_range(larger):.1f} points"
    return f"{head}, {second} {_ends(smaller)} by {_range(smaller):.1f}"


def _ends(tried: dict[float, float]) -> str:
    return f"from {min(tried):g} to {max(tried):g}"


def _range(ece: dict[float, float]) -> float:
    return max(ece.values()) - min(ece.values())


def _tried(ablation: dict) -> tuple[dict[float, float], dict[float, float]]:
    """ECE by starting value at the row's mask ratio, and by mask ratio from the row's starting value.

    Mask ratios above `WORKING` are left out, unless the row has a larger one.
    """
    ece = _early_stopped(ablation)
    largest = max(WORKING, ablation["ratio"])
    starts = {start: value for (start, ratio), value in ece.items() if ratio == ablation["ratio"]}
    ratios = {ratio: value for (start, ratio), value in ece.items() if start == ablation["start"]}
    return starts, {ratio: value for ratio, value in ratios.items() if ratio <= largest}


def _early_stopped(ablation: dict) -> dict[tuple[float, float], float]:
    """ECE in percent by starting value and mask ratio, of the fits that stop and share as the row's own."""
    ece = {}
    for fit in ablation["fits"]:
        if (fit["share"], fit["steps"]) == (ablation["share"], ablation["steps"]):
            ece[fit["start"], fit["ratio"]] = 100 * float(np.mean(fit["ece"]))
    return ece


def _levels(results: Results) -> dict[str, str]:
    """The methods that no mask ratio changes, by what the figure calls them."""
    return {
        "raw": "Raw",
        "fixed": f"T = {results.start:g}, no fit",
        "shipped": "shipped T",
        "oracle": "oracle T",
    }


def _point(kind: str, name: str, ratio: float, ece: float, start: float = np.nan) -> dict[str, Any]:
    return {"kind": kind, "name": name, "start": start, "ratio_percent": 100 * ratio, "ece_percent": ece}


def _subtitle(results: Results, row: str) -> str:
    """The data set, the backbone, the images per class, the networks and the test images."""
    keys = results.rows[row]
    networks = len((results.method(row, "raw") or {})["ece"])
    made = f"{data_set(results, row)}, {NAMES.get(keys.method, keys.method)}, {keys.ipc} per class"
    images = results.evaluated[row].get("test_images")
    tested = f", {images:,} test images" if images else ""
    return f"{made}\n`{row}`: means of {networks} networks{tested}".replace("`", "")


def _draw(data: pd.DataFrame, title: str, subtitle: str, ratio: float) -> Figure:
    figure, ((axis,),) = panels((1, 1), SIZE)
    curves = data[data["kind"] == "mts"]
    levels = data[data["kind"] != "mts"]
    axis.axvline(ratio, color="lightgray", linewidth=4, zorder=0)
    for (name, points), color, shape in zip(curves.groupby("name", sort=False), STARTS, SHAPES):
        style: dict[str, Any] = {"color": color, "marker": shape, "markersize": 4, "linewidth": 1.6}
        axis.plot(points["ratio_percent"], points["ece_percent"], label=name, **style)
    _scale(axis, data["ece_percent"])
    _name_levels(axis, levels)
    axis.set_xlim(-2, max(curves["ratio_percent"].max(), 1) + 2)
    axis.text(
        ratio, 1.01, "the row's ratio", transform=axis.get_xaxis_transform(), fontsize=SMALL, ha="center"
    )
    name_panel(axis, x="mask ratio of MTS (%)", y="ECE (%), lower is better")
    head = title.replace(", ", ",\n", 1)
    figure.suptitle(head, fontsize=TEXT + 2, fontweight="bold", x=0.01, ha="left")
    axis.set_title(subtitle, fontsize=SMALL, loc="left", pad=14)
    legend(figure, title="MTS, started from")
    return figure


def _scale(axis: Axes, ece: pd.Series) -> None:
    """A logarithmic axis, as the best errors and the worst differ by a factor of twenty."""
    axis.set_yscale("log")
    axis.set_ylim(0.8 * ece.min(), 1.25 * ece.max())
    axis.yaxis.set_major_locator(FixedLocator(list(TICKS)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _name_levels(axis: Axes, levels: pd.DataFrame) -> None:
    """A line for each level, with its name and number beside the axis, no two over each other."""
    low, high = np.log(axis.get_ylim())
    ordered = levels.sort_values("ece_percent")
    heights = (np.log(ordered["ece_percent"].to_numpy()) - low) / (high - low)
    shown = _spread(heights)
    for kind, name, ece, height in zip(ordered["kind"], ordered["name"], ordered["ece_percent"], shown):
        color = COLORS["gap"] if kind == "paper" else COLORS[kind]
        axis.axhline(ece, color=color, linestyle=DASHES[kind], linewidth=1.4, zorder=1.5)
        axis.annotate(
            f"{name}: {ece:.1f}",
            (1, ece),
            xycoords=axis.get_yaxis_transform(),
            xytext=(1.06, height),
            textcoords="axes fraction",
            color=color,
            fontsize=SMALL + 0.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def _spread(heights: np.ndarray) -> np.ndarray:
    """Ascending heights that are moved up as far as they are nearer than `APART` to the one below."""
    moved = heights.astype(float)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + APART)
    return moved
