"""The paper's 136 numbers, one a line, with ours beside them or what would make one."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.reporting.cells import (
    METHODS,
    REPEATS,
    SCORES,
    Results,
    Table,
    bound_mark,
    lr_and_step_size,
    mean_std,
    pair,
    percent,
)
from stages.reporting.paper_tables import COMPARABLE, PAPER, best_of_others
from stages.settings.tables import TableKeys

__all__ = ["SUITES", "Cell", "Hours", "cells_of_paper", "hours_of_grid", "paper_table", "rows_beside"]

ACCURACY = ("table4", "table6")  # all other tables have ECE
# What a column of the paper is taken from, where it is not the method of its name on a row without masks.
SOURCES = {
    "mdt": ("mdt", "raw"),
    "mdt_mts": ("mdt", "mts"),
    "mdt_ds": ("mdt_ds", "raw"),
    "mdt_ds_mts": ("mdt_ds", "mts"),
    "all_data": ("plain", "raw"),
}
TITLES = METHODS | {
    "best_of_others": "Best of others",
    "mdt": "MDT",
    "mdt_mts": "MDT+MTS",
    "mdt_ds": "MDT_ds",
    "mdt_ds_mts": "MDT_ds+MTS",
    "all_data": "All images (MTS)",
}
NOTES = [
    f"In percent, {REPEATS}. The paper's numbers are those of `stages/reporting/paper.yaml`, in its order.",
    "Ours are those of the other tables. Where a row at the published budget has the number, reduced rows are"
    " left out. Where several rows have it, each has a line, and the number of the paper counts once.",
    "Difference: ours minus the paper's, in points. In deviations: divided by the root of the sum of both"
    " squared standard deviations; left out where the paper has none (Table 7), or ours is of one network.",
    "MTS stops after 50 iterations where the paper has no number; the table `iterations` has others.",
    "The command makes the row in pieces of nine minutes; with `--until-done`, in one call.",
    "Hours on a card: of the row and of the experts that it reads, on one H100, by counted operations (from"
    " products alone to eager code); no hour was measured. `docs/grid.md` says how.",
    "† a temperature ended on a bound.",
]


class Cell(NamedTuple):
    """A number of the paper."""

    table: str  # "table1", ..., as in paper.yaml
    suite: str
    backbone: str
    ipc: int | None
    column: str
    mean: float  # in percent, as is the deviation
    std: float | None

    @property
    def number(self) -> str:
        """What it is a number of: a key of `SCORES`."""
        return "accuracy" if self.table in ACCURACY else "ece"


class Hours(NamedTuple):
    """How long a row takes on one card, with the experts that it reads: counted, not measured."""

    least: float  # if the card did the products alone
    most: float  # as eager code


def hours_of_grid(grid: dict[str, Any]) -> dict[str, Hours]:
    """The hours of each row, from what `python -m benchmarks.grid` has written; {} from nothing."""
    buffers = {f"buffer/{buffer['name']}": buffer for buffer in grid.get("buffers", [])}
    hours = {}
    for row in grid.get("rows", []):
        parts = [row, buffers.get(row["reads"])]
        least = sum(part["least_hours"] for part in parts if part)
        most = sum(part["most_hours"] for part in parts if part)
        hours[row["name"]] = Hours(least, most)
    return hours


class Line(NamedTuple):
    """A number of the paper beside that of a row."""

    cell: Cell
    row: str
    method: dict[str, Any]  # the row's scores


def cells_of_paper() -> list[Cell]:
    """Every number of paper.yaml, in its order."""
    cells = []
    for name, table in PAPER.items():
        for entry in table["rows"]:
            for column, value in zip(table["columns"], entry["values"], strict=True):
                mean, std = value if isinstance(value, list) else (value, None)
                cells.append(Cell(name, entry["dataset"], entry["backbone"], entry["ipc"], column, mean, std))
    return cells


# Those that the paper has numbers for, in its order.
SUITES = tuple(dict.fromkeys(cell.suite for cell in cells_of_paper()))


def paper_table(results: Results, rows: dict[str, TableKeys], hours: dict[str, Hours]) -> Table:
    """One line for each number of the paper and each of our rows that has it.

    Args:
        results: of the rows of the other tables, without quick rows.
        rows: the rows of all suites, which also have those that have not run.
        hours: of rows on one card, where they are known.
    """
    text = []
    numbers = []
    for cell in cells_of_paper():
        beside = rows_beside(cell, results)
        for row in beside:
            line = Line(cell, row, _method(cell, results, row))
            text.append(_text(line, results))
            numbers.append(_numbers(line, results))
        if not beside:
            to_run = _row_to_run(cell, results, rows)
            own = hours.get(to_run or "")
            text.append(_empty_text(cell, results, rows) | {"Hours on a card": _range(own)})
            numbers.append(_numbers_of_paper(cell) | {"to_run": to_run} | _numbers_of_hours(own))
    notes = [*NOTES, *PAPER["table1"]["notes"].values()]
    title = f"The paper's numbers: {_count(results)}"
    return Table(title, pd.DataFrame(text), pd.DataFrame(numbers), notes)


def rows_beside(cell: Cell, results: Results) -> list[str]:
    """The rows with results that have the number: those at the published budget, or else the reduced ones."""
    rows = [row for row in _fitting(cell, results.rows) if _method(cell, results, row)]
    published = [row for row in rows if results.rows[row].budget == "published"]
    return published or rows


def _count(results: Results) -> str:
    """How many numbers of the paper have one of ours beside them, by budget."""
    cells = cells_of_paper()
    counts = dict.fromkeys(COMPARABLE, 0)
    for cell in cells:
        rows = rows_beside(cell, results)
        if rows:
            counts[str(results.rows[rows[0]].budget)] += 1
    with_ours = f"{sum(counts.values())} of {len(cells)} with a number of ours beside"
    return f"{with_ours}: {counts['published']} at the published budget, {counts['reduced']} reduced"


def _fitting(cell: Cell, rows: dict[str, TableKeys]) -> list[str]:
    """The rows that the paper's number can be compared with, whether they have results or not."""
    kind, _ = _source(cell)
    place = (cell.suite, cell.backbone, cell.ipc)
    fitting = []
    for name, row in rows.items():
        is_there = (row.suite, row.method, row.ipc) == place
        if is_there and row.budget in COMPARABLE and _kind(row) == kind:
            fitting.append(name)
    return fitting


def _source(cell: Cell) -> tuple[str, str]:
    """The kind of row and the method that a number is of."""
    return SOURCES.get(cell.column, ("plain", cell.column))


def _kind(row: TableKeys) -> str:
    """How the images are masked while they are distilled."""
    if isinstance(row.mdt, list):
        return "mdt_ds"
    return "mdt" if row.mdt > 0 else "plain"


def _method(cell: Cell, results: Results, row: str) -> dict[str, Any]:
    """The scores that a row has for a number of the paper; {} if there are none."""
    if cell.column == "best_of_others":
        return best_of_others(results, row) or {}
    _, method = _source(cell)
    return results.method(row, method) or {}


def _about(cell: Cell) -> dict[str, str]:
    """Where in the paper a number stands, and the number itself."""
    return {
        "In the paper": cell.table.replace("table", "Table "),
        "Data set": cell.suite,
        "Backbone": cell.backbone,
        "IPC": "" if cell.ipc is None else str(cell.ipc),
        "Number": SCORES[cell.number],
        "Method": TITLES[cell.column],
        "The paper": pair(cell.mean if cell.std is None else [cell.mean, cell.std]),
    }


def _text(line: Line, results: Results) -> dict[str, str]:
    """A line with a number of ours."""
    cell, row, method = line
    keys = results.rows[row]
    difference, deviations = _differences(line)
    mark = bound_mark(method) if cell.number == "ece" else ""
    name = f" ({method['name']})" if "name" in method else ""
    budget = f"{keys.budget}: {keys.budget_note}" if keys.budget_note else str(keys.budget)
    ours = {
        "Ours": percent(method[cell.number]) + mark + name,
        "Difference": f"{difference:+.2f}",
        "In deviations": "" if deviations is None else f"{deviations:+.1f}",
        "Row": row,
        "Step size": lr_and_step_size(results, row),
        "Repeats": str(len(method[cell.number])),
        "Budget": budget,
        "Empty because": "",
        "Hours on a card": "",
    }
    return _about(cell) | ours


def _empty_text(cell: Cell, results: Results, rows: dict[str, TableKeys]) -> dict[str, str]:
    """A line without a number of ours."""
    columns = ("Ours", "Difference", "In deviations", "Row", "Step size", "Repeats", "Budget")
    return _about(cell) | dict.fromkeys(columns, "") | {"Empty because": _reason(cell, results, rows)}


def _reason(cell: Cell, results: Results, rows: dict[str, TableKeys]) -> str:
    """Why there is no number of ours, with the command that would make one."""
    row = _row_to_run(cell, results, rows)
    if row is None:
        fitting = _fitting(cell, rows)
        return f"`{fitting[0]}` ran without this method" if fitting else "no suite has such a row"
    why = "not run"
    if rows[row].budget == "reduced":
        why += f", and reduced in the suite ({rows[row].budget_note})"
    return f"{why}: `python -m stages.tools.lent {row}`"


def _row_to_run(cell: Cell, results: Results, rows: dict[str, TableKeys]) -> str | None:
    """The first row without results that would have the number: a published one, or else a reduced one."""
    waiting = [row for row in _fitting(cell, rows) if row not in results.evaluated]
    published = [row for row in waiting if rows[row].budget == "published"]
    return next(iter(published or waiting), None)


def _range(hours: Hours | None) -> str:
    return f"{_two_digits(hours.least)} to {_two_digits(hours.most)}" if hours else ""


def _two_digits(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"


def _numbers_of_hours(hours: Hours | None) -> dict[str, float]:
    return {"least_hours": hours.least, "most_hours": hours.most} if hours else {}


def _differences(line: Line) -> tuple[float, float | None]:
    """Ours minus the paper's number: in points, and in combined standard deviations where both have one."""
    values = line.method[line.cell.number]
    mean, std = mean_std(values)
    difference = 100 * mean - line.cell.mean
    if line.cell.std is None or len(values) < 2:
        return difference, None
    combined = float(np.hypot(100 * std, line.cell.std))
    return difference, difference / combined if combined > 0 else None


def _numbers_of_paper(cell: Cell) -> dict[str, Any]:
    return {
        "table": cell.table,
        "dataset": cell.suite,
        "backbone": cell.backbone,
        "ipc": "" if cell.ipc is None else cell.ipc,
        "column": cell.column,
        "number": cell.number,
        "paper_percent": cell.mean,
        "paper_std_percent": cell.std,
    }


def _numbers(line: Line, results: Results) -> dict[str, Any]:
    cell, row, method = line
    mean, std = mean_std(method[cell.number])
    difference, deviations = _differences(line)
    keys = results.rows[row]
    return _numbers_of_paper(cell) | {
        "row": row,
        "budget": keys.budget,
        "lr": keys.lr,
        "step_size": results.evaluated[row].get("step_size"),
        "repeats": len(method[cell.number]),
        "percent": 100 * mean,
        "std_percent": 100 * std,
        "difference": difference,
        "combined_deviations": deviations,
    }
