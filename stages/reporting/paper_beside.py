"""A table of the paper as it was printed, with our numbers and the differences in lines below its own."""

from html import escape
from typing import Any

import pandas as pd

from stages.reporting.cells import pair
from stages.reporting.elements import folded, link, scrolling, tag
from stages.reporting.page_tables import long_text, short_number
from stages.reporting.paper_cells import TITLES
from stages.reporting.paper_tables import PAPER

__all__ = ["papers_own"]


def papers_own(key: str, cells: pd.DataFrame | None) -> str:
    """The paper's table of that key, folded; "" where there is none.

    Args:
        cells: one line for each number of the paper and each row of ours that has it, as `paper_table`
            makes them.
    """
    if cells is None or key not in PAPER:
        return ""
    columns = PAPER[key]["columns"]
    names = ["Set", *(TITLES[column] for column in columns)]
    heads = [tag("th", escape(name), scope="col", class_="n" if i else "") for i, name in enumerate(names)]
    bodies = [_entry_lines(key, entry, cells) for entry in PAPER[key]["rows"]]
    title = f"The paper's {key.replace('table', 'Table ')}, with ours and the differences"
    return folded(title, scrolling(title, tag("thead", tag("tr", "".join(heads))), *bodies))


def _entry_lines(key: str, entry: dict[str, Any], cells: pd.DataFrame) -> str:
    """The paper's numbers of a set, and ours in a line for each row that has some of them."""
    columns = PAPER[key]["columns"]
    ipc = "" if entry["ipc"] is None else entry["ipc"]
    is_of_entry = (cells["table"] == key) & (cells["dataset"] == entry["dataset"])
    is_of_entry &= (cells["backbone"] == entry["backbone"]) & (cells["ipc"] == ipc)
    of_entry = cells[is_of_entry]
    images = f"{ipc} a class" if ipc else "all images"
    name = f"{entry['dataset']}, {entry['backbone']}, {images}"
    lines = [_line(escape(name), dict(zip(columns, map(pair, entry["values"]))), columns)]
    if "row" in of_entry:
        for row, numbers in of_entry.dropna(subset=["row"]).groupby("row", sort=False):
            lines += _our_lines(str(row), numbers, columns)
    if "to_run" in of_entry:
        for row in dict.fromkeys(of_entry["to_run"].dropna()):
            lines.append(_to_run_line(str(row), len(columns)))
    place = {"data_dataset": entry["dataset"], "data_backbone": entry["backbone"]}
    return tag("tbody", "".join(lines), **place, data_ipc=str(ipc or "all"))


def _our_lines(row: str, numbers: pd.DataFrame, columns: list[str]) -> list[str]:
    ours = {}
    differences = {}
    for number in numbers.to_dict("records"):
        ours[number["column"]] = pair([number["percent"], number["std_percent"]])
        differences[number["column"]] = f"{number['difference']:+.2f}"
    of_row = link(f"row-{row}", escape(row))
    return [_line(f"ours: {of_row}", ours, columns), _line("ours - the paper's", differences, columns)]


def _line(name: str, texts: dict[str, str], columns: list[str]) -> str:
    """A line of numbers by column.

    Args:
        name: HTML.
    """
    cells = [tag("th", name, scope="row")]
    for column in columns:
        text = texts.get(column, "")
        cells.append(tag("td", short_number(text), class_="n", title=long_text(text, "")))
    return tag("tr", "".join(cells))


def _to_run_line(row: str, columns: int) -> str:
    command = tag("code", escape(f"python -m stages.tools.lent {row}"))
    cells = tag("th", "not run", scope="row") + tag("td", command, colspan=str(columns))
    return tag("tr", cells, class_="aside")
