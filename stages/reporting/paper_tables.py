"""Tables 1 to 7 of the paper, with its own numbers (paper.yaml) below ours where it has some."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.reporting.cells import (
    ABSENT,
    METHODS,
    MISSING,
    REPEATS,
    SCORES,
    Results,
    Table,
    means,
    pair,
    percent,
    worse_than_raw,
)
from stages.settings.project import read_yaml
from stages.settings.tables import TableKeys

__all__ = [
    "PAPER",
    "PAPER_TABLES",
    "Family",
    "families",
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "table7",
]

PAPER = read_yaml(Path(__file__).parent / "paper.yaml")
OTHERS = (
    "raw",
    "ts",
    "mixup",
    "label_smoothing",
    "focal",
)  # the methods that the paper compares its own with
TRAINING = ("raw", "mixup", "label_smoothing", "focal")  # the methods that train networks of their own

Printed = list[float] | float | None  # [mean, std] or a mean, in percent, as in paper.yaml


class Family(NamedTuple):
    """Rows that differ in nothing but the mask of their distillation."""

    plain: str  # without masks
    mdt: str | None  # at one mask ratio
    mdt_ds: str | None  # at a ratio that is drawn anew for every iteration


class Column(NamedTuple):
    """A column of a table of families."""

    title: str
    find: Callable[[Results, Family], dict[str, Any] | None]  # as `Results.method`


class Layout(NamedTuple):
    """A table of one number for each family and column."""

    title: str
    number: str  # "ece" or "accuracy"
    columns: dict[str, Column]
    paper: dict[str, Any]  # the paper's table
    notes: list[str]


def table1(results: Results) -> Table:
    """ECE of every method on every set with several images per class, distilled or real."""
    several = {}
    for name, row in results.rows.items():
        if row.mdt == 0 and _has_several(row):
            several[name] = row
    title = "Table 1: ECE of networks trained on distilled data"
    return _ece_table(title, results._replace(rows=several), PAPER["table1"])


def table2(results: Results) -> Table:
    """ECE with masked distillation training (MDT), against the best of the other methods without it."""
    columns = {
        "best_of_others": Column("Best of others", _best_of_others),
        "mdt": Column("MDT", _mdt("raw")),
        "mts": Column("MTS", _plain("mts")),
        "mdt_mts": Column("MDT+MTS", _mdt("mts")),
    }
    note = (
        "Best of others: of Raw, TS, mixup, label smoothing and focal loss the one with the lowest ECE"
        " on the test images, as in the paper; named in brackets."
    )
    title = "Table 2: ECE with masked distillation training"
    layout = Layout(title, "ece", columns, PAPER["table2"], [note])
    masked = [family for family in families(results.rows) if family.mdt]
    return _family_table(layout, results, masked)


def table3(results: Results) -> Table:
    """ECE where MDT draws its mask ratio anew for every iteration (MDT_ds)."""
    columns = {
        "mdt_ds": Column("MDT_ds", _mdt_ds("raw")),
        "mts": Column("MTS", _plain("mts")),
        "mdt_ds_mts": Column("MDT_ds+MTS", _mdt_ds("mts")),
    }
    note = "The paper fixes the ratio of MTS at 0.1 on these sets; here it is the row's own, `mask_ratio`."
    title = "Table 3: ECE with MDT at sampled ratios"
    layout = Layout(title, "ece", columns, PAPER["table3"], [note])
    sampled = [family for family in families(results.rows) if family.mdt_ds]
    return _family_table(layout, results, sampled)


def table4(results: Results) -> Table:
    """Accuracy of the methods that change the training; MTS changes none."""
    columns = {key: Column(METHODS[key], _plain(key)) for key in TRAINING}
    columns["mdt"] = Column("MDT", _mdt("raw"))
    note = "MTS leaves the accuracy at Raw's."
    layout = Layout("Table 4: accuracy by method", "accuracy", columns, PAPER["table4"], [note])
    return _family_table(layout, results, _families_of_several(results))


def table5(results: Results) -> Table:
    """ECE at one image per class, where TS does not exist."""
    single = {}
    for name, row in results.rows.items():
        if row.mdt == 0 and row.ipc == 1:
            single[name] = row
    return _ece_table("Table 5: ECE at one image per class", results._replace(rows=single), PAPER["table5"])


def table6(results: Results) -> Table:
    """What it costs in accuracy that TS holds a share of the distilled images out of the training."""
    columns = {
        "all_data": Column("All images (MTS)", _plain("raw")),
        "ts": Column("Without TS's share", _plain("ts")),
        "mdt": Column("MDT", _mdt("raw")),
    }
    title = "Table 6: accuracy without the images that TS holds out"
    layout = Layout(title, "accuracy", columns, PAPER["table6"], [])
    return _family_table(layout, results, _families_of_several(results))


def table7(results: Results) -> Table:
    """ECE of every method on networks trained on the full data."""
    full = {name: row for name, row in results.rows.items() if row.backbone == "full"}
    title = "Table 7: ECE of networks trained on the full data"
    return _ece_table(title, results._replace(rows=full), PAPER["table7"])


PAPER_TABLES: dict[str, Callable[[Results], Table]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
}


def families(rows: dict[str, TableKeys]) -> list[Family]:
    """A family for every plain row but those of the full data, in the order of the rows."""
    result = []
    for name, row in rows.items():
        if row.mdt != 0 or row.backbone == "full":
            continue
        mdt = None
        mdt_ds = None
        for other, keys in rows.items():
            if keys.model_copy(update={"mdt": 0}) != row:
                continue
            if isinstance(keys.mdt, list):
                mdt_ds = mdt_ds or other
            elif keys.mdt > 0:
                mdt = mdt or other
        result.append(Family(name, mdt, mdt_ds))
    return result


def _families_of_several(results: Results) -> list[Family]:
    return [family for family in families(results.rows) if _has_several(results.rows[family.plain])]


def _has_several(row: TableKeys) -> bool:
    """Whether a row has several images of each class; the full data have no such number."""
    return row.ipc is not None and row.ipc > 1


def _plain(method: str) -> Callable[[Results, Family], dict[str, Any] | None]:
    return lambda results, family: results.method(family.plain, method)


def _mdt(method: str) -> Callable[[Results, Family], dict[str, Any] | None]:
    return lambda results, family: results.method(family.mdt, method)


def _mdt_ds(method: str) -> Callable[[Results, Family], dict[str, Any] | None]:
    return lambda results, family: results.method(family.mdt_ds, method)


def _best_of_others(results: Results, family: Family) -> dict[str, Any] | None:
    """The best by ECE on the test images, as the paper takes it."""
    if family.plain not in results.evaluated:
        return None
    methods = results.evaluated[family.plain]["methods"]
    present = [key for key in OTHERS if key in methods]
    best = min(present, key=lambda key: np.mean(methods[key]["ece"]))
    return methods[best] | {"name": METHODS[best]}


def _ece_table(title: str, results: Results, paper: dict[str, Any]) -> Table:
    """ECE in percent of every method on every row, with the paper's number below ours where it has one."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for name, row in results.rows.items():
        printed = _printed(row, paper)
        lines += _ece_lines(results, name, printed)
        numbers += _ece_numbers(results, name, printed)
    lines.append(_worse_line(results))
    notes = _ece_notes(results, paper) + _paper_notes(results.rows.values(), paper)
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _ece_lines(results: Results, row: str, printed: dict[str, Printed]) -> list[dict[str, str]]:
    ours = {"Row": row, "Accuracy": _cell(results, row, "raw", "accuracy")}
    theirs = {"Row": "(the paper)", "Accuracy": ""}
    for key, title in results.titles().items():
        ours[title] = _cell(results, row, key, "ece")
        theirs[title] = pair(printed.get(key))
    return [ours, theirs] if printed else [ours]


def _ece_numbers(results: Results, row: str, printed: dict[str, Printed]) -> list[dict[str, Any]]:
    lines = []
    for key in METHODS:
        method = results.method(row, key)
        if method:
            line = {"row": row, "method": key, "repeats": len(method["ece"])}
            line |= means(method, (*SCORES, "temperature"))
            line["bound_hits"] = sum(method["bound_hit"])
            line |= _paper_numbers(printed.get(key))
            lines.append(line)
    return lines


def _worse_line(results: Results) -> dict[str, str]:
    line = {"Row": "# worse than Raw", "Accuracy": ""}
    for key, title in results.titles().items():
        line[title] = ABSENT if key == "raw" else str(worse_than_raw(results, key))
    return line


def _ece_notes(results: Results, paper: dict[str, Any]) -> list[str]:
    notes = [
        f"ECE in percent, {REPEATS}."
        " Accuracy is that of Raw, and so of every temperature on the same networks.",
        "TS and MTS stop early, as in the paper; `conv.` is the exact minimiser on the same images.",
        f"T = {results.start:g} is where the early-stopped fits start: no fit at all. Oracle T is fitted on"
        " the test labels: the best that one temperature can do in NLL, not a result.",
        '`# worse than Raw` counts the rows that a method makes worse: the paper\'s "# over-calibration".',
        "† a temperature ended on a bound. `-`: does not exist for the row (TS cannot hold out images at one"
        " image a class). `missing`: no result yet.",
    ]
    shown = any(_printed(row, paper) for row in results.rows.values())
    if shown and "over_calibration" in paper:
        counts = []
        for key, count in zip(paper["columns"], paper["over_calibration"]):
            if count is not None:
                counts.append(f"{METHODS[key]} {count}")
        notes.append(f"The paper's counts over its {len(paper['rows'])} rows: {', '.join(counts)}.")
    return notes


def _family_table(layout: Layout, results: Results, shown: list[Family]) -> Table:
    """One number of each family in every column, with the paper's below ours where it has one."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for family in shown:
        printed = _printed(results.rows[family.plain], layout.paper)
        lines += _family_lines(layout, results, family, printed)
        numbers += _family_numbers(layout, results, family, printed)
    titles = [column.title for column in layout.columns.values()]
    text = pd.DataFrame(lines, columns=["Row", *titles])
    rows = [results.rows[family.plain] for family in shown]
    notes = [
        f"{SCORES[layout.number]} in percent, {REPEATS}.",
        *layout.notes,
        "`-`: the suite has no such row, or the method does not exist for it. `missing`: no result yet.",
        *_paper_notes(rows, layout.paper),
    ]
    return Table(layout.title, text, pd.DataFrame(numbers), notes)


def _family_lines(
    layout: Layout, results: Results, family: Family, printed: dict[str, Printed]
) -> list[dict[str, str]]:
    ours = {"Row": family.plain}
    theirs = {"Row": "(the paper)"}
    for key, column in layout.columns.items():
        ours[column.title] = _family_cell(column.find(results, family), layout.number)
        theirs[column.title] = pair(printed.get(key))
    return [ours, theirs] if printed else [ours]


def _family_numbers(
    layout: Layout, results: Results, family: Family, printed: dict[str, Printed]
) -> list[dict[str, Any]]:
    lines = []
    number = layout.number
    for key, column in layout.columns.items():
        method = column.find(results, family)
        if method:
            line = {"row": family.plain, "column": key, "number": number, "repeats": len(method[number])}
            line |= means(method, [number])
            line |= _paper_numbers(printed.get(key))
            lines.append(line)
    return lines


def _family_cell(method: dict[str, Any] | None, number: str) -> str:
    if method is None:
        return MISSING
    if not method:
        return ABSENT
    name = f" ({method['name']})" if "name" in method else ""
    return percent(method[number]) + name


def _cell(results: Results, row: str, key: str, number: str) -> str:
    method = results.method(row, key)
    if method is None:
        return MISSING
    if not method:
        return ABSENT
    mark = "†" if number == "ece" and any(method["bound_hit"]) else ""
    return percent(method[number]) + mark


def _printed(row: TableKeys, paper: dict[str, Any]) -> dict[str, Printed]:
    """The paper's numbers by column for a row; empty where it has none."""
    for entry in paper["rows"]:
        if (entry["dataset"], entry["backbone"], entry["ipc"]) == (row.suite, row.backbone, row.ipc):
            return dict(zip(paper["columns"], entry["values"]))
    return {}


def _paper_numbers(printed: Printed) -> dict[str, float | None]:
    mean, std = printed if isinstance(printed, list) else (printed, None)
    return {"paper_percent": mean, "paper_std_percent": std}


def _paper_notes(rows: Iterable[TableKeys], paper: dict[str, Any]) -> list[str]:
    """The contradictions in the paper that touch the numbers shown."""
    shown = {row.suite for row in rows if _printed(row, paper)}
    return [note for suite, note in paper.get("notes", {}).items() if suite in shown]
