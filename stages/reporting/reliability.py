"""Figure 1, Section 1: accuracy by confidence, in bins and as a smooth curve."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.cells import mean_std
from stages.reporting.drawing import Drawn, stacked
from stages.reporting.style import COLORS, TEXT, legend, name_panel, panels

__all__ = ["FEW", "figure1", "pooled_ece"]

FEW = 50  # predictions; the accuracy of a bin with fewer has a standard error of up to seven points
BINS = "bins"
CURVE = "curve"
HEIGHTS = {BINS: 3, CURVE: 3, "samples": 1}  # of the lines of panels
COLUMNS = [
    "method",
    "part",
    "from_percent",
    "to_percent",
    "samples",
    "samples_percent",
    "confidence_percent",
    "accuracy_percent",
    "lowest_percent",
    "highest_percent",
]


def figure1(methods: dict[str, dict], titles: dict[str, str], about: str = "") -> Drawn:
    """The reliability diagrams of one row.

    The bars hold the predictions of all networks together, and the ECE in a title is that of its bars. It is
    lower than the mean of the networks' own ECE, which stands below it, where the errors of the networks
    cancel.

    Args:
        methods: results of the row, `{method: {"ece": [...], "reliability": {"count", "confidence",
            "accuracy"}}}`, shares in [0, 1]; "temperature", "confidence_gap", "difference_to_raw" and
            `"smooth": {"confidence": (M,), "accuracy": (networks, M)}` where there are such.
        titles: the methods to show, with their names.
        about: what the figure is of, e.g. row, networks and test images.
    """
    parts = {}
    heads = {}
    for key, title in titles.items():
        if key in methods:
            method = methods[key]
            bins = _bins(method["reliability"])
            parts[key, BINS] = bins
            if "smooth" in method:
                parts[key, CURVE] = _curve(method["smooth"], bins)
            heads[key] = _title(title, method, bins)
    shown = {key: titles[key] for key in heads}
    data = stacked(parts, "method", "part").reindex(columns=COLUMNS)
    return Drawn(data, _draw_reliability, {"titles": heads, "about": about}, conclusion(methods, shown))


def _bins(reliability: dict[str, list]) -> pd.DataFrame:
    """Edges, predictions, confidence and accuracy of each bin that is not empty, in percent."""
    count = np.array(reliability["count"])
    edges = np.linspace(0, 100, len(count) + 1)
    bins = pd.DataFrame(
        {
            "from_percent": edges[:-1],
            "to_percent": edges[1:],
            "samples": count,
            "samples_percent": 100 * count / count.sum(),
            "confidence_percent": 100 * np.array(reliability["confidence"]),
            "accuracy_percent": 100 * np.array(reliability["accuracy"]),
        }
    )
    return bins[count > 0]


def _curve(smooth: dict[str, list], bins: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest accuracy of the networks at each confidence that all of them have.

    A curve ends with the bins, beyond which its kernel reaches.
    """
    accuracy = 100 * np.array(smooth["accuracy"], float)
    curve = {
        "confidence_percent": 100 * np.array(smooth["confidence"]),
        "accuracy_percent": accuracy.mean(0),
        "lowest_percent": accuracy.min(0),
        "highest_percent": accuracy.max(0),
    }
    points = pd.DataFrame(curve).dropna()
    within = points["confidence_percent"].between(bins["from_percent"].min(), bins["to_percent"].max())
    return points[within]


def pooled_ece(bins: pd.DataFrame) -> float:
    """The ECE of bars in percent: their gaps to the confidence, weighted by the share of samples."""
    gaps = (bins["confidence_percent"] - bins["accuracy_percent"]).abs()
    return float((gaps * bins["samples_percent"]).sum() / 100)


def _title(name: str, method: dict[str, Any], bins: pd.DataFrame) -> str:
    """Name and temperature, the ECE of the bars, and that of the networks one by one."""
    temperature = f", T = {np.mean(method['temperature']):.2f}" if "temperature" in method else ""
    lines = [f"{name}{temperature}", f"ECE of the bars {pooled_ece(bins):.1f} %"]
    if len(method["ece"]) > 1:
        mean, std = mean_std(method["ece"])
        lines.append(f"per network {100 * mean:.1f} ± {100 * std:.1f} %")
    return "\n".join(lines)


def conclusion(methods: dict[str, dict], titles: dict[str, str]) -> str:
    """Whether Raw is over-confident, and which methods have another ECE; empty without Raw.

    A method is better (worse) than Raw where the 95 % interval of its difference to Raw lies below (above) 0.
    """
    raw = methods.get("raw", {})
    if "confidence_gap" not in raw:
        return ""
    gap = 100 * np.mean(raw["confidence_gap"])
    word = "above" if gap > 0 else "below"
    sentences = [f"Raw's mean confidence is {abs(gap):.1f} points {word} its accuracy."]
    groups: dict[str, list[str]] = {"below": [], "above": [], "not told apart from": []}
    for key, title in titles.items():
        if key != "raw" and "difference_to_raw" in methods[key]:
            ece = 100 * np.mean(methods[key]["ece"])
            groups[_side(methods[key]["difference_to_raw"])].append(f"{title} ({ece:.1f} %)")
    of_raw = f"Raw's {100 * np.mean(raw['ece']):.1f} %"
    for words, names in groups.items():
        if names:
            sentences.append(f"ECE {words} {of_raw}: {', '.join(names)}.")
    return " ".join(sentences)


def _side(interval: list[float]) -> str:
    low, high = interval
    if high < 0:
        return "below"
    return "above" if low > 0 else "not told apart from"


def _draw_reliability(data: pd.DataFrame, titles: dict[str, str], about: str) -> Figure:
    has_curves = bool((data["part"] == CURVE).any())
    lines = list(HEIGHTS) if has_curves else [BINS, "samples"]
    ratios = [HEIGHTS[line] for line in lines]
    size = (1.65, 1.7 if has_curves else 2)
    figure, axes = panels((len(lines), len(titles)), size, sharex=True, sharey="row", height_ratios=ratios)
    for column, (key, title) in zip(axes.T, titles.items()):
        of_method = data[data["method"] == key]
        color = COLORS.get(key, COLORS["raw"])
        bins = of_method[of_method["part"] == BINS]
        _reliability_panel(column[0], bins, color)
        if has_curves:
            _curve_panel(column[1], of_method[of_method["part"] == CURVE], color)
        _bars(column[-1], bins, "samples_percent", color="gray")
        name_panel(column[0], title=title)
        name_panel(column[-1], x="confidence (%)")
    for axis in axes[:-1, 0]:
        name_panel(axis, y="accuracy (%)")
    name_panel(axes[-1, 0], y="samples (%)")
    if about:
        figure.suptitle(about, fontsize=TEXT + 1)
    legend(figure)
    return figure


def _reliability_panel(axis: Axes, bins: pd.DataFrame, color: str) -> None:
    """Bars of accuracy, and on them the gap to the confidence; faded where predictions are few."""
    few = bins["samples"] < FEW
    for shown, strength in ((bins[~few], 1.0), (bins[few], 0.25)):
        if shown.empty:
            continue
        accuracy = shown["accuracy_percent"]
        gap = shown.assign(gap=shown["confidence_percent"] - accuracy)
        _bars(axis, shown, "accuracy_percent", color=color, alpha=0.6 * strength)
        name = "gap to the confidence" if strength == 1 else f"faded: fewer than {FEW} predictions"
        style = {"facecolor": (1, 1, 1, 0.4), "edgecolor": COLORS["gap"], "linewidth": 1.2}
        _bars(axis, gap, "gap", bottom=accuracy, label=name, alpha=strength, **style)
    _diagonal(axis)


def _curve_panel(axis: Axes, points: pd.DataFrame, color: str) -> None:
    """The smooth accuracy: the mean of the networks, and a band from the lowest to the highest."""
    x = points["confidence_percent"]
    name = "smooth, mean of the networks; band: lowest to highest"
    axis.plot(x, points["accuracy_percent"], color=color, linewidth=1.4, label=name)
    axis.fill_between(
        x, points["lowest_percent"], points["highest_percent"], color=color, alpha=0.25, linewidth=0
    )
    _diagonal(axis)


def _diagonal(axis: Axes) -> None:
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="perfect calibration")
    axis.set(xlim=(0, 100), ylim=(0, 100))


def _bars(axis: Axes, bins: pd.DataFrame, height: str, **style: Any) -> None:
    """A bar in the middle of each bin of confidence, with a tenth of its width left free."""
    middle = (bins["from_percent"] + bins["to_percent"]) / 2
    width = 0.9 * (bins["to_percent"] - bins["from_percent"])
    axis.bar(middle, bins[height], width, **style)
