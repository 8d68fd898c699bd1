"""What needs no real image: a table with a line for each row."""

from typing import Any

import numpy as np
import pandas as pd

from stages.reporting.cells import ABSENT, MISSING, REPEATS, Results, Table, bound_mark, means, percent
from stages.reporting.reach_entries import NUMBERS, entry_of

__all__ = ["without_images_table"]

WITHOUT_IMAGES = {
    "folds": "K folds",
    "augmented": "Augmented",
    "ensemble": "Ensemble, raw",
    "agreement": "Agreement",
}
NOTES = [
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
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(NOTES))


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
    tried = {key: entry_of(entries, key) for key in ("raw", "shipped", "oracle", *WITHOUT_IMAGES)}
    tried["ensemble"] = entry_of(entries, "raw", on="ensemble")
    return methods | {key: entry for key, entry in tried.items() if entry}


def _ece_cell(method: dict[str, Any] | None) -> str:
    if method is None:
        return MISSING
    if not method:
        return ABSENT
    return f"{percent(method['ece'])}{bound_mark(method)}"
