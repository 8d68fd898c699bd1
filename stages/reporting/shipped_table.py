"""How far a shipped temperature goes: a table with a line for each row and choice."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from stages.reporting.cells import ABSENT, METHODS, MISSING, REPEATS, Table, means, percent, temperature_cell
from stages.reporting.reach_entries import NUMBERS, entry_of

__all__ = ["shipped_table"]

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
VARIED = ("networks", "images")  # the parts that are numbers
NOTES = [
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
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(NOTES))


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
    line = {"Row": row, "What": PARTS[entry["part"]], "Choice": _words(entry), "T": temperature_cell(entry)}
    line["Accuracy"] = percent(entry["accuracy"])
    line["ECE"] = percent(entry["ece"])
    for choice, title in BESIDE.items():
        other = entry_of(entries, choice, on=entry["on"])
        line[title] = percent([np.mean(other["ece"])]) if other else ABSENT
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
