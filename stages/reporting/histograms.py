"""Figures 2 and 7, Sections 3.1 and 5.4: histograms of maximum logits and of maximum probabilities.

Figure 12(a) of the paper is Figure 7 for another data set.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from stages.reporting.drawing import Drawn, stacked
from stages.reporting.style import COLORS, DASHES, SMALL, legend, name_panel, panels

__all__ = ["MaximumLogits", "figure2a", "figure2b", "figure7", "spread"]

SHARES = 25  # bins of the histograms of probabilities
LOGITS = 40  # bins of the histograms of maximum logits
CHANCE = 5  # points around an AUROC of 50 %, in which it says nothing


class MaximumLogits(NamedTuple):
    """Maximum logits `(R, N)` of groups of R networks, on N images each.

    The groups are "FDNN" (trained on the full data), "DDNN" (on distilled images) and, where there is this
    control, "Random images" (on as many random real images).
    """

    own: dict[str, np.ndarray]  # by group: on the images that the networks were trained on
    test: dict[str, np.ndarray]  # by group: on test images


def figure2a(logits: MaximumLogits) -> Drawn:
    """Figure 2(a), Section 3.1: maximum logits of networks of full (FDNN) and of distilled data (DDNN).

    One panel is of the images that each group of networks was trained on, as in the public code of the
    paper's first author, and one of test images.
    """
    shown = {"own training images": logits.own, "test images": logits.test}
    return Drawn(_histograms(shown), _draw_maximum_logits, {}, spread(logits))


def spread(logits: MaximumLogits) -> str:
    """What Figure 2(a) shows, by the standard deviations of the maximum logits.

    The paper says that those of DDNNs are more concentrated than those of FDNNs. Distillation is not the
    reason if training on as many random real images has the same effect.
    """
    own = _deviations(logits.own)
    test = _deviations(logits.test)
    sentences = [
        _comparison("their own training images", own),
        _reason(own),
        _comparison("test images", test),
        _agreement(own, test),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _deviations(logits: dict[str, np.ndarray]) -> dict[str, float]:
    """The standard deviation of all networks of a group together, as the histograms have it."""
    return {group: float(np.std(values, dtype=float)) for group, values in logits.items()}


def _comparison(images: str, deviations: dict[str, float]) -> str:
    distilled = deviations["DDNN"]
    full = deviations["FDNN"]
    verb = "spread less" if distilled < full else "do not spread less"
    numbers = f"(standard deviation {distilled:.2f} against {full:.2f})"
    return f"On {images}, the maximum logits of the DDNNs {verb} than those of the FDNNs {numbers}."


def _reason(deviations: dict[str, float]) -> str:
    """Why the maximum logits of the DDNNs spread less; empty if they do not."""
    distilled = deviations["DDNN"]
    full = deviations["FDNN"]
    if distilled >= full:
        return ""
    if "Random images" not in deviations:
        return "Without networks of random real images, it is open whether distillation is the reason."
    random = deviations["Random images"]
    control = "Those of networks trained on as many random real images"
    if random >= full:
        return f"{control} do not ({random:.2f}): few training images alone are not the reason."
    if random - distilled > full - random:
        return f"{control} spread a little less ({random:.2f}): few images are less than half the reason."
    reason = "the narrower spread comes from few training images, not from distillation"
    return f"{control} spread less, too ({random:.2f}): {reason}."


def _agreement(own: dict[str, float], test: dict[str, float]) -> str:
    """Whether the logits of DDNNs are more concentrated, as the paper says."""
    kinds = {"their own training images": own, "test images": test}
    held = [images for images, deviations in kinds.items() if deviations["DDNN"] < deviations["FDNN"]]
    claim = "The paper says that logits of DDNNs are more concentrated: here"
    if len(held) == 1:
        return f"{claim}, this holds on {held[0]} alone."
    return f"{claim}, this holds on both." if held else f"{claim}, it holds on neither."


def figure2b(groups: dict[str, dict[str, np.ndarray]], detections: dict[str, dict[str, float]]) -> Drawn:
    """Figure 2(b), Sections 3.1 and 5.4: maximum probabilities in and out of distribution.

    There is a panel for each group of networks. In the numbers drawn, probabilities are in percent and
    densities in 1/percent.

    Args:
        groups: `{label: {"in": (R, N), "out": (R, M)}}`, in [0, 1].
        detections: `{label: {"auroc": mean, "fpr95": mean}}`, shares, for the panels' titles.
    """
    edges = np.linspace(0, 100, SHARES + 1)
    parts = {}
    for label, group in groups.items():
        auroc = 100 * detections[label]["auroc"]
        fpr95 = 100 * detections[label]["fpr95"]
        for key in ("in", "out"):
            bars = _density(100 * np.clip(group[key], 0, 1), edges)
            parts[label, key] = bars.assign(auroc_percent=auroc, fpr95_percent=fpr95)
    aurocs = {label: 100 * detections[label]["auroc"] for label in groups}
    return Drawn(stacked(parts, "group", "distribution"), _draw_probabilities, {}, _detection(aurocs))


def _detection(aurocs: dict[str, float]) -> str:
    """Whether the images from outside are told apart at all."""
    numbers = ", ".join(f"{auroc:.1f} % ({label})" for label, auroc in aurocs.items())
    if all(abs(auroc - 50) < CHANCE for auroc in aurocs.values()):
        return (
            f"The AUROC is at chance, 50 %: {numbers}. The networks cannot tell these images from test"
            " images, so that the figure says nothing about what MDT does to detection."
        )
    first, *others = aurocs.items()
    changes = [f"by {auroc - first[1]:+.1f} points with {label}" for label, auroc in others]
    change = f" Against {first[0]}, it changes {', '.join(changes)}." if changes else ""
    return f"AUROC: {numbers}; 50 % is chance.{change}"


def _draw_probabilities(data: pd.DataFrame) -> Figure:
    groups = data["group"].unique()
    figure, axes = panels((1, len(groups)), (2.7, 2.6), sharex=True, sharey=True)
    for axis, label in zip(axes.flat, groups):
        group = data[data["group"] == label]
        for key, name, dash in (("in", "in distribution", "-"), ("out", "out of distribution", "--")):
            _outline(axis, group[group["distribution"] == key], COLORS[key], label=name, linestyle=dash)
        auroc = group["auroc_percent"].iloc[0]
        fpr95 = group["fpr95_percent"].iloc[0]
        title = f"{label}\nAUROC {auroc:.1f} %, FPR95 {fpr95:.1f} %"
        name_panel(axis, x="maximum probability (%)", title=title)
        axis.set_xlim(0, 100)
    name_panel(axes[0, 0], y="density (1/%)")
    legend(figure)
    return figure


def figure7(logits: MaximumLogits, masked: dict[float, np.ndarray]) -> Drawn:
    """Figure 7, Section 5.4: maximum logits of FDNNs and DDNNs, and of DDNNs on masked distilled images.

    The FDNNs are beside the DDNNs on their own training images in one line of panels, as in the public code
    of the paper's first author, and on test images in the other.

    Args:
        masked: `{ratio: (R, N)}`, the DDNNs on their distilled images with a share `ratio` of zeros.
    """
    parts = {_masked_label(ratio): values for ratio, values in masked.items()}
    networks = ("FDNN", "DDNN")
    own = {group: logits.own[group] for group in networks}
    test = {group: logits.test[group] for group in networks}
    data = _histograms({"own training images": own | parts, "test images": test | parts})
    return Drawn(data, _draw_masked_logits, {}, _effect_of_masks(own, masked))


def _masked_label(ratio: float) -> str:
    return f"DDNN, distilled images {100 * ratio:g} % masked"


def _effect_of_masks(own: dict[str, np.ndarray], masked: dict[float, np.ndarray]) -> str:
    """Whether masks spread the maximum logits of the DDNNs, and whether that leads towards the FDNNs'."""
    if not masked:
        return ""
    ratio = max(masked)
    deviations = _deviations(own)
    plain = deviations["DDNN"]
    full = deviations["FDNN"]
    widest = float(np.std(masked[ratio], dtype=float))
    verb = "raise" if widest > plain else "do not raise"
    numbers = f"from {plain:.2f} to {widest:.2f} at {100 * ratio:g} %"
    effect = f"Masks {verb} the standard deviation on the distilled images ({numbers}; FDNN: {full:.2f})."
    means = [float(np.mean(values)) for values in (own["FDNN"], own["DDNN"], masked[ratio])]
    nearer = abs(means[2] - means[0]) < abs(means[1] - means[0])
    way = "towards" if nearer else "away from"
    moved = f"from {means[1]:.2f} to {means[2]:.2f}"
    return f"{effect} The mean moves {moved}, {way} that of the FDNNs ({means[0]:.2f})."


def _histograms(panels_of: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """Histograms on the same bins of `{images: {group: (R, N)}}`, all networks of a group together."""
    every = [np.ravel(values) for groups in panels_of.values() for values in groups.values()]
    edges = np.histogram_bin_edges(np.concatenate(every).astype(float), LOGITS)
    bars = {}
    for images, groups in panels_of.items():
        for group, values in groups.items():
            bars[images, group] = _density(values, edges)
    return stacked(bars, "images", "network")


def _density(values: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """A histogram of area 1, one line a bin, with mean and standard deviation of all values together."""
    values = np.ravel(values).astype(float)
    density, _ = np.histogram(values, edges, density=True)
    bars = {"from": edges[:-1], "to": edges[1:], "density": density}
    return pd.DataFrame(bars | {"mean": values.mean(), "std": values.std()})


def _draw_maximum_logits(data: pd.DataFrame) -> Figure:
    kinds = data["images"].unique()
    groups = data["network"].unique()
    figure, axes = panels((1, len(kinds)), (3.3, 2.6), sharex=True, sharey=True)
    for axis, images in zip(axes.flat, kinds):
        shown = data[data["images"] == images]
        for group, dash in zip(groups, itertools.cycle(DASHES)):
            bars = shown[shown["network"] == group]
            _outline(axis, bars, COLORS[group], label=f"{group}: {_mean_and_std(bars)}", linestyle=dash)
        name_panel(axis, x="maximum logit (nats)", title=f"On {images}")
        _legend_below(axis, "mean ± standard deviation")
    name_panel(axes[0, 0], y="density (1/nat)")
    figure.set_figheight(figure.get_figheight() + 0.16 * (len(groups) + 1))  # inches: the lines of a legend
    return figure


def _draw_masked_logits(data: pd.DataFrame) -> Figure:
    """A panel for the DDNNs without masks and for every mask ratio, each before the same FDNNs."""
    kinds = data["images"].unique()
    groups = [group for group in data["network"].unique() if group != "FDNN"]
    figure, axes = panels((len(kinds), len(groups)), (1.75, 1.9), sharex=True, sharey=True)
    for line, images in zip(axes, kinds):
        of_kind = data[data["images"] == images]
        full = of_kind[of_kind["network"] == "FDNN"]
        for axis, group in zip(line, groups):
            bars = of_kind[of_kind["network"] == group]
            _outline(axis, full, COLORS["FDNN"], label="FDNN")
            _outline(axis, bars, COLORS["DDNN"], label="DDNN", linestyle="--")
            name_panel(axis, title=f"{_short(group, images)}\n{_mean_and_std(bars)}")
        name_panel(line[0], y=f"FDNN on {images},\n{_mean_and_std(full)}\ndensity (1/nat)")
    for axis in axes[-1]:
        name_panel(axis, x="maximum logit (nats)")
    legend(figure)
    return figure


def _short(group: str, images: str) -> str:
    if group == "DDNN":
        return f"DDNN, {images}"
    return group.replace("distilled images ", "")


def _mean_and_std(bars: pd.DataFrame) -> str:
    return f"{bars['mean'].iloc[0]:.2f} ± {bars['std'].iloc[0]:.2f}"


def _legend_below(axis: Axes, title: str) -> None:
    """A legend of one panel, below the name of its x axis."""
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4.2,  # heights of a letter: the axis' numbers and name
        title=title,
        fontsize=SMALL,
        title_fontsize=SMALL,
        frameon=False,
        handlelength=2.8,
    )


def _outline(axis: Axes, bars: pd.DataFrame, color: str, **style: Any) -> None:
    """The outline of a histogram from its first to its last bin that is not empty."""
    filled = np.flatnonzero(bars["density"])
    bars = bars.iloc[filled[0] : filled[-1] + 1]
    edges = [*bars["from"], bars["to"].iloc[-1]]
    axis.stairs(
        bars["density"],
        edges,
        fill=True,
        facecolor=to_rgba(color, 0.15),
        edgecolor=color,
        linewidth=1.2,
        **style,
    )
