"""Which rows a figure shows beside each other, and what its legend calls them."""

import re
from collections import Counter
from collections.abc import Container
from typing import Any

from stages.reporting.families import families
from stages.settings.tables import TableKeys

__all__ = [
    "REFERENCES",
    "by_suite",
    "compared_rows",
    "distilled_rows",
    "rows_by_ipc",
    "largest_sets",
    "legend_labels",
    "row_of_figure1",
    "with_and_without_mdt",
]

NAMES = {
    "full": "Full data",
    "mtt": "MTT",
    "rtp": "RTP",
    "dc": "DC",
    "dsa": "DSA",
    "random": "Random images",
    "kmeans": "k-means",
    "file": "Imported",
}
REFERENCES = ("full", "random", "kmeans")  # backbones that distil nothing
BUDGETS = {
    "published": "published budget",
    "reduced": "reduced budget",
    "quick": "quick",
    None: "no stated budget",
}
BEST_BUDGET_FIRST = ("published", "reduced", None, "quick")


def row_of_figure1(rows: dict[str, TableKeys], preferred: Container[str] = ()) -> str:
    """As in the paper the plain MTT row with the most images per class, of the best budget that there is.

    The first row stands in where MTT has made none, and a quick row only where all rows are quick.

    Args:
        preferred: names of rows that come first among equal ones.
    """
    kept = {name: row for name, row in rows.items() if row.budget != "quick"} or rows
    mtt = [name for name, row in kept.items() if row.method == "mtt" and row.mdt == 0]

    def place(name: str) -> tuple[int, int, bool]:
        return BEST_BUDGET_FIRST.index(rows[name].budget), -(rows[name].ipc or 0), name not in preferred

    return min(mtt, key=place) if mtt else next(iter(kept))


def rows_by_ipc(rows: dict[str, TableKeys]) -> dict[str, dict[int, str]]:
    """Groups of plain rows that differ in nothing but their images per class, by that number, for Figure 10.

    Where several rows of a group have the same number of images, those belong together whose names differ in
    that number alone. A group is called by the name of its first row without the number.
    """
    plain = [name for name, row in rows.items() if row.mdt == 0 and row.ipc and row.budget != "quick"]
    groups = []
    for group in _grouped(plain, {name: _all_but_ipc(rows[name]) for name in plain}):
        if _has_doubles(group, rows):
            groups += _grouped(group, {name: _without_ipc(name) for name in group})
        else:
            groups.append(group)
    by_ipc = {}
    for group in groups:
        if len(group) > 1 and not _has_doubles(group, rows):
            subject = _without_ipc(group[0])
            if subject in by_ipc:
                subject = group[0]
            by_ipc[subject] = {rows[name].ipc or 0: name for name in group}
    return by_ipc


def _all_but_ipc(row: TableKeys) -> tuple:
    """What a set is made from and by, at which budget, and how networks are trained on it.

    Published settings are known for some numbers of images alone. Rows at other numbers have no published
    budget, but no reduced one either, and belong to the published ones.
    """
    budget = (row.budget == "reduced", row.budget_note)
    training = (row.lr, row.epochs, row.augment, row.train)
    return row.dataset, row.method, budget, training


def _without_ipc(name: str) -> str:
    """A row's name without its images per class: "digits-mtt" of "digits-mtt-ipc10"."""
    return re.sub(r"-ipc\d+", "", name)


def _grouped(names: list[str], keys: dict[str, Any]) -> list[list[str]]:
    """The names with the same key together, in their order."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        groups.setdefault(keys[name], []).append(name)
    return list(groups.values())


def _has_doubles(names: list[str], rows: dict[str, TableKeys]) -> bool:
    """Whether several of the rows have the same number of images per class."""
    return len({rows[name].ipc for name in names}) < len(names)


def with_and_without_mdt(rows: dict[str, TableKeys], names: list[str]) -> list[str]:
    """The rows with MDT, those that differ from one of them in nothing but MDT, and their controls."""
    masked = [name for name in names if rows[name].mdt]
    controls = {(rows[name].dataset, "random", rows[name].ipc) for name in masked}
    plain = [family.plain for family in families(_of(rows, names)) if family.mdt or family.mdt_ds]
    kept = {*masked, *plain}
    return [name for name in names if name in kept or kind_of_images(rows[name]) in controls]


def _of(rows: dict[str, TableKeys], names: list[str]) -> dict[str, TableKeys]:
    """The rows of these names."""
    return {name: rows[name] for name in names}


def kind_of_images(row: TableKeys) -> tuple:
    """The data set of a row's images, what has made them, and how many they are."""
    return row.dataset, row.method, row.ipc


def largest_sets(rows: dict[str, TableKeys], names: list[str]) -> list[str]:
    """The rows with the most images per class, and those of the full data."""
    most = max((rows[name].ipc or 0 for name in names), default=0)
    return [name for name in names if rows[name].ipc in (None, most)]


def distilled_rows(rows: dict[str, TableKeys], names: list[str]) -> list[str]:
    """The first plain distilled set and the same with MDT; without a plain one, the first set with MDT."""
    distilled = [name for name in names if rows[name].method not in REFERENCES]
    plain = [name for name in distilled if rows[name].mdt == 0]
    masked = [name for name in distilled if rows[name].mdt]
    if not plain:
        return masked[:1]
    (family,) = [family for family in families(_of(rows, names)) if family.plain == plain[0]]
    with_mdt = family.mdt or family.mdt_ds
    return [plain[0], with_mdt] if with_mdt else [plain[0]]


def compared_rows(rows: dict[str, TableKeys], names: list[str]) -> dict[str, str]:
    """The rows that Figures 2(a), 4 and 7 compare, by group of networks; empty without a plain distilled set.

    They are the first plain distilled set, the full data of the same data set, and as many random images.
    """
    plain = [name for name in distilled_rows(rows, names) if rows[name].mdt == 0]
    if not plain:
        return {}
    first = rows[plain[0]]
    full = [name for name in names if kind_of_images(rows[name]) == (first.dataset, "full", None)]
    random = [name for name in names if kind_of_images(rows[name]) == (first.dataset, "random", first.ipc)]
    compared = {"DDNN": plain[0]}
    if full:
        compared = {"FDNN": full[0], **compared}
    if random:
        compared["Random images"] = random[0]
    return compared


def legend_labels(rows: dict[str, TableKeys]) -> dict[str, str]:
    """What a legend calls each of its rows, no two of them alike.

    The images per class are named where the rows have several numbers of them. Step size and budget tell
    rows apart that would be called the same otherwise; where they do not, a row is called by its name.
    """
    labels = {name: _method_label(row) for name, row in rows.items()}
    numbers = {row.ipc for row in rows.values() if row.ipc is not None}
    if len(numbers) > 1:
        for name, row in rows.items():
            labels[name] += f", {row.ipc} per class" if row.ipc is not None else ""
    labels = _told_apart(labels, {name: _step_size(row) for name, row in rows.items()})
    labels = _told_apart(labels, {name: BUDGETS[row.budget] for name, row in rows.items()})
    uses = Counter(labels.values())
    return {name: label if uses[label] == 1 else name for name, label in labels.items()}


def _method_label(row: TableKeys) -> str:
    label = NAMES.get(row.method, row.method)
    if isinstance(row.mdt, list):
        return f"{label} with MDT_ds"
    return f"{label} with MDT" if row.mdt else label


def _step_size(row: TableKeys) -> str:
    if row.lr == "learned":
        return "learned step size"
    if row.lr == "teacher":
        return "teacher's step size"
    return f"step size {row.lr:g}"


def _told_apart(labels: dict[str, str], words: dict[str, str]) -> dict[str, str]:
    """The labels; a label that rows with different words share is followed by the words of its row."""
    apart = {}
    for name, label in labels.items():
        alike = {words[other] for other in labels if labels[other] == label}
        apart[name] = f"{label}, {words[name]}" if len(alike) > 1 else label
    return apart


def by_suite(rows: dict[str, TableKeys], results: Container[str]) -> dict[str, dict[str, TableKeys]]:
    """The rows that have results, by suite."""
    suites: dict[str, dict[str, TableKeys]] = {}
    for name, keys in rows.items():
        if name in results:
            suites.setdefault(keys.suite, {})[name] = keys
    return suites
