"""How far a shipped temperature goes, and what needs no real image: two tables and a figure."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.cells import (
    ABSENT,
    METHODS,
    MISSING,
    REPEATS,
    Results,
    Table,
    mean_std,
    means,
    pair,
    percent,
)
from stages.reporting.drawing import Drawn
from stages.reporting.style import COLORS, TEXT, curve, legend, name_panel, panels

__all__ = ["reach_figure", "shipped_table", "without_images_table"]

# What the first two columns of a line say, by the part of the entry.
PARTS = {
    "networks": "T from other networks",
    "images": "T from real images",
    "losses": "Networks trained with",
    "carried": "T of another row",
    "shifts": "Test images",
    "objectives": "T fitted to",
    "own": "Each network's own T",
    "ensemble": "Mean of the probabilities",
    "maps": "Another map",
}
BESIDE = {"raw": "Raw's ECE", "shipped": "ECE at shipped T", "oracle": "ECE at oracle T"}
AT_SHIPPED = ("losses", "shifts")  # the parts of which the shipped temperature itself is tried
SHIFTS = {
    "rotation": "rotated by {}°",
    "noise": "with noise of {}",
    "blur": "blurred by {}",
    "contrast": "at {} of the contrast",
}
OBJECTIVES = {
    "nll": "NLL",
    "brier": "Brier score",
    "top_label_brier": "top-label Brier score",
    "confidence": "mean confidence = accuracy",
}
OTHERS = {
    "fitted": "one T for the mean",
    "vector": "vector scaling",
    "isotonic": "isotonic regression",
}
NUMBERS = ("temperature", "accuracy", "ece", "nll", "confidence_gap")
SHIPPED_NOTES = [
    f"In percent, {REPEATS}: of the row's own networks on test images, trained with cross-entropy where the"
    " line does not say otherwise. Raw, the shipped T and the oracle T beside them are those of the same"
    " networks on the same images. † a temperature ended on a bound.",
    "T from other networks and from real images: as it is shipped, but for the number of networks, or for the"
    " number of images, which are the first of each class in the order of the draw.",
    "Networks trained with another loss, and test images that are changed: at the shipped T, which was"
    " fitted for neither. Noise: its standard deviation for pixels in [0, 1]. Blur: its standard deviation as"
    " a share of the image's side.",
    "T fitted to: what is minimised on the same real images, or brought to be equal there. Each network's own"
    " T: the same on what that network itself makes of these images.",
    "Mean of the probabilities of all networks: one T is fitted on the mean of as many other networks and"
    " applied to the logarithm of the mean. The shipped T beside it is in each network, before the mean.",
    "Vector scaling has a scale and a shift for each class, so it can change the accuracy. Isotonic"
    " regression changes the confidence of the top class alone. Both are fitted as the shipped T is.",
]
WITHOUT_IMAGES = {
    "folds": "K folds",
    "augmented": "Augmented",
    "ensemble": "Ensemble, raw",
    "agreement": "Agreement",
}
WITHOUT_IMAGES_NOTES = [
    f"ECE in percent, {REPEATS}. The oracle alone is fitted on test labels, and nothing was chosen by them."
    " † a temperature ended on a bound.",
    "MTS: early-stopped, as in Table 1. K folds: one exact T on distilled images that the networks were"
    " trained without, fold by fold; none where a class has fewer images than there are folds. Augmented: the"
    " exact T on the distilled images under the row's augmentation, where it has one.",
    "Ensemble, raw: the mean of the probabilities of all networks, without a temperature. Its accuracy is"
    " another one than that of the other columns.",
    "Agreement: one T at which the mean confidence is the share of test images on which two networks agree."
    " It needs test inputs, but no labels.",
    "The shipped T needs real training images when the set is made, and none after that.",
]
WORSE = "# worse than Raw, by the mean"
APART = 1.1  # a number of images must be so many times another for both to stand below an axis
ACROSS = 2  # rows beside each other in the figure, with two panels each
# The parts that are numbers, with the names of the x axes.
VARIED = {"networks": "networks (count)", "images": "real images (count)"}  # names of the x axes
LEVELS = {"raw": ":", "oracle": "--"}
NAMES = {"shipped": "T from other networks on real images", "raw": "Raw", "oracle": METHODS["oracle"]}


def shipped_table(rows: Iterable[str], reached: dict[str, dict]) -> Table:
    """How far the shipped temperature goes: a line for each row and choice.

    Args:
        rows: all rows of the tables.
        reached: `data/reach/<row>.json` by row, in the table's order; {} without a result.
    """
    shown = set(rows)
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for row, result in reached.items():
        if row not in shown:
            continue
        if not result:
            lines.append(_missing_line(row))
            continue
        for entry in _shown(result["entries"]):
            lines.append(_line(row, entry, result["entries"]))
        numbers += [_numbers(row, entry) for entry in result["entries"]]
    title = "The shipped temperature: how far it goes"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(SHIPPED_NOTES))


def _shown(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The entries that have a line; numbers of images of which there are no more have one line together."""
    counts = set()
    for entry in entries:
        part = entry["part"]
        if part not in PARTS:
            continue
        is_beside = entry["choice"] in BESIDE
        if is_beside and not (part in AT_SHIPPED and entry["choice"] == "shipped"):
            continue
        if part == "images":
            if entry["images"] in counts:
                continue
            counts.add(entry["images"])
        yield entry


def _line(row: str, entry: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, str]:
    line = {"Row": row, "What": PARTS[entry["part"]], "Choice": _words(entry), "T": _temperature(entry)}
    line["Accuracy"] = _percent(entry["accuracy"])
    line["ECE"] = _percent(entry["ece"])
    for choice, title in BESIDE.items():
        other = _entry(entries, choice, on=entry["on"])
        line[title] = _percent([np.mean(other["ece"])]) if other else ABSENT
    return line


def _words(entry: dict[str, Any]) -> str:
    """What the choice of an entry is called."""
    part = entry["part"]
    choice = entry["choice"]
    if part in VARIED:
        number = entry[part]
        return f"{number} {part}" if number > 1 else f"{number} {part.removesuffix('s')}"
    if part == "losses":
        return METHODS.get(entry["on"], entry["on"])
    if part == "shifts":
        kind, strength = entry["on"].split(" ")
        return SHIFTS[kind].format(strength)
    if part in ("objectives", "own"):
        return OBJECTIVES[choice]
    return OTHERS.get(choice, choice)


def _entry(entries: list[dict[str, Any]], choice: str, on: str = "clean") -> dict[str, Any] | None:
    """The first entry of a choice on the same networks and images."""
    for entry in entries:
        if (entry["choice"], entry["on"]) == (choice, on):
            return entry
    return None


def _temperature(entry: dict[str, Any]) -> str:
    if "temperature" not in entry:
        return ""
    return f"{np.mean(entry['temperature']):.2f}{_mark(entry)}"


def _mark(entry: dict[str, Any]) -> str:
    return "†" if any(entry.get("bound_hit", [])) else ""


def _percent(values: list[float]) -> str:
    """Shares in percent; a single number has no deviation."""
    if len(values) == 1:
        return pair(100 * float(values[0]))
    return percent(values)


def _missing_line(row: str) -> dict[str, str]:
    line = {"Row": row, "What": MISSING, "Choice": MISSING, "T": MISSING, "Accuracy": MISSING, "ECE": MISSING}
    return line | dict.fromkeys(BESIDE.values(), MISSING)


def _numbers(row: str, entry: dict[str, Any]) -> dict[str, Any]:
    line = {"row": row, "part": entry["part"], "on": entry["on"], "choice": entry["choice"]}
    line["networks"] = entry.get("networks")
    line["images"] = entry.get("images")
    line["repeats"] = len(entry["ece"])
    line |= means(entry, NUMBERS)
    if "bound_hit" in entry:
        line["bound_hits"] = sum(entry["bound_hit"])
    return line


def without_images_table(results: Results, reached: dict[str, dict]) -> Table:
    """The ECE of what needs no real image, beside Raw, the shipped temperature and the oracle.

    Args:
        results: of all rows of the tables, with MTS and the temperature that is not fitted.
        reached: `data/reach/<row>.json` by row, in the table's order; {} without a result.
    """
    titles = _titles(results)
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    worse: dict[str, int] = dict.fromkeys(titles, 0)
    for row, result in reached.items():
        if row not in results.rows:
            continue
        methods = _methods(results, row, result)
        raw = methods.get("raw")
        line = {"Row": row}
        for key, title in titles.items():
            method = methods.get(key, {})
            line[title] = _ece_cell(method)
            if method and raw:
                number = {"row": row, "method": key, "repeats": len(method["ece"])}
                numbers.append(number | means(method, NUMBERS))
                worse[key] += int(np.mean(method["ece"]) > np.mean(raw["ece"]))
        lines.append(line)
    if numbers:
        counts = {titles[key]: str(count) for key, count in worse.items()}
        lines.append({"Row": WORSE} | counts | {titles["raw"]: ABSENT})
    title = "What needs no real image"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(WITHOUT_IMAGES_NOTES))


def _titles(results: Results) -> dict[str, str]:
    """The columns, by method."""
    common = results.titles()
    titles = {key: common[key] for key in ("raw", "mts", "fixed")}
    return titles | WITHOUT_IMAGES | {"shipped": "Shipped T", "oracle": common["oracle"]}


def _methods(results: Results, row: str, result: dict) -> dict[str, dict[str, Any] | None]:
    """The numbers of every column: None without a result, absent where the method does not exist."""
    methods: dict[str, dict[str, Any] | None] = {key: results.method(row, key) for key in ("mts", "fixed")}
    if not result:
        return methods | dict.fromkeys(("raw", *WITHOUT_IMAGES, "shipped", "oracle"))
    entries = result["entries"]
    tried = {key: _entry(entries, key) for key in ("raw", "shipped", "oracle", *WITHOUT_IMAGES)}
    tried["ensemble"] = _entry(entries, "raw", on="ensemble")
    return methods | {key: entry for key, entry in tried.items() if entry}


def _ece_cell(method: dict[str, Any] | None) -> str:
    if method is None:
        return MISSING
    if not method:
        return ABSENT
    return f"{_percent(method['ece'])}{_mark(method)}"


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
                mean, std = mean_std(entry["ece"])
                ece = {"ece_mean_percent": 100 * mean, "ece_std_percent": 100 * std}
                points.append(point | ece | {"repeats": len(entry["ece"])})
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
