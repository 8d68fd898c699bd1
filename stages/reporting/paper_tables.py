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
    bound_mark,
    lr_and_step_size,
    means,
    pair,
    percent,
    step_size,
)
from stages.reporting.counts import COUNTED_APART, OF_FEWER, count, counted_groups, worse_than_raw
from stages.reporting.families import Family, families, without_family
from stages.reporting.marks import plain_name
from stages.settings.project import read_yaml
from stages.settings.tables import TableKeys

__all__ = [
    "COMPARABLE",
    "PAPER",
    "PAPER_TABLES",
    "best_of_others",
    "best_other",
    "in_paper",
    "printed_for",
    "refer_to_choices",
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
# The methods that train networks of their own.
TRAINING = ("raw", "mixup", "label_smoothing", "focal", "focal_detached")
COMPARABLE = ("published", "reduced")  # budgets of rows that the paper's numbers stand beside
CHOICES = (
    "The paper leaves open whether focal loss is differentiated through its weight too, mixup's alpha and"
    " whether images are mixed before or after the augmentation, and the step size. The table `choices` shows"
    " what each of these does."
)
STEP_SIZE = (
    "Step size of the networks: `learned` with the images, the one that the learned one started from"
    " (`teacher`), or a number that the row sets."
)

DISTANCE = "Shipped - oracle"
SHIPPED = (
    "Shipped T comes with the set: one temperature, fitted on other networks and on real training images that"
    " these have not seen (of the full data on images held out of their training). No test image is used."
)

Printed = list[float] | float | None  # [mean, std] or a mean, in percent, as in paper.yaml


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
    names = [name for name, row in results.rows.items() if row.mdt == 0 and _has_several(row)]
    several = results.of(names)
    title = "Table 1: ECE of networks trained on distilled data"
    return _ece_table(title, several, PAPER["table1"], several.columns())


def table2(results: Results) -> Table:
    """ECE with masked distillation training (MDT), against the best of the other methods without it."""
    columns = {
        "best_of_others": Column("Best of others", _best_of_others_of_plain),
        "mdt": Column("MDT", _of("mdt", "raw")),
        "mts": Column("MTS", _of("plain", "mts")),
        "mdt_mts": Column("MDT+MTS", _of("mdt", "mts")),
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
        "mdt_ds": Column("MDT_ds", _of("mdt_ds", "raw")),
        "mts": Column("MTS", _of("plain", "mts")),
        "mdt_ds_mts": Column("MDT_ds+MTS", _of("mdt_ds", "mts")),
    }
    title = "Table 3: ECE with MDT at sampled ratios"
    sampled = [family for family in families(results.rows) if family.mdt_ds]
    layout = Layout(title, "ece", columns, PAPER["table3"], [_ratio_note(results, sampled)])
    return _family_table(layout, results, sampled)


def table4(results: Results) -> Table:
    """Accuracy of the methods that change the training; MTS changes none."""
    columns = {
        key: Column(title, _of("plain", key)) for key, title in results.columns().items() if key in TRAINING
    }
    columns["mdt"] = Column("MDT", _of("mdt", "raw"))
    note = "MTS leaves the accuracy at Raw's."
    layout = Layout("Table 4: accuracy by method", "accuracy", columns, PAPER["table4"], [note])
    return _family_table(layout, results, _families_of_several(results))


def table5(results: Results) -> Table:
    """ECE at one image per class, where TS does not exist."""
    single = results.of([name for name, row in results.rows.items() if row.mdt == 0 and row.ipc == 1])
    return _ece_table("Table 5: ECE at one image per class", single, PAPER["table5"], single.columns())


def table6(results: Results) -> Table:
    """What it costs in accuracy that TS holds a share of the distilled images out of the training."""
    columns = {
        "all_data": Column("All images (MTS)", _of("plain", "raw")),
        "ts": Column("Without TS's share", _of("plain", "ts")),
        "mdt": Column("MDT", _of("mdt", "raw")),
    }
    title = "Table 6: accuracy without the images that TS holds out"
    layout = Layout(title, "accuracy", columns, PAPER["table6"], [])
    return _family_table(layout, results, _families_of_several(results))


def table7(results: Results) -> Table:
    """ECE of every method on networks trained on the full data."""
    full = results.of([name for name, row in results.rows.items() if row.method == "full"])
    title = "Table 7: ECE of networks trained on the full data"
    table = _ece_table(title, full, PAPER["table7"], full.columns(held_out=True))
    note = (
        "MTS is fitted on masked images that its networks were trained on, as for distilled sets; MTS, held"
        " out, on masked images that were held out of training, which are the images and networks of TS. The"
        " paper (Appendix B.3) says that with much training data the mask ratio can be 0, which makes MTS TS."
    )
    return table._replace(notes=[*table.notes, note])


PAPER_TABLES: dict[str, Callable[[Results], Table]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
}


def in_paper(rows: dict[str, TableKeys]) -> list[str]:
    """The rows that stand beside the paper's numbers in Table 1, 5 or 7."""
    papers = [PAPER[name] for name in ("table1", "table5", "table7")]
    names = []
    for name, row in rows.items():
        if row.mdt == 0 and any(printed_for(row, paper) for paper in papers):
            names.append(name)
    return names


def refer_to_choices(tables: dict[str, Table], met: dict[str, str]) -> None:
    """Add notes to Tables 1 and 5 that point to the table `choices`, where there is one.

    Args:
        met: by row, which choices meet the paper's numbers.
    """
    if "choices" not in tables:
        return
    for name in {"table1", "table5"} & tables.keys():
        rows = [plain_name(cell) for cell in tables[name].text["Row"]]
        tables[name].notes.append(CHOICES)
        tables[name].notes.extend(sentence for row, sentence in met.items() if row in rows)


def _families_of_several(results: Results) -> list[Family]:
    return [family for family in families(results.rows) if _has_several(results.rows[family.plain])]


def _has_several(row: TableKeys) -> bool:
    """Whether a row has several images of each class; the full data have no such number."""
    return row.ipc is not None and row.ipc > 1


def _of(kind: str, method: str) -> Callable[[Results, Family], dict[str, Any] | None]:
    """A method of the row of a family that is of this kind: "plain", "mdt" or "mdt_ds"."""
    return lambda results, family: results.method(getattr(family, kind), method)


def _best_of_others_of_plain(results: Results, family: Family) -> dict[str, Any] | None:
    return best_of_others(results, family.plain)


def best_of_others(results: Results, row: str) -> dict[str, Any] | None:
    """The result of `best_other` with its name; None without results."""
    if row not in results.evaluated:
        return None
    best = best_other(results, row)
    return results.evaluated[row]["methods"][best] | {"name": METHODS[best]}


def best_other(results: Results, row: str) -> str:
    """The method other than MTS that is best on a row by ECE on the test images, as the paper takes it."""
    methods = results.evaluated[row]["methods"]
    present = [method for method in OTHERS if method in methods]
    return min(present, key=lambda method: np.mean(methods[method]["ece"]))


def _ratio_note(results: Results, shown: list[Family]) -> str:
    """Which mask ratio MTS has after MDT_ds, by the results."""
    rows_of_ratio: dict[float, list[str]] = {}
    for family in shown:
        if family.mdt_ds in results.evaluated:
            ratio = results.evaluated[family.mdt_ds]["mask_ratio"]
            rows_of_ratio.setdefault(ratio, []).append(f"`{family.mdt_ds}`")
    parts = [f"{ratio:g} on {', '.join(names)}" for ratio, names in rows_of_ratio.items()]
    ours = f" Here it is {'; '.join(parts)}." if parts else ""
    return f"The paper fixes the mask ratio of MTS in MDT_ds+MTS at 0.1.{ours}"


def _ece_table(title: str, results: Results, paper: dict[str, Any], columns: dict[str, str]) -> Table:
    """ECE in percent by method, with the paper's number below ours where it has one.

    Args:
        columns: the names of the methods that are shown.
    """
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    of_paper = []
    for name, row in results.rows.items():
        printed = printed_for(row, paper)
        if printed:
            of_paper.append(name)
        lines += _ece_lines(results, name, printed, columns)
        numbers += _ece_numbers(results, name, printed)
    for group, rows in counted_groups(results, of_paper).items():
        lines.append(_worse_line(group, rows, columns))
    notes = _ece_notes(results, paper) + _paper_notes(results.rows.values(), paper)
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _ece_lines(
    results: Results, row: str, printed: dict[str, Printed], columns: dict[str, str]
) -> list[dict[str, str]]:
    accuracy = _cell(results, row, "raw", "accuracy")
    ours = {"Row": row, "Step size": lr_and_step_size(results, row), "Accuracy": accuracy}
    theirs = {"Row": "(the paper)", "Step size": "", "Accuracy": ""}
    for key, title in columns.items():
        ours[title] = _cell(results, row, key, "ece")
        theirs[title] = pair(printed.get(key))
    if "shipped" in columns:
        ours[DISTANCE] = _distance(results, row)
        theirs[DISTANCE] = ""
    return [ours, theirs] if printed else [ours]


def _distance(results: Results, row: str) -> str:
    """By how many points the ECE at the shipped temperature is above the oracle's."""
    shipped = results.method(row, "shipped")
    oracle = results.method(row, "oracle")
    if shipped is None or oracle is None:
        return MISSING
    if not shipped or not oracle:
        return ABSENT
    return f"{100 * (np.mean(shipped['ece']) - np.mean(oracle['ece'])):+.2f}"


def _ece_numbers(results: Results, row: str, printed: dict[str, Printed]) -> list[dict[str, Any]]:
    keys = results.rows[row]
    about = {"budget": keys.budget, "lr": keys.lr}
    lines = []
    for key in METHODS:
        method = results.method(row, key)
        if method:
            line = {"row": row, "method": key, "repeats": len(method["ece"])}
            line |= means(method, (*SCORES, "temperature"))
            line["bound_hits"] = sum(method["bound_hit"])
            line |= _paper_numbers(printed.get(key))
            line |= about | {"step_size": results.evaluated[row].get("step_size")}
            lines.append(line)
    return lines


def _worse_line(group: str, results: Results, columns: dict[str, str]) -> dict[str, str]:
    """How many rows of a group each method makes worse than Raw."""
    line = {"Row": f"# worse than Raw, {group}", "Step size": "", "Accuracy": ""}
    for key, title in columns.items():
        worse = worse_than_raw(results, key)
        line[title] = ABSENT if key == "raw" else count(worse, len(results.rows))
    if "shipped" in columns:
        line[DISTANCE] = ""
    return line


def _ece_notes(results: Results, paper: dict[str, Any]) -> list[str]:
    notes = [
        f"ECE in percent, {REPEATS}."
        " Accuracy is that of Raw, and so of every temperature on the same networks.",
        STEP_SIZE,
        'TS and MTS stop early, as in the paper, which has the step size 0.02 and "only one step"; the 50'
        " iterations are those of its first author's public fork, which has the step size 0.01. What other"
        " numbers give is in `reports/tables/iterations.md`. `conv.` is the exact minimiser on the same"
        " images.",
        f"T = {results.start:g} is where the early-stopped fits start: no fit at all. Oracle T is fitted on"
        " the test labels: the best that one temperature can do in NLL, not a result.",
        "`# worse than Raw` counts the rows that a method makes worse, as far as the 95 % interval of the"
        " difference over networks and test images tells (table `intervals`); the paper's"
        f' "# over-calibration" counts by the mean. {COUNTED_APART} {OF_FEWER}',
        "† a temperature ended on a bound. `-`: does not exist for the row (TS cannot hold out images at one"
        " image a class). `missing`: no result yet.",
    ]
    if results.has("shipped"):
        notes.insert(4, SHIPPED)
    shown = any(printed_for(row, paper) for row in results.rows.values())
    if shown and "over_calibration" in paper:
        counts = []
        for key, number in zip(paper["columns"], paper["over_calibration"]):
            if number is not None:
                counts.append(f"{METHODS[key]} {number}")
        notes.append(f"The paper's counts over its {len(paper['rows'])} rows: {', '.join(counts)}.")
    return notes


def _family_table(layout: Layout, results: Results, shown: list[Family]) -> Table:
    """One number of each family in every column, with the paper's below ours where it has one."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for family in shown:
        printed = printed_for(results.rows[family.plain], layout.paper)
        lines += _family_lines(layout, results, family, printed)
        numbers += _family_numbers(layout, results, family, printed)
    titles = [column.title for column in layout.columns.values()]
    text = pd.DataFrame(lines, columns=["Row", "Step size", *titles])
    rows = [results.rows[family.plain] for family in shown]
    notes = [
        f"{SCORES[layout.number]} in percent, {REPEATS}.",
        *layout.notes,
        STEP_SIZE,
        "`-`: the suite has no such row, or the method does not exist for it. `missing`: no result yet.",
        *_family_notes(results),
        *_paper_notes(rows, layout.paper),
    ]
    return Table(layout.title, text, pd.DataFrame(numbers), notes)


def _family_notes(results: Results) -> list[str]:
    """Which rows with MDT no plain row is shown with."""
    names = ", ".join(f"`{name}`" for name in without_family(results.rows))
    if not names:
        return []
    return [f"Not shown, as no plain row, or more than one, differs from it in the mask alone: {names}."]


def _family_lines(
    layout: Layout, results: Results, family: Family, printed: dict[str, Printed]
) -> list[dict[str, str]]:
    ours = {"Row": family.plain, "Step size": step_size(results.rows[family.plain])}
    theirs = {"Row": "(the paper)", "Step size": ""}
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
    mark = bound_mark(method) if number == "ece" else ""
    return percent(method[number]) + mark


def printed_for(row: TableKeys, paper: dict[str, Any]) -> dict[str, Printed]:
    """The paper's numbers by column for a row; empty where there are none that it can be compared with."""
    if row.budget not in COMPARABLE:
        return {}
    for entry in paper["rows"]:
        if (entry["dataset"], entry["backbone"], entry["ipc"]) == (row.suite, row.method, row.ipc):
            return dict(zip(paper["columns"], entry["values"]))
    return {}


def _paper_numbers(printed: Printed) -> dict[str, float | None]:
    mean, std = printed if isinstance(printed, list) else (printed, None)
    return {"paper_percent": mean, "paper_std_percent": std}


def _paper_notes(rows: Iterable[TableKeys], paper: dict[str, Any]) -> list[str]:
    """The contradictions in the paper that touch the numbers shown."""
    shown = {row.suite for row in rows if printed_for(row, paper)}
    return [note for suite, note in paper.get("notes", {}).items() if suite in shown]
