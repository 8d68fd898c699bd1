"""The paper's figures, by their numbers there. Each is a function of results that reads no files.

The paper's text has no Figure 11. Figures 6 and 12(b) are Figure 4 for other networks, and Figure 12(a) is
Figure 7 for another data set.
"""

import itertools
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from stages.reporting.cells import mean_std
from stages.reporting.drawing import Drawn
from stages.reporting.style import (
    COLORS,
    CYCLE,
    DASHES,
    MARKERS,
    MASKED,
    SMALL,
    TEXT,
    curve,
    legend,
    name_panel,
    panels,
    styles,
)

__all__ = [
    "MaximumLogits",
    "conclusion",
    "cumulative_ratio",
    "figure1",
    "figure2a",
    "figure2b",
    "figure3",
    "figure4",
    "figure5",
    "figure7",
    "figure8",
    "figure9",
    "figure10",
    "figure13",
]

SHARES = 25  # bins of the histograms of probabilities
LOGITS = 40  # bins of the histograms of maximum logits
ACROSS = 4  # panels beside each other in Figures 8 and 9
NETWORKS = ("FDNN", "DDNN", "Random images")  # groups of networks in Figures 2(a) and 7


def figure1(methods: dict[str, dict], titles: dict[str, str]) -> Drawn:
    """Figure 1, Section 1: accuracy by confidence, one panel a method, with the gap to perfect calibration.

    Args:
        methods: results of one row, `{method: {"ece": [...], "reliability": {"count", "confidence",
            "accuracy"}}}`, shares in [0, 1].
        titles: the methods to show, with their names.
    """
    bins = {}
    heads = {}
    for key, title in titles.items():
        if key in methods:
            bins[key] = _bins(methods[key]["reliability"])
            ece = 100 * np.mean(methods[key]["ece"])
            heads[key] = f"{title}\nECE {ece:.1f} %"
    return Drawn(_stacked(bins, "method"), _draw_reliability, {"titles": heads})


def _bins(reliability: dict[str, list]) -> pd.DataFrame:
    """Edges, share of samples, confidence and accuracy of each bin in percent.

    Confidence and accuracy are NaN where a bin is empty.
    """
    count = np.array(reliability["count"])
    edges = np.linspace(0, 100, len(count) + 1)
    confidence = 100 * np.array(reliability["confidence"])
    accuracy = 100 * np.array(reliability["accuracy"])
    return pd.DataFrame(
        {
            "from_percent": edges[:-1],
            "to_percent": edges[1:],
            "samples_percent": 100 * count / count.sum(),
            "confidence_percent": np.where(count > 0, confidence, np.nan),
            "accuracy_percent": np.where(count > 0, accuracy, np.nan),
        }
    )


def _draw_reliability(data: pd.DataFrame, titles: dict[str, str]) -> Figure:
    figure, axes = panels((2, len(titles)), (1.9, 1.7), sharex=True, sharey="row", height_ratios=[3, 1])
    for (top, bottom), (key, title) in zip(axes.T, titles.items()):
        bars = data[data["method"] == key].dropna()
        _reliability_panel(top, bars, COLORS.get(key, COLORS["raw"]))
        _bars(bottom, bars, "samples_percent", color="gray")
        name_panel(top, title=title)
        name_panel(bottom, x="confidence (%)")
    name_panel(axes[0, 0], y="accuracy (%)")
    name_panel(axes[1, 0], y="samples (%)")
    legend(figure)
    return figure


def _reliability_panel(axis: Axes, bars: pd.DataFrame, color: str) -> None:
    """Bars of accuracy, and hatched on top of them the gap to the confidence."""
    accuracy = bars["accuracy_percent"]
    gap = bars.assign(gap=bars["confidence_percent"] - accuracy)
    hatch = {"facecolor": (1, 1, 1, 0.5), "edgecolor": COLORS["gap"], "hatch": "////"}
    _bars(axis, bars, "accuracy_percent", color=color, alpha=0.7)
    _bars(axis, gap, "gap", bottom=accuracy, label="gap to confidence", **hatch)
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="perfect calibration")
    axis.set(xlim=(0, 100), ylim=(0, 100))


def _bars(axis: Axes, bars: pd.DataFrame, height: str, **style: Any) -> None:
    """A bar in the middle of each bin of confidence, with a tenth of its width left free."""
    middle = (bars["from_percent"] + bars["to_percent"]) / 2
    width = 0.9 * (bars["to_percent"] - bars["from_percent"])
    axis.bar(middle, bars[height], width, **style)


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
    paper's first author, and one of test images. A text below them says what the numbers show.
    """
    words = {"title": "On", "text": conclusion(logits)}
    return _maximum_logits({"own training images": logits.own, "test images": logits.test}, words)


def conclusion(logits: MaximumLogits) -> str:
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
    return Drawn(_stacked(parts, "group", "distribution"), _draw_probabilities, {})


def _draw_probabilities(data: pd.DataFrame) -> Figure:
    groups = data["group"].unique()
    figure, axes = panels((1, len(groups)), (2.7, 2.6), sharex=True, sharey=True)
    for axis, label in zip(axes.flat, groups):
        group = data[data["group"] == label]
        for key, name, dash in (("in", "in distribution", "-"), ("out", "out of distribution", "--")):
            _outline(axis, group[group["distribution"] == key], name, COLORS[key], dash)
        auroc = group["auroc_percent"].iloc[0]
        fpr95 = group["fpr95_percent"].iloc[0]
        title = f"{label}\nAUROC {auroc:.1f} %, FPR95 {fpr95:.1f} %"
        name_panel(axis, x="maximum probability (%)", title=title)
        axis.set_xlim(0, 100)
    name_panel(axes[0, 0], y="density (1/%)")
    legend(figure)
    return figure


def figure3(dropped: dict[str, list[dict]]) -> Drawn:
    """Figure 3, Section 3.2: accuracy after training on data without their largest singular values.

    Args:
        dropped: `{label: [{"share": 0.05, "accuracy": [one a repeat]}, ...]}`, shares in [0, 1].
    """
    lines = []
    for label, points in dropped.items():
        for point in sorted(points, key=lambda point: point["share"]):
            line = {"set": label, "dropped_percent": 100 * point["share"]}
            lines.append(line | _percent("accuracy", point["accuracy"]))
    columns = ["set", "dropped_percent", *_percent("accuracy", [0])]
    return Drawn(pd.DataFrame(lines, columns=columns), _draw_dropped, {})


def _draw_dropped(data: pd.DataFrame) -> Figure:
    figure, ((axis,),) = panels((1, 1), (4.2, 3.2))
    for label, style in styles(data["set"].unique()).items():
        curve(axis, data[data["set"] == label], "dropped_percent", "accuracy", label=label, **style)
    axis.set_xticks(data["dropped_percent"].unique())
    name_panel(axis, x="share of the largest singular values dropped (%)", y="accuracy (%)")
    legend(figure)
    return figure


def figure4(embeddings: dict[str, dict[str, np.ndarray]], labels: np.ndarray, classes: list[str]) -> Drawn:
    """Figure 4, Section 3.3: t-SNE of the features after each block, colored by class.

    A network is a row of panels, and a block is a column.

    Args:
        embeddings: `{label: {block: (n, 2)}}`, of the same n images everywhere.
        labels: `(n,)` class numbers.
        classes: names of the classes.
    """
    points = {}
    for label, blocks in embeddings.items():
        for block, embedding in blocks.items():
            x, y = embedding.T
            points[label, block] = pd.DataFrame({"class": np.take(classes, labels), "x": x, "y": y})
    return Drawn(_stacked(points, "network", "block"), _draw_maps, {"classes": list(classes)})


def _draw_maps(data: pd.DataFrame, classes: list[str]) -> Figure:
    networks = data["network"].unique()
    blocks = data["block"].unique()
    figure, axes = panels((len(networks), len(blocks)), (1.7, 1.6))
    for row, network in zip(axes, networks):
        name_panel(row[0], y=f"{network}\nt-SNE 2 (a. u.)")
        for axis, block in zip(row, blocks):
            shown = (data["network"] == network) & (data["block"] == block)
            _scatter(axis, data[shown], classes)
    for top, bottom, block in zip(axes[0], axes[-1], blocks):
        name_panel(top, title=block)
        name_panel(bottom, x="t-SNE 1 (a. u.)")
    legend(figure, markerscale=2.5)
    return figure


def _scatter(axis: Axes, points: pd.DataFrame, classes: list[str]) -> None:
    """Points in a color and a marker a class; pixels in an SVG, which would be megabytes otherwise."""
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", "datalim")
    if points.empty:
        return
    for i, name in enumerate(classes):
        of_class = points[points["class"] == name]
        color = CYCLE[i % len(CYCLE)]
        # Beyond ten classes the colors come again, with other markers.
        marker = MARKERS[(i + i // len(CYCLE)) % len(MARKERS)]
        style: dict[str, Any] = {"color": color, "marker": marker, "linewidths": 0, "alpha": 0.7}
        axis.scatter(of_class["x"], of_class["y"], 5, rasterized=True, label=name, **style)


def figure5(dropped: dict[str, list[dict]]) -> Drawn:
    """Figure 5, Section 5.5: Figure 3 for data distilled with and without MDT."""
    return figure3(dropped)


def figure7(logits: MaximumLogits, masked: dict[float, np.ndarray]) -> Drawn:
    """Figure 7, Section 5.4: maximum logits of FDNNs and DDNNs, and of DDNNs on masked distilled images.

    The masked images are beside the unmasked training images of each group in one panel, as in the public
    code of the paper's first author, and beside test images in the other.

    Args:
        masked: `{ratio: (R, N)}`, the DDNNs on their distilled images with a share `ratio` of zeros.
    """
    parts = {f"DDNN, distilled images {100 * ratio:g} % masked": values for ratio, values in masked.items()}
    networks = ("FDNN", "DDNN")
    own = {group: logits.own[group] for group in networks}
    test = {group: logits.test[group] for group in networks}
    words = {"title": "Unmasked:", "text": ""}
    return _maximum_logits({"own training images": own | parts, "test images": test | parts}, words)


def _maximum_logits(panels_of: dict[str, dict[str, np.ndarray]], words: dict[str, str]) -> Drawn:
    """Histograms over each other of `{images: {group: (R, N)}}`, all networks of a group together.

    There is a panel for each kind of images. A group is one of `NETWORKS`, or of masked images.

    Args:
        words: "title", which stands before the kind of images above a panel, and "text" below the panels.
    """
    every = [np.ravel(values) for groups in panels_of.values() for values in groups.values()]
    edges = np.histogram_bin_edges(np.concatenate(every).astype(float), LOGITS)
    bars = {}
    for images, groups in panels_of.items():
        for group, values in groups.items():
            bars[images, group] = _density(values, edges)
    return Drawn(_stacked(bars, "images", "network"), _draw_maximum_logits, words)


def _draw_maximum_logits(data: pd.DataFrame, title: str, text: str) -> Figure:
    kinds = data["images"].unique()
    figure, axes = panels((1, len(kinds)), (3.3, 2.6), sharex=True, sharey=True)
    colors = _network_colors(data["network"].unique())
    for axis, images in zip(axes.flat, kinds):
        shown = data[data["images"] == images]
        for (group, color), dash in zip(colors.items(), itertools.cycle(DASHES)):
            bars = shown[shown["network"] == group]
            name = f"{group}: {bars['mean'].iloc[0]:.2f} ± {bars['std'].iloc[0]:.2f}"
            _outline(axis, bars, name, color, dash, filled=group in NETWORKS)
        name_panel(axis, x="maximum logit (nats)", title=f"{title} {images}")
        _legend_below(axis, "mean ± standard deviation")
    name_panel(axes[0, 0], y="density (1/nat)")
    figure.set_figheight(figure.get_figheight() + 0.16 * (len(colors) + 1))  # inches: the lines of a legend
    _text_below(figure, text)
    return figure


def _network_colors(groups: Iterable[str]) -> dict[str, str]:
    """A color for each group of networks."""
    masked = itertools.cycle(MASKED)
    colors = {}
    for group in groups:
        colors[group] = COLORS[group] if group in NETWORKS else next(masked)
    return colors


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


def _text_below(figure: Figure, text: str) -> None:
    """A paragraph at the bottom of a figure, which grows by it."""
    if not text:
        return
    letters = int(figure.get_figwidth() / 0.062)  # inches: a letter's width
    lines = textwrap.wrap(text, letters)
    figure.set_figheight(figure.get_figheight() + 0.16 * len(lines) + 0.1)
    figure.supxlabel("\n".join(lines), fontsize=TEXT)


def _density(values: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """A histogram of area 1, one line a bin, with mean and standard deviation of all values together."""
    values = np.ravel(values).astype(float)
    density, _ = np.histogram(values, edges, density=True)
    bars = {"from": edges[:-1], "to": edges[1:], "density": density}
    return pd.DataFrame(bars | {"mean": values.mean(), "std": values.std()})


def _outline(axis: Axes, bars: pd.DataFrame, label: str, color: str, dash: Any, filled: bool = True) -> None:
    edges = [*bars["from"], bars["to"].iloc[-1]]
    face = to_rgba(color, 0.15 if filled else 0)
    style = {"facecolor": face, "edgecolor": color, "linestyle": dash, "linewidth": 1.2}
    axis.stairs(bars["density"], edges, fill=True, label=label, **style)


def figure8(fits: dict[str, list[dict]], levels: dict[str, dict[str, list[float]]], start: float) -> Drawn:
    """Figure 8, Section 6: ECE against the mask ratio of MTS, early-stopped and converged, one panel a row.

    Args:
        fits: `{row: [{"ratio", "share", "start", "temperature", "bound_hit", "ece"}, ...]}`: `start` is None
            for the converged fit; the last three are lists over repeats. There is one early-stopped and one
            converged fit a ratio; shares are in [0, 1].
        levels: `{method: {row: ECE of each repeat}}` of the methods that no ratio changes: `raw`, at T = 1;
            `fixed`, at T = `start`; `shipped`, at the temperature that comes with the set.
        start: first temperature of the early-stopped fits.
    """
    data = _fit_points(fits, levels, "ratio")
    return Drawn(data, _draw_fits, {"start": start, "x": "ratio_percent", "x_name": "mask ratio of MTS (%)"})


def figure9(fits: dict[str, list[dict]], levels: dict[str, dict[str, list[float]]], start: float) -> Drawn:
    """Figure 9, Section 6: ECE against the share of the distilled images that MTS is fitted on.

    The arguments are as for Figure 8, with shares in place of ratios.
    """
    data = _fit_points(fits, levels, "share")
    words = {"start": start, "x": "share_percent", "x_name": "share of images fitted on (%)"}
    return Drawn(data, _draw_fits, words)


def _fit_points(fits: dict[str, list[dict]], levels: dict[str, dict], key: str) -> pd.DataFrame:
    """One line a row, method and value of `key`.

    The level methods have one line a row, without a value.
    """
    points = []
    for row, of_row in fits.items():
        for fit in sorted(of_row, key=lambda fit: fit[key]):
            points.append(_fit_point(row, fit, key))
        for method, of_rows in levels.items():
            if row in of_rows:
                points.append({"row": row, "method": method} | _percent("ece", of_rows[row]))
    numbers = [*_percent("ece", [0]), "temperature_mean", "bound_hits"]
    return pd.DataFrame(points, columns=["row", "method", f"{key}_percent", *numbers])


def _fit_point(row: str, fit: dict, key: str) -> dict[str, Any]:
    method = "mts_converged" if fit["start"] is None else "mts"
    point = {"row": row, "method": method, f"{key}_percent": 100 * fit[key]}
    point |= _percent("ece", fit["ece"])
    point["temperature_mean"] = np.mean(fit["temperature"])
    point["bound_hits"] = int(np.sum(fit["bound_hit"]))
    return point


def _draw_fits(data: pd.DataFrame, start: float, x: str, x_name: str) -> Figure:
    """Each row has its own y axis: the converged fits reach 50 % on some and would flatten the others."""
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
    figure, axes = panels((lines, columns), (2.4, 2.2), wide=4)
    for i, (axis, row) in enumerate(zip(axes.flat, rows)):
        of_row = data[data["row"] == row]
        for method, marker, dash in (("mts", "o", "-"), ("mts_converged", "s", "--")):
            _fitted_curve(
                axis, of_row[of_row["method"] == method], x, names[method], marker=marker, linestyle=dash
            )
        for method, level in (("raw", ":"), ("fixed", "-."), ("shipped", (0, (5, 1, 1, 1)))):
            _level(axis, of_row[of_row["method"] == method], names[method], level)
        axis.set_ylim(bottom=0)
        lowest = i + columns >= len(rows)
        first = i % columns == 0
        name_panel(axis, x=x_name if lowest else None, y="ECE (%)" if first else None, title=row)
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    legend(figure)
    return figure


def _fitted_curve(axis: Axes, points: pd.DataFrame, x: str, name: str, **style: Any) -> None:
    """The curve of a method, hollow where a temperature ended on its bound."""
    if points.empty:
        return
    color = COLORS[points["method"].iloc[0]]
    curve(axis, points, x, "ece", label=name, color=color, **style)
    hit = points[points["bound_hits"] > 0]
    if len(hit):
        hollow = {"marker": style["marker"], "linestyle": "", "markersize": 4, "markerfacecolor": "white"}
        axis.plot(hit[x], hit["ece_mean_percent"], color=color, label="hollow: some T on its bound", **hollow)


def _level(axis: Axes, points: pd.DataFrame, name: str, dash: Any) -> None:
    """A level line for each of the points."""
    for method, ece in zip(points["method"], points["ece_mean_percent"]):
        axis.axhline(ece, color=COLORS[method], linestyle=dash, linewidth=1.4, zorder=1.5, label=name)


def figure10(results: dict[int, dict[str, dict]], titles: dict[str, str]) -> Drawn:
    """Figure 10, Section 6: ECE by images per class, one line a method, mean and standard deviation.

    Args:
        results: `{images per class: {method: {"ece": [one a repeat]}}}`, shares in [0, 1]; a method may be
            missing at some numbers of images.
        titles: the methods to show, with their names.
    """
    points = []
    for key in titles:
        for ipc in sorted(results):
            if key in results[ipc]:
                points.append({"ipc": ipc, "method": key} | _percent("ece", results[ipc][key]["ece"]))
    data = pd.DataFrame(points, columns=["ipc", "method", *_percent("ece", [0])])
    return Drawn(data, _draw_by_ipc, {"titles": titles})


def _draw_by_ipc(data: pd.DataFrame, titles: dict[str, str]) -> Figure:
    figure, ((axis,),) = panels((1, 1), (4.6, 3.2))
    counts = sorted(data["ipc"].unique())
    methods = data["method"].unique()
    for i, (key, style) in enumerate(styles(methods).items()):
        of_method = data[data["method"] == key]
        aside = 0.4 * ((i + 0.5) / len(methods) - 0.5)  # beside each other, so that no bar hides another
        x = of_method["ipc"].map(counts.index) + aside
        mean = of_method["ece_mean_percent"]
        std = of_method["ece_std_percent"]
        axis.errorbar(x, mean, std, label=titles[key], markersize=4, linewidth=1, **style)
    axis.set_xticks(range(len(counts)), [str(count) for count in counts])
    axis.set_ylim(bottom=0)
    name_panel(axis, x="distilled images per class (count)", y="ECE (%)")
    legend(figure)
    return figure


def figure13(singular_values: dict[str, np.ndarray]) -> Drawn:
    """Figure 13, Appendix B.2: cumulative explained ratio of the largest singular values.

    They are the singular values of all images of a set as one matrix.

    Args:
        singular_values: `{label: (K,)}`, descending; K may differ.
    """
    points = {}
    for label, values in singular_values.items():
        explained = 100 * cumulative_ratio(values)
        components = np.linspace(0, 100, len(explained))
        points[label] = pd.DataFrame({"components_percent": components, "explained_percent": explained})
    return Drawn(_stacked(points, "set"), _draw_cumulative, {})


def _draw_cumulative(data: pd.DataFrame) -> Figure:
    figure, ((axis,),) = panels((1, 1), (4.2, 3.6))
    for i, (label, style) in enumerate(styles(data["set"].unique()).items()):
        points = data[data["set"] == label]
        # A mark every 15 % of the panel's diagonal, where there are enough points for it.
        marks = (0.03 * i, 0.15) if len(points) > 20 else None
        axis.plot(
            points["components_percent"],
            points["explained_percent"],
            label=label,
            linestyle=DASHES[i % len(DASHES)],
            linewidth=1.2,
            markersize=4,
            markevery=marks,
            **style,
        )
    axis.plot([0, 100], [0, 100], color="gray", linewidth=0.8, linestyle="--", label="all components alike")
    axis.set(xlim=(-1, 101), ylim=(-1, 102))
    name_panel(axis, x="share of the components (%)", y="cumulative explained ratio (%)")
    legend(figure)
    return figure


def cumulative_ratio(singular_values: np.ndarray) -> np.ndarray:
    """`sum(s[:k]^2) / sum(s^2)` for k = 0 ... K, `(K + 1,)`: from exactly 0 to exactly 1.

    Args:
        singular_values: `(K,)`, not all zero.
    """
    squares = np.asarray(singular_values, float) ** 2
    energy = np.concatenate([[0.0], np.cumsum(squares)])
    return energy / energy[-1]


def _percent(number: str, values: list[float]) -> dict[str, float]:
    """Mean and standard deviation of shares, in percent, and how many they are."""
    mean, std = mean_std(values)
    return {
        f"{number}_mean_percent": 100 * mean,
        f"{number}_std_percent": 100 * std,
        "repeats": len(values),
    }


def _stacked(parts: dict[Any, pd.DataFrame], *names: str) -> pd.DataFrame:
    """One table of several; the columns `names` say which part a line belongs to."""
    if not parts:
        return pd.DataFrame(columns=list(names))
    together = pd.concat(parts, names=names)
    return together.reset_index(list(names)).reset_index(drop=True)
