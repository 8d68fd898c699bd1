"""Figures 8 and 9, Section 6: ECE against the mask ratio of MTS, and against the share of images it takes."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.drawing import Drawn, percents
from stages.reporting.style import COLORS, SMALL, curve, legend, name_panel, panels
from stages.settings.tables import TableKeys

__all__ = ["ablation_figures", "figure8", "figure9"]

ACROSS = 4  # panels beside each other
ROOM = 1.5  # of a panel's upper edge to the highest level
LEVELS: dict[str, Any] = {"raw": ":", "fixed": "-.", "shipped": (0, (5, 1, 1, 1))}
CURVES: dict[str, dict[str, Any]] = {
    "mts": {"marker": "o", "linestyle": "-"},
    "mts_converged": {"marker": "s", "linestyle": "--"},
}


class Against(NamedTuple):
    """What ECE is drawn against."""

    key: str  # of the fits
    held: str  # the other key, which stays at the row's own value
    name: str  # of the x axis


RATIO = Against("ratio", "share", "mask ratio of MTS (%)")
SHARE = Against("share", "ratio", "share of images fitted on (%)")


def ablation_figures(rows: dict[str, TableKeys], ablations: dict[str, dict]) -> dict[str, Drawn]:
    """Figures 8 and 9; Figure 9 leaves out rows of one image per class, of which every share is all.

    Args:
        rows: of the suite, by name.
        ablations: `data/ablate/<row>.json` by row.
    """
    several = {name: ablation for name, ablation in ablations.items() if rows[name].ipc != 1}
    drawn = {}
    if ablations:
        drawn["figure8"] = figure8(ablations)
    if several:
        drawn["figure9"] = figure9(several)
    return drawn


def figure8(ablations: dict[str, dict]) -> Drawn:
    """Figure 8: ECE against the mask ratio of MTS, early-stopped and converged, one panel a row.

    Args:
        ablations: what `ablate` has written, by row.
    """
    data = _points(ablations, RATIO)
    return Drawn(data, _draw_fits, _words(ablations, RATIO), _best_ratios(data))


def figure9(ablations: dict[str, dict]) -> Drawn:
    """Figure 9: ECE against the share of the distilled images that MTS is fitted on.

    Args:
        ablations: as for Figure 8, of rows with several images per class: of one image, every share is all.
    """
    data = _points(ablations, SHARE)
    return Drawn(data, _draw_fits, _words(ablations, SHARE), _change_by_share(data))


def _words(ablations: dict[str, dict], against: Against) -> dict[str, Any]:
    start = next((ablation["start"] for ablation in ablations.values()), 1.0)
    return {"start": start, "x": f"{against.key}_percent", "x_name": against.name}


def _points(ablations: dict[str, dict], against: Against) -> pd.DataFrame:
    """One line a row, method and value of the key; the methods that are level have no value."""
    points = []
    for row, ablation in ablations.items():
        own = ablation[against.key]
        fits = [fit for fit in ablation["fits"] if _is_shown(fit, ablation, against)]
        for fit in sorted(fits, key=lambda fit: fit[against.key]):
            points.append(_point(row, fit, against.key, own))
        for method in LEVELS:
            if method in ablation:
                points.append({"row": row, "method": method} | percents("ece", ablation[method]))
    numbers = [*percents("ece", [0]), "temperature_mean", "bound_hits", "own"]
    return pd.DataFrame(points, columns=["row", "method", f"{against.key}_percent", *numbers])


def _is_shown(fit: dict, ablation: dict, against: Against) -> bool:
    """Whether a fit starts and stops as the row's own do, or is the exact optimum, at the row's other key."""
    own = (ablation["start"], ablation["steps"])
    is_the_papers = (fit["start"], fit["steps"]) in (own, (None, None))
    return is_the_papers and fit[against.held] == ablation[against.held]


def _point(row: str, fit: dict, key: str, own: float) -> dict[str, Any]:
    method = "mts_converged" if fit["start"] is None else "mts"
    point = {"row": row, "method": method, f"{key}_percent": 100 * fit[key]}
    point |= percents("ece", fit["ece"])
    point["temperature_mean"] = np.mean(fit["temperature"])
    point["bound_hits"] = int(np.sum(fit["bound_hit"]))
    point["own"] = int(fit[key] == own)
    return point


def _best_ratios(data: pd.DataFrame) -> str:
    """On how many rows MTS is below Raw at the row's own ratio, at none, and at the best one."""
    counts = dict.fromkeys(("own", "none", "best", "fixed"), 0)
    rows = 0
    for _, of_row in data.groupby("row", sort=False):
        mts = of_row[of_row["method"] == "mts"]
        levels = of_row.set_index("method")["ece_mean_percent"]
        if "raw" not in levels or mts.empty:
            continue
        rows += 1
        raw = levels["raw"]
        counts["own"] += int(any(mts.loc[mts["own"] == 1, "ece_mean_percent"] < raw))
        counts["none"] += int(any(mts.loc[mts["ratio_percent"] == 0, "ece_mean_percent"] < raw))
        counts["best"] += int(mts["ece_mean_percent"].min() < raw)
        counts["fixed"] += int("fixed" in levels and levels["fixed"] < raw)
    if not rows:
        return ""
    return (
        f"The mean ECE of MTS, early-stopped, is below Raw's on {counts['own']} of {rows} rows at the row's"
        f" own mask ratio, on {counts['none']} without masks, and on {counts['best']} at the ratio that is"
        " best on the test images. Without any fit, at the temperature where the fit starts, it is below"
        f" Raw's on {counts['fixed']}."
    )


def _change_by_share(data: pd.DataFrame) -> str:
    """By how much the share changes the ECE at most."""
    parts = []
    for method, name in (("mts", "MTS, early-stopped"), ("mts_converged", "the exact optimum")):
        of_method = data[data["method"] == method]
        if len(of_method):
            span = of_method.groupby("row", sort=False)["ece_mean_percent"].agg(np.ptp)
            parts.append(f"{span.max():.1f} points ({name}, `{span.idxmax()}`)")
    return f"The share changes the mean ECE by at most {' and '.join(parts)}." if parts else ""


def _draw_fits(data: pd.DataFrame, start: float, x: str, x_name: str) -> Figure:
    """Each row has its own y axis, which ends above the levels."""
    names = {
        "mts": "MTS, early-stopped",
        "mts_converged": "MTS conv. (exact optimum)",
        "raw": "Raw",
        "fixed": f"T = {start:g}, no fit",
        "shipped": "shipped T",
    }
    rows = data["row"].unique()
    columns = min(ACROSS, len(rows))
    lines = -(-len(rows) // ACROSS)
    figure, axes = panels((lines, columns), (2.4, 2.1), wide=5)
    for i, (axis, row) in enumerate(zip(axes.flat, rows)):
        of_row = data[data["row"] == row]
        for method, style in CURVES.items():
            _fitted_curve(axis, of_row[of_row["method"] == method], x, names[method], **style)
        for method, dash in LEVELS.items():
            _level(axis, of_row[of_row["method"] == method], names[method], dash)
        _end_axis(axis, of_row)
        lowest = i + columns >= len(rows)
        first = i % columns == 0
        name_panel(axis, x=x_name if lowest else None, y="ECE (%)" if first else None, title=row)
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    legend(figure)
    return figure


def _fitted_curve(axis: Axes, points: pd.DataFrame, x: str, name: str, **style: Any) -> None:
    """The curve of a method, hollow where a temperature ended on its bound, ringed at the row's own value."""
    if points.empty:
        return
    method = points["method"].iloc[0]
    color = COLORS[method]
    curve(axis, points, x, "ece", label=name, color=color, **style)
    hit = points[points["bound_hits"] > 0]
    if len(hit):
        hollow: dict[str, Any] = {
            "marker": style["marker"],
            "linestyle": "",
            "markersize": 4,
            "markerfacecolor": "white",
        }
        axis.plot(hit[x], hit["ece_mean_percent"], color=color, label="hollow: some T on its bound", **hollow)
    own = points[points["own"] == 1]
    if len(own) and method == "mts":
        ring: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 9, "markerfacecolor": "none"}
        axis.plot(own[x], own["ece_mean_percent"], color="black", label="ring: the row's own", **ring)


def _level(axis: Axes, points: pd.DataFrame, name: str, dash: Any) -> None:
    """A level line for each of the points."""
    for method, ece in zip(points["method"], points["ece_mean_percent"]):
        axis.axhline(ece, color=COLORS[method], linestyle=dash, linewidth=1.4, zorder=1.5, label=name)


def _end_axis(axis: Axes, of_row: pd.DataFrame) -> None:
    """End above the levels and MTS at the row's own value, and say how high the means go that this cuts."""
    is_own = (of_row["method"] == "mts") & (of_row["own"] == 1)
    kept = of_row[of_row["method"].isin(LEVELS) | is_own]
    kept = kept if len(kept) else of_row
    with_bands = of_row["ece_mean_percent"] + of_row["ece_std_percent"].fillna(0)
    top = min(ROOM * kept["ece_mean_percent"].max(), 1.05 * with_bands.max())
    highest = of_row["ece_mean_percent"].max()
    axis.set_ylim(0, top)
    if highest > top:
        behind = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        style: dict[str, Any] = {"fontsize": SMALL, "ha": "right", "va": "top", "bbox": behind}
        axis.text(1, 1, f"cut: up to {highest:.0f} %", transform=axis.transAxes, **style)
