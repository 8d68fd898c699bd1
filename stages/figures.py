"""The paper's figures, by their numbers there. Each is a function of results that gives the figure and the numbers drawn; it
reads no files. Our text of the paper has no Figure 11; 6 and 12(b) are the drawing of 4 for other networks, 12(a) is that of 7
for another data set.

`write_figures` writes them.
"""

import itertools
import multiprocessing
import os
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from stages.shared.files import replacing, write_text

__all__ = [
    "COLORS", "Drawn", "cumulative_ratio", "figure1", "figure2a", "figure2b", "figure3", "figure4", "figure5", "figure7",
    "figure8", "figure9", "figure10", "figure13", "write_figures",
]  # fmt: skip

SVG = {"svg.fonttype": "none", "svg.hashsalt": "figures"}

# Okabe and Ito's palette, told apart with every color vision, with three of Paul Tol's in place of its yellow.
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#882255", "#DDCC77", "#332288")

# One color a method in all figures, from the same two.
COLORS = {
    "raw": "#000000", "fixed": "#117733", "oracle": "#661100", "gap": "#D55E00",
    "mixup": "#E69F00", "label_smoothing": "#CC79A7", "focal": "#009E73",
    "ts": "#56B4E9", "mts": "#0072B2", "ts_converged": "#332288", "mts_converged": "#882255",
}  # fmt: skip
# Networks, sets and samples, which no figure shows beside methods, share theirs; FDNN is blue and DDNN red in the paper.
COLORS |= dict.fromkeys(("FDNN", "Full data", "in"), "#0072B2") | dict.fromkeys(("DDNN", "MTT"), "#D55E00")
COLORS |= dict.fromkeys(("MDT", "MTT with MDT"), "#009E73") | dict.fromkeys(("RTP", "out"), "#E69F00") | {"DC": "#56B4E9", "DSA": "#CC79A7"}
MASKED = ("#E69F00", "#CC79A7", "#000000")  # masked distilled images in Figure 7, by ratio
MARKERS = "os^vDPX<>*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

TEXT, SMALL = 8, 7  # points


class Drawn(NamedTuple):
    figure: Figure
    data: pd.DataFrame  # the numbers that are drawn, one line a point or bar


def write_figures(drawn: dict[str, Drawn], folder: Path) -> None:
    """Write `<name>.svg` (text as text), `<name>.png` and `<name>.csv` of each figure, the same bytes every time.

    On Linux the cores share the figures: laying one out takes Python half a second.
    """
    global _drawn
    _drawn = drawn  # inherited by the fork: nothing is pickled
    if sys.platform == "linux" and len(drawn) > 1:
        with multiprocessing.get_context("fork").Pool(min(len(os.sched_getaffinity(0)), len(drawn))) as pool:
            pool.starmap(_write, [(name, folder) for name in drawn], chunksize=1)
    else:
        for name in drawn:
            _write(name, folder)


_drawn: dict[str, Drawn] = {}


def _write(name: str, folder: Path) -> None:
    one = _drawn[name]
    for ending, about in (("svg", {"Date": None}), ("png", {"Software": None})):
        with matplotlib.rc_context(SVG), replacing(folder / f"{name}.{ending}") as temporary:
            one.figure.savefig(temporary, metadata=about)
        one.figure.set_layout_engine("none")  # what the first has laid out serves the second
    write_text(folder / f"{name}.csv", one.data.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def figure1(methods: dict[str, dict], titles: dict[str, str]) -> Drawn:
    """Figure 1, Section 1: accuracy by confidence, one panel a method, the gap to perfect calibration hatched on top.

    Args:
        methods: results of one row, `{method: {"ece": [...], "reliability": {"count", "confidence", "accuracy"}}}`, shares in [0, 1].
        titles: the methods to show, with their names.
    """
    shown = [key for key in titles if key in methods]
    figure, axes = _figure(2, len(shown), 1.9, 1.7, sharex=True, sharey="row", height_ratios=[3, 1])
    bins = {key: _bins(methods[key]["reliability"]) for key in shown}
    for (top, bottom), key in zip(axes.T, shown):
        some = bins[key].dropna()
        middle, width = (some["from_percent"] + some["to_percent"]) / 2, 0.9 * (some["to_percent"] - some["from_percent"])
        gap = some["confidence_percent"] - some["accuracy_percent"]
        top.bar(middle, some["accuracy_percent"], width, color=COLORS.get(key, COLORS["raw"]), alpha=0.7)
        hatch = {"facecolor": (1, 1, 1, 0.5), "edgecolor": COLORS["gap"], "hatch": "////"}
        top.bar(middle, gap, width, bottom=some["accuracy_percent"], **hatch, label="gap to confidence")
        top.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="perfect calibration")
        bottom.bar(middle, some["samples_percent"], width, color="gray")
        top.set(xlim=(0, 100), ylim=(0, 100))
        _label(top, title=f"{titles[key]}\nECE {100 * np.mean(methods[key]['ece']):.1f} %")
        _label(bottom, x="confidence (%)")
    _label(axes[0, 0], y="accuracy (%)")
    _label(axes[1, 0], y="samples (%)")
    _legend(figure)
    return Drawn(figure, _tidy(bins, "method"))


def figure2a(full: np.ndarray, distilled: np.ndarray) -> Drawn:
    """Figure 2(a), Section 3.1: maximum logits on test images of networks of full data (FDNN) and of distilled data (DDNN).

    Args:
        full: `(R, N)`, R networks and N images.
        distilled: `(R, N)`.
    """
    return _maximum_logits({"FDNN": full, "DDNN": distilled})


def figure2b(groups: dict[str, dict[str, np.ndarray]], numbers: dict[str, dict[str, float]]) -> Drawn:
    """Figure 2(b), Sections 3.1 and 5.4: maximum probabilities in and out of distribution, one panel a group of networks.

    Args:
        groups: `{label: {"in": (R, N), "out": (R, M)}}`, in [0, 1].
        numbers: `{label: {"auroc": mean, "fpr95": mean}}`, shares, for the panels' titles.

    In the numbers drawn, probabilities are in percent and densities in 1/percent.
    """
    figure, axes = _figure(1, len(groups), 2.7, 2.6, sharex=True, sharey=True)
    edges, bars = np.linspace(0, 100, 26), {}
    for axis, (label, group) in zip(axes.flat, groups.items()):
        auroc, fpr95 = 100 * numbers[label]["auroc"], 100 * numbers[label]["fpr95"]
        for key, name, dash in (("in", "in distribution", "-"), ("out", "out of distribution", "--")):
            bars[label, key] = _density(100 * np.clip(group[key], 0, 1), edges).assign(auroc_percent=auroc, fpr95_percent=fpr95)
            _outline(axis, bars[label, key], name, COLORS[key], dash)
        _label(axis, x="maximum probability (%)", title=f"{label}\nAUROC {auroc:.1f} %, FPR95 {fpr95:.1f} %")
        axis.set_xlim(0, 100)
    _label(axes[0, 0], y="density (1/%)")
    _legend(figure)
    return Drawn(figure, _tidy(bars, "group", "distribution"))


def figure3(dropped: dict[str, list[dict]]) -> Drawn:
    """Figure 3, Section 3.2: accuracy after training on data without their largest singular values, mean and standard deviation.

    Args:
        dropped: `{label: [{"share": 0.05, "accuracy": [one a repeat]}, ...]}`, shares in [0, 1].
    """
    each = [(label, point) for label, points in dropped.items() for point in sorted(points, key=lambda point: point["share"])]
    lines = [{"set": label, "dropped_percent": 100 * point["share"]} | _percent("accuracy", point["accuracy"]) for label, point in each]
    data = pd.DataFrame(lines, columns=["set", "dropped_percent", *_percent("accuracy", [0])])
    figure, ((axis,),) = _figure(1, 1, 4.2, 3.2)
    for label, style in _styles(dropped).items():
        _curve(axis, data[data["set"] == label], "dropped_percent", "accuracy", label=label, **style)
    axis.set_xticks(data["dropped_percent"].unique())
    _label(axis, x="share of the largest singular values dropped (%)", y="accuracy (%)")
    _legend(figure)
    return Drawn(figure, data)


def figure4(embeddings: dict[str, dict[str, np.ndarray]], labels: np.ndarray, classes: list[str]) -> Drawn:
    """Figure 4, Section 3.3: t-SNE of the features after each block, colored by class; one row of panels a network.

    Args:
        embeddings: `{label: {block: (n, 2)}}`, of the same n images everywhere.
        labels: `(n,)` class numbers.
        classes: names of the classes.
    """
    blocks = list(dict.fromkeys(block for found in embeddings.values() for block in found))
    figure, axes = _figure(len(embeddings), len(blocks), 1.7, 1.6)
    points = {}
    for row, (label, found) in zip(axes, embeddings.items()):
        _label(row[0], y=f"{label}\nt-SNE 2 (a. u.)")
        for axis, block in zip(row, blocks):
            _scatter(axis, found.get(block, np.empty((0, 2))), labels, classes)
            if block in found:
                x, y = found[block].T
                points[label, block] = pd.DataFrame({"class": np.take(classes, labels), "x": x, "y": y})
    for top, bottom, block in zip(axes[0], axes[-1], blocks):
        _label(top, title=block)
        _label(bottom, x="t-SNE 1 (a. u.)")
    _legend(figure, markerscale=2.5)
    return Drawn(figure, _tidy(points, "network", "block"))


def figure5(dropped: dict[str, list[dict]]) -> Drawn:
    """Figure 5, Section 5.5: Figure 3 for data distilled with and without MDT."""
    return figure3(dropped)


def figure7(full: np.ndarray, distilled: np.ndarray, masked: dict[float, np.ndarray]) -> Drawn:
    """Figure 7, Section 5.4: maximum logits on test images, and those of the DDNN on masked distilled images.

    Args:
        full: `(R, N)`, the FDNN on test images.
        distilled: `(R, N)`, the DDNN on test images.
        masked: `{ratio: (R, M)}`, the DDNN on distilled images with a share `ratio` of zeros.
    """
    parts = {"FDNN on test images": full, "DDNN on test images": distilled}
    parts |= {f"DDNN on distilled images, {100 * ratio:g} % masked": values for ratio, values in masked.items()}
    return _maximum_logits(parts)


def figure8(fits: dict[str, list[dict]], raw: dict[str, list[float]], fixed: dict[str, list[float]], start: float) -> Drawn:
    """Figure 8, Section 6: ECE against the mask ratio of MTS, early-stopped and converged, one panel a row.

    Args:
        fits: `{row: [{"ratio", "share", "start", "temperature", "bound_hit", "ece"}, ...]}`: `start` is None for the converged fit;
            the last three are lists over repeats. One early-stopped and one converged fit a ratio; shares in [0, 1].
        raw: `{row: ECE of each repeat}` at T = 1.
        fixed: the same at T = `start`, with no fit.
        start: first temperature of the early-stopped fits.
    """
    return _ece_of_fits(fits, raw, fixed, start, "ratio", "mask ratio of MTS (%)")


def figure9(fits: dict[str, list[dict]], raw: dict[str, list[float]], fixed: dict[str, list[float]], start: float) -> Drawn:
    """Figure 9, Section 6: ECE against the share of the distilled images that MTS is fitted on; arguments as for Figure 8."""
    return _ece_of_fits(fits, raw, fixed, start, "share", "share of images fitted on (%)")


def figure10(results: dict[int, dict[str, dict]], titles: dict[str, str]) -> Drawn:
    """Figure 10, Section 6: ECE by images per class, one line a method, mean and standard deviation.

    Args:
        results: `{images per class: {method: {"ece": [one a repeat]}}}`, shares in [0, 1]; a method may be missing somewhere.
        titles: the methods to show, with their names.
    """
    counts = sorted(results)
    points = [{"ipc": ipc, "method": key} | _percent("ece", results[ipc][key]["ece"]) for key in titles for ipc in counts if key in results[ipc]]
    data = pd.DataFrame(points, columns=["ipc", "method", *_percent("ece", [0])])
    figure, ((axis,),) = _figure(1, 1, 4.6, 3.2)
    shown = [key for key in titles if key in set(data["method"])]
    for i, (key, style) in enumerate(_styles(shown).items()):
        some = data[data["method"] == key]
        x = some["ipc"].map(counts.index) + 0.4 * ((i + 0.5) / len(shown) - 0.5)  # side by side, so that no bar hides another
        axis.errorbar(x, some["ece_mean_percent"], some["ece_std_percent"], label=titles[key], markersize=4, linewidth=1, **style)
    axis.set_xticks(range(len(counts)), [str(ipc) for ipc in counts])
    axis.set_ylim(bottom=0)
    _label(axis, x="distilled images per class (count)", y="ECE (%)")
    _legend(figure)
    return Drawn(figure, data)


def figure13(singular_values: dict[str, np.ndarray]) -> Drawn:
    """Figure 13, Appendix B.2: cumulative explained ratio of the largest singular values of images as a matrix.

    Args:
        singular_values: `{label: (K,)}`, descending; K may differ.
    """
    figure, ((axis,),) = _figure(1, 1, 4.2, 3.6)
    points = {}
    for i, (label, style) in enumerate(_styles(singular_values).items()):
        percent = 100 * cumulative_ratio(singular_values[label])
        x = np.linspace(0, 100, len(percent))
        marks = (0.03 * i, 0.15) if len(percent) > 20 else None  # one every 15 % of the panel's diagonal
        axis.plot(x, percent, label=label, linestyle=DASHES[i % len(DASHES)], linewidth=1.2, markersize=4, markevery=marks, **style)
        points[label] = pd.DataFrame({"components_percent": x, "explained_percent": percent})
    axis.plot([0, 100], [0, 100], color="gray", linewidth=0.8, linestyle="--", label="all components alike")
    axis.set(xlim=(-1, 101), ylim=(-1, 102))
    _label(axis, x="share of the components (%)", y="cumulative explained ratio (%)")
    _legend(figure)
    return Drawn(figure, _tidy(points, "set"))


def cumulative_ratio(singular_values: np.ndarray) -> np.ndarray:
    """`sum(s[:k]^2) / sum(s^2)` for k = 0 ... K, `(K + 1,)`: from exactly 0 to exactly 1.

    Args:
        singular_values: `(K,)`, not all zero.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.asarray(singular_values, float) ** 2)])
    return energy / energy[-1]


def _bins(reliability: dict[str, list]) -> pd.DataFrame:
    """Edges, share of samples, confidence and accuracy of each bin in percent; the last two NaN where a bin is empty."""
    count, edges = np.array(reliability["count"]), np.linspace(0, 100, len(reliability["count"]) + 1)
    values = {f"{key}_percent": np.where(count > 0, 100 * np.array(reliability[key]), np.nan) for key in ("confidence", "accuracy")}
    return pd.DataFrame({"from_percent": edges[:-1], "to_percent": edges[1:], "samples_percent": 100 * count / count.sum(), **values})


def _maximum_logits(parts: dict[str, np.ndarray]) -> Drawn:
    """Histograms over each other of `{label: (R, N)}`, all networks of a label together: FDNN, DDNN, then masked images."""
    edges = np.histogram_bin_edges(np.concatenate([np.ravel(values) for values in parts.values()]).astype(float), 40)
    bars = {label: _density(values, edges) for label, values in parts.items()}
    figure, ((axis,),) = _figure(1, 1, 4.4, 3.2)
    colors = itertools.chain((COLORS["FDNN"], COLORS["DDNN"]), itertools.cycle(MASKED))
    for (label, some), color, dash in zip(bars.items(), colors, itertools.cycle(DASHES)):
        _outline(axis, some, f"{label}: {some['mean'][0]:.2f} ± {some['std'][0]:.2f}", color, dash, filled=color not in MASKED)
    _label(axis, x="maximum logit (nats)", y="density (1/nat)")
    _legend(figure, title="mean ± standard deviation")
    return Drawn(figure, _tidy(bars, "network"))


def _density(values: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """Histogram of area 1, one line a bin, with mean and standard deviation of all values, whatever network they are of."""
    values = np.ravel(values).astype(float)
    density, _ = np.histogram(values, edges, density=True)
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "density": density, "mean": values.mean(), "std": values.std()})


def _outline(axis: Axes, bars: pd.DataFrame, label: str, color: str, dash, filled: bool = True) -> None:
    edges, face = [*bars["from"], bars["to"].iloc[-1]], to_rgba(color, 0.15 if filled else 0)
    axis.stairs(bars["density"], edges, fill=True, facecolor=face, edgecolor=color, linestyle=dash, linewidth=1.2, label=label)


def _scatter(axis: Axes, points: np.ndarray, labels: np.ndarray, classes: list[str]) -> None:
    """`(n, 2)` points, a color and a marker a class; pixels in an SVG, which would be megabytes otherwise."""
    for i, name in enumerate(classes) if len(points) else ():
        x, y = points[labels == i].T
        marker = MARKERS[(i + i // len(CYCLE)) % len(MARKERS)]  # beyond ten classes: the same colors, other markers
        axis.scatter(x, y, 5, color=CYCLE[i % len(CYCLE)], marker=marker, linewidths=0, alpha=0.7, rasterized=True, label=name)
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", "datalim")


def _ece_of_fits(fits: dict[str, list[dict]], raw: dict, fixed: dict, start: float, key: str, x_label: str) -> Drawn:
    """Each row has its own y axis: converged fits reach 50 % and more on some, where a common one would flatten all else."""
    data = _fit_points(fits, raw, fixed, key)
    names = {"mts": "MTS, early-stopped", "mts_converged": "MTS conv. (exact optimum)", "raw": "Raw", "fixed": f"T = {start:g}, no fit"}
    columns = min(4, len(fits))
    figure, axes = _figure(-(-len(fits) // 4), columns, 2.4, 2.2, wide=4)
    for i, (axis, row) in enumerate(zip(axes.flat, fits)):
        _fits_panel(axis, data[data["row"] == row], f"{key}_percent", names)
        _label(axis, x=x_label if i + columns >= len(fits) else None, y="ECE (%)" if i % columns == 0 else None, title=row)
    for axis in axes.flat[len(fits) :]:
        axis.remove()
    _legend(figure)
    return Drawn(figure, data)


def _fit_points(fits: dict[str, list[dict]], raw: dict, fixed: dict, key: str) -> pd.DataFrame:
    """One line a row, method and value of `key`; Raw and the fixed temperature have one line a row, without a value."""
    points = []
    for row, found in fits.items():
        for fit in sorted(found, key=lambda fit: fit[key]):
            point = {"row": row, "method": "mts_converged" if fit["start"] is None else "mts", f"{key}_percent": 100 * fit[key]}
            extra = {"temperature_mean": np.mean(fit["temperature"]), "bound_hits": int(np.sum(fit["bound_hit"]))}
            points.append(point | _percent("ece", fit["ece"]) | extra)
        points += [{"row": row, "method": method} | _percent("ece", of[row]) for method, of in (("raw", raw), ("fixed", fixed)) if row in of]
    return pd.DataFrame(points, columns=["row", "method", f"{key}_percent", *_percent("ece", [0]), "temperature_mean", "bound_hits"])


def _fits_panel(axis: Axes, data: pd.DataFrame, x: str, names: dict[str, str]) -> None:
    for method, marker, dash in (("mts", "o", "-"), ("mts_converged", "s", "--")):
        some = data[data["method"] == method]
        hit = some[some["bound_hits"] > 0]
        if len(some):
            _curve(axis, some, x, "ece", label=names[method], color=COLORS[method], marker=marker, linestyle=dash)
        if len(hit):
            hollow = {"marker": marker, "linestyle": "", "markersize": 4, "markerfacecolor": "white"}
            axis.plot(hit[x], hit["ece_mean_percent"], color=COLORS[method], **hollow, label="hollow: some T on its bound")
    for method, dash in (("raw", ":"), ("fixed", "-.")):
        for level in data.loc[data["method"] == method, "ece_mean_percent"]:
            axis.axhline(level, color=COLORS[method], linestyle=dash, linewidth=1.4, zorder=1.5, label=names[method])
    axis.set_ylim(bottom=0)


def _curve(axis: Axes, points: pd.DataFrame, x: str, number: str, **style) -> None:
    """Means as a line, one standard deviation to both sides as a band."""
    mean, std = points[f"{number}_mean_percent"], points[f"{number}_std_percent"]
    axis.plot(points[x], mean, markersize=4, linewidth=1.2, **style)
    axis.fill_between(points[x], mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)


def _percent(number: str, values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation (0 for a single value) of shares, in percent."""
    std = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return {f"{number}_mean_percent": 100 * float(np.mean(values)), f"{number}_std_percent": 100 * float(std), "repeats": len(values)}


def _styles(labels) -> dict[str, dict]:
    """Color by name, else the next of `CYCLE` that no name here has; marker by place."""
    free = itertools.cycle([color for color in CYCLE if color not in {COLORS.get(label) for label in labels}] or CYCLE)
    return {label: {"color": COLORS.get(label) or next(free), "marker": marker} for label, marker in zip(labels, itertools.cycle(MARKERS))}


def _figure(rows: int, columns: int, width: float, height: float, wide: float = 0, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its `(rows, columns)` axes, `width` x `height` inches a panel, at least `wide` inches and one panel."""
    rows, columns = max(rows, 1), max(columns, 1)
    figure = Figure(figsize=(max(width * columns, wide), height * rows), dpi=130, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.tick_params(labelsize=SMALL)
    return figure, axes


def _label(axis: Axes, x: str | None = None, y: str | None = None, title: str | None = None) -> None:
    for put, text, size in ((axis.set_xlabel, x, TEXT), (axis.set_ylabel, y, TEXT), (axis.set_title, title, TEXT)):
        if text is not None:
            put(text, fontsize=size)


def _legend(figure: Figure, **options) -> None:
    """One legend of all panels below them, in as few lines as fit; the figure grows by them."""
    named = {name: handle for axis in figure.axes for handle, name in zip(*axis.get_legend_handles_labels())}
    if named:
        widths = [0.5 + 0.06 * len(name) for name in named]  # inches
        fitting = [n for n in range(1, len(named) + 1) if n == 1 or sum(map(max, np.array_split(widths, n))) < figure.get_figwidth()]
        lines, columns = min((-(-len(named) // n), n) for n in fitting)
        figure.set_figheight(figure.get_figheight() + 0.16 * lines + 0.1)
        options |= {"ncols": columns, "fontsize": SMALL, "title_fontsize": SMALL, "frameon": False, "handlelength": 2.8}
        figure.legend(list(named.values()), list(named), loc="outside lower center", **options)


def _tidy(parts: dict, *names: str) -> pd.DataFrame:
    """One table of several, the columns `names` saying which a line is of."""
    return pd.concat(parts, names=names).reset_index(list(names)).reset_index(drop=True) if parts else pd.DataFrame(columns=names)
