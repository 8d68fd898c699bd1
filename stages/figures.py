"""The paper's figures. Each is a function of results that gives a matplotlib figure; it reads no files."""

import numpy as np
from matplotlib.figure import Figure

__all__ = ["COLORS", "reliability_diagrams"]

# One color a method in all figures: Okabe and Ito's palette, told apart with every color vision.
COLORS = {
    "raw": "#000000",
    "ts": "#56B4E9",
    "mixup": "#E69F00",
    "label_smoothing": "#CC79A7",
    "focal": "#009E73",
    "mts": "#0072B2",
    "gap": "#D55E00",
}


def reliability_diagrams(methods: dict[str, dict], titles: dict[str, str]) -> Figure:
    """Figure 1: accuracy by confidence, one panel a method, the gap to perfect calibration hatched on top.

    Args:
        methods: results of one row, `{method: {"ece": [...], "reliability": {"count", "confidence", "accuracy"}}}`.
        titles: the methods to show, with their names.
    """
    shown = [key for key in titles if key in methods]
    figure = Figure(figsize=(2.4 * len(shown), 3.4))
    axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    for (top, bottom), key in zip(axes.T, shown):
        table = {name: np.array(values) for name, values in methods[key]["reliability"].items()}
        width = 1 / len(table["count"])
        middle = (np.arange(len(table["count"])) + 0.5) * width
        some = table["count"] > 0
        gap = np.where(some, table["confidence"] - table["accuracy"], 0)
        top.bar(middle, table["accuracy"], width * 0.9, color=COLORS.get(key, COLORS["raw"]), alpha=0.8, label="accuracy")
        top.bar(middle, gap, width * 0.9, bottom=table["accuracy"], color="none", edgecolor=COLORS["gap"], hatch="///", label="gap to confidence")
        top.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--")
        top.set_title(f"{titles[key]}\nECE {100 * np.mean(methods[key]['ece']):.1f} %", fontsize=9)
        bottom.bar(middle, 100 * table["count"] / table["count"].sum(), width * 0.9, color="gray")
        bottom.set_xlabel("confidence", fontsize=8)
        top.set(xlim=(0, 1), ylim=(0, 1))
        for axis in (top, bottom):
            axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("accuracy", fontsize=8)
    axes[1, 0].set_ylabel("samples (%)", fontsize=8)
    axes[0, 0].legend(fontsize=6, loc="upper left")
    figure.tight_layout()
    return figure
