"""A table of the report as a table of the page: short numbers, the best in bold, lines that can be filtered.

Every line knows its data set, its backbone and its images per class, by which `page.js` filters; what stands
in a cell in short is said in full in its title.
"""

import re
from collections.abc import Container, Mapping
from html import escape
from typing import Any, NamedTuple

from stages.reporting.cells import ABSENT, LONG, MISSING, SCORES, Table, pair
from stages.reporting.elements import folded, inline, link, scrolling, section, tag
from stages.reporting.marks import plain_name
from stages.reporting.paper_cells import TITLES

__all__ = ["Facts", "Look", "line_place", "long_text", "short_number", "table_section"]

PAPERS = "(the paper)"  # the name of a line below the row that it is compared with
NUMBER = re.compile(r"[-+−]?(\d|nan|inf)")
EMPTY = ("", ABSENT, MISSING)  # cells that say that there is no number
# "12.34", "12.34 ± 0.56", "12.34 [11.22, 13.44]", with anything but a digit behind
CELL = re.compile(
    r"(?P<mean>[-+]?\d+\.\d\d)(?: ± (?P<std>\d+\.\d\d))?"
    r"(?: \[(?P<low>[-+]?\d+\.\d\d), (?P<high>[-+]?\d+\.\d\d)\])?(?P<rest>\D.*)?"
)
NUMBERS = re.compile(r"(?P<mean>[-+]?\d+\.\d+)(?: ± (?P<std>\d+\.\d+))?")  # of any number of decimals
# Columns whose numbers are no shares in percent, and keep their decimals.
PRECISE = ("T", "NLL", "Brier", "Step size", "Oracle ratio", "Start", "Choice", "Weights")
FIRST = ("Raw", "MTS", "Shipped T", "Oracle T")  # stand beside the row's name, for narrow screens
LAST = ("Shipped - oracle", "Accuracy", "Step size")  # are no ECE of a method
# Whether the lowest or the highest number of a line is the best.
BEST = {
    "table1": min,
    "table2": min,
    "table3": min,
    "table4": max,
    "table5": min,
    "table6": max,
    "table7": min,
    "without_images": min,
}
# Columns that are compared with none: what has seen the test labels, and what is no number of the table.
NOT_COMPARED = ("Row", "Step size", "Accuracy", "Oracle T", "Best of others", "Shipped - oracle")
WITHOUT_SHARE = "Without TS's share"  # Table 6's name for TS
SEE = "See"  # a column with the ids of tables and figures
LONG_TEXT = 40  # characters: text of more goes over several lines

Place = tuple[str | None, str | None]  # a row, and a method where each has a line


class Facts(NamedTuple):
    """What stands beside every number of a row."""

    dataset: str
    backbone: str
    ipc: str  # images per class, "all" for the full data
    networks: int = 0  # repeats; 0 without results
    test_images: int = 0
    mask_ratio: str = ""  # of MTS
    step_size: str = ""
    metrics: tuple[str, ...] = ()  # the files with its numbers
    commands: tuple[str, ...] = ()  # that make its numbers


class Look(NamedTuple):
    """How a table is shown."""

    level: str = "h3"  # of its heading
    longest: int = LONG  # lines: a table with more of them is folded
    facts: Mapping[str, Facts] = {}  # by row
    targets: Mapping[str, str] = {}  # what the column `See` may link to: titles by id


class Line(NamedTuple):
    """A line of a table."""

    key: str  # of the table
    row: str | None  # the row that it is about
    cells: dict[str, str]  # by column
    exact: dict[str, str]  # the same numbers in full, as far as they are known


class Columns(NamedTuple):
    """The columns of a table in the order of the page."""

    kinds: dict[str, str]  # classes, by name
    has_links: bool  # from numbers to the section of the row
    targets: Mapping[str, str]  # titles by id, of what the column `See` may link to


PLAIN = Look()


def table_section(key: str, table: Table, rows: Container[str], look: Look = PLAIN, below: str = "") -> str:
    """A table with its notes; a long one is folded.

    Args:
        rows: lines about these link to the row's section.
        below: HTML that follows the table.
    """
    lines = _lines(key, table, rows)
    is_folded = len(lines) > look.longest
    kinds = _kinds(lines, list(table.text.columns))
    columns = Columns(kinds, not is_folded, look.targets)
    heads = [tag("th", escape(name), scope="col", class_=kind) for name, kind in columns.kinds.items()]
    head = tag("thead", tag("tr", "".join(heads)))
    shown = scrolling(table.title, head, *_bodies(lines, columns, look.facts), columns=len(kinds))
    if is_folded:
        shown = folded(f"{len(lines)} lines", shown)
    notes = "\n".join(tag("li", inline(note)) for note in table.notes)
    listed = tag("ul", notes, class_="notes") if notes else ""
    return section(key, table.title, look.level, shown, listed, below)


def _bodies(lines: list[Line], columns: Columns, facts: Mapping[str, Facts]) -> list[str]:
    """A body for each row and what the paper has for it, and a foot with the counts.

    The page sorts and filters bodies, so that the paper's number stays with its row.
    """
    bodies: list[list[str]] = []
    places: list[dict[str, str]] = []
    counts = []
    for line in lines:
        shown = _shown_line(line, columns)
        name = line.cells.get("Row", "")
        if name.startswith("#"):
            counts.append(shown)
        elif name == PAPERS and bodies:
            bodies[-1].append(shown)
        else:
            bodies.append([shown])
            places.append(line_place(line.row, line.cells, facts))
    parts = [tag("tbody", "".join(body), **place) for body, place in zip(bodies, places)]
    if counts:
        parts.append(tag("tfoot", "".join(counts)))
    return parts


def _kinds(lines: list[Line], names: list[str]) -> dict[str, str]:
    """The columns in the order of the page, with their classes."""
    kinds = {}
    for name in _ordered(names):
        kinds[name] = _kind_of(name, [line.cells[name] for line in lines])
    return kinds


def _ordered(names: list[str]) -> list[str]:
    """The columns, with the methods of most interest first where there are several of them."""
    if "Raw" not in names or "MTS" not in names or "Row" not in names:
        return names
    first = ["Row", *(name for name in FIRST if name in names)]
    last = [name for name in LAST if name in names]
    return first + [name for name in names if name not in first + last] + last


def _kind_of(name: str, cells: list[str]) -> str:
    """ "n" for a column of numbers, which stand to the right, and "t" for one of long text."""
    if name == "Row":
        return ""
    if name == SEE:
        return "t"
    if max(map(len, cells), default=0) > LONG_TEXT:
        return "t"
    return "n" if all(cell in EMPTY or NUMBER.match(cell) for cell in cells) else ""


def _lines(key: str, table: Table, rows: Container[str]) -> list[Line]:
    exact = _exact_numbers(table)
    lines = []
    for values in table.text.astype(str).to_dict("records"):
        cells = {str(name): cell for name, cell in values.items()}
        row = plain_name(cells["Row"]) if "Row" in cells else None
        of_row = exact.get((row, cells.get("Method")), {})
        lines.append(Line(key, row if row in rows else None, cells, of_row))
    return lines


def _exact_numbers(table: Table) -> dict[Place, dict[str, str]]:
    """The numbers of a table's lines in full by column, for tables of one method a column or a line."""
    exact: dict[Place, dict[str, str]] = {}
    for number in table.numbers.to_dict("records"):
        key = number.get("method", number.get("column"))
        if key not in TITLES or "row" not in number:
            continue
        title = _title_of(key, list(table.text.columns))
        if "Method" in table.text:
            of_line = exact.setdefault((number["row"], title), {})
            of_line |= {name: _in_full(number, score) for score, name in SCORES.items()}
            continue
        of_line = exact.setdefault((number["row"], None), {})
        of_line[title] = _in_full(number, number.get("number", "ece"))
        if key == "raw" and "accuracy_mean" in number:
            of_line["Accuracy"] = _in_full(number, "accuracy")
    return exact


def _title_of(key: str, columns: list[str]) -> str:
    """The column of a method, which a table may have under a name of its own."""
    if key == "fixed":
        return next((name for name in columns if name.startswith("T = ")), "T = 1.5")
    if key == "ts" and WITHOUT_SHARE in columns:
        return WITHOUT_SHARE
    return TITLES[key]


def _in_full(number: dict[str, Any], score: str) -> str:
    """A mean and its deviation in percent to four decimals; "" where the table has no mean."""
    mean = number.get(f"{score}_mean")
    if mean is None:
        return ""
    in_percent = pair([100 * mean, 100 * number[f"{score}_std"]], decimals=4)
    if "repeats" not in number:
        return in_percent
    networks = "network" if number["repeats"] == 1 else "networks"
    return f"{in_percent}, {number['repeats']} {networks}"


def line_place(row: str | None, cells: dict[str, str], facts: Mapping[str, Facts]) -> dict[str, str]:
    """What a line is filtered by: the facts of its row, or what its own cells say."""
    if row is not None and row in facts:
        of_row = facts[row]
        return {"data_dataset": of_row.dataset, "data_backbone": of_row.backbone, "data_ipc": of_row.ipc}
    if {"Data set", "Backbone", "IPC"} <= cells.keys():
        ipc = cells["IPC"] or "all"
        return {"data_dataset": cells["Data set"], "data_backbone": cells["Backbone"], "data_ipc": ipc}
    return {}


def _shown_line(line: Line, columns: Columns) -> str:
    best = _best_of(line)
    shown: list[str] = []
    for name, kind in columns.kinds.items():
        cell = line.cells[name]
        text = _cell_text(line, name, columns)
        text = tag("b", text) if name in best else text
        if name == "Verdict":
            kind = f"verdict verdict-{cell.split(',')[0].replace(' ', '-')}"
        kind = f"{kind} muted".strip() if cell in EMPTY else kind
        title = "" if name in PRECISE else long_text(cell, line.exact.get(name, ""))
        if shown:
            shown.append(tag("td", text, class_=kind, title=title))
        else:
            shown.append(tag("th", text, scope="row", class_=kind))
    is_aside = "Row" in line.cells and line.row is None
    return tag("tr", "".join(shown), class_="aside" if is_aside else "")


def _cell_text(line: Line, name: str, columns: Columns) -> str:
    """What stands in a cell, as HTML: the name and the numbers of a row link to its section."""
    cell = line.cells[name]
    if name == SEE:
        return _see(cell, columns.targets)
    if columns.kinds[name] == "t":
        return inline(cell)
    text = escape(cell) if name in PRECISE else short_number(cell, line.exact.get(name, ""))
    text = text.replace("†", tag("span", "†", class_="mark"))
    if line.row is None:
        return text
    if name == "Row":
        return link(f"row-{line.row}", text)
    if columns.has_links and re.search(r"\d", cell):
        return link(f"row-{line.row}", text, tabindex="-1")  # one tab stop a line
    return text


def _see(cell: str, targets: Mapping[str, str]) -> str:
    """The ids of a cell as links with short titles."""
    shown = []
    for key in cell.split(", ") if cell else ():
        title = targets.get(key, key).split(":")[0]
        shown.append(link(key, escape(title)))
    return tag("span", ", ".join(shown), class_="see")


def short_number(cell: str, exact: str = "") -> str:
    """A cell with its shares in percent to one decimal, as HTML; other cells as they are.

    Args:
        exact: the same numbers in full, so that none is rounded twice; "": they are not known.
    """
    match = CELL.fullmatch(cell)
    full = NUMBERS.match(long_text(cell, exact))
    if not match or not full:
        return escape(cell)
    sign = "+" if match["mean"].startswith("+") else ""
    text = f"{sign}{float(full['mean']):.1f}"
    spread = f" ± {_one_decimal(full['std'] or match['std'])}" if match["std"] else ""
    if match["low"]:
        spread += f" [{_one_decimal(match['low'])}, {_one_decimal(match['high'])}]"
    rest = escape(match["rest"] or "")
    if not spread:
        return text + rest
    return text + tag("span", f"{spread}{rest}", class_="sd")  # below the mean on narrow screens


def _one_decimal(number: str) -> str:
    sign = "+" if number.startswith("+") else ""
    return f"{sign}{float(number):.1f}"


def long_text(cell: str, exact: str) -> str:
    """What a short number is in full: `exact` where that is the cell's number, or else the cell itself."""
    printed = CELL.fullmatch(cell)
    if not printed:
        return ""
    known = NUMBERS.match(exact)
    is_the_same = known and f"{float(known['mean']):.2f}" == f"{float(printed['mean']):.2f}"
    return exact if is_the_same else cell


def _best_of(line: Line) -> list[str]:
    """The columns with the best number of a line, of the methods that see no test label."""
    if line.key not in BEST or line.cells.get("Row", "").startswith("#"):
        return []
    numbers = {}
    for name, cell in line.cells.items():
        match = CELL.fullmatch(cell)
        if match and name not in NOT_COMPARED:
            numbers[name] = float(match["mean"])
    if len(numbers) < 2:
        return []
    best = BEST[line.key](numbers.values())
    return [name for name, number in numbers.items() if number == best]
