"""The report as one page: tables, figures, rows and settings in one file of HTML that loads no other file.

Every number of a row links to the section with its picture and settings, which links back to the tables.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Container
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from stages.reporting.cells import ABSENT, MISSING, Table
from stages.reporting.marks import plain_name

__all__ = ["Content", "Shown", "page"]

TITLE = "Calibration of networks trained on distilled data"
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
NUMBER = re.compile(r"[-+−]?(\d|nan|inf)")
EMPTY = ("", ABSENT, MISSING)  # cells that say that there is no number
# The policy makes browsers themselves refuse whatever is not in the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HEAD = f"""<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
"""


class Shown(NamedTuple):
    """A figure of the page."""

    title: str
    caption: str
    path: Path  # .svg or .png


class Content(NamedTuple):
    """All that the page shows."""

    intro: str  # paragraphs between empty lines; words in backticks are code, as in the notes of a table
    tables: dict[str, Table]  # by id, at least one; the first stands right below the introduction
    figures: dict[str, Shown]  # by id
    rows: dict[
        str, dict
    ]  # settings by row, as in suites/*.yaml; lines of tables link to the row in their cell `Row`
    pictures: dict[str, Path]  # of the rows that have one
    settings: dict[str, Any]  # params.yaml
    versions: dict[str, str]  # of all that the results were made with


class Group(NamedTuple):
    """A part of the page with a heading, links to what stands in it, and sections."""

    heading: str
    targets: dict[str, str]  # text of the links, by id
    sections: list[str]


def page(content: Content) -> str:
    """The whole page, the same for the same content and files."""
    (first, result), *_ = content.tables.items()
    groups = {key: group for key, group in _groups(content).items() if group.sections}
    headings = {first: "Result"}
    body = [tag("p", inline(part)) for part in content.intro.split("\n\n") if part.strip()]
    body.append(table_section(first, result, content.rows, "h2"))
    for key, group in groups.items():
        headings[key] = group.heading
        body.append(section(key, group.heading, "h2", links(group.targets), *group.sections))
    style = tag("style", Path(__file__).with_name("page.css").read_text())
    contents = tag("nav", links(headings), aria_label="Contents")
    header = tag("header", tag("h1", TITLE) + contents)
    main = tag("main", "\n".join(body))
    whole = tag("head", HEAD + style) + "\n" + tag("body", f"{header}\n{main}")
    return "<!DOCTYPE html>\n" + tag("html", whole, lang="en") + "\n"


def _groups(content: Content) -> dict[str, Group]:
    """The parts below the first table, by id."""
    tables = dict(list(content.tables.items())[1:])
    table_titles = {key: table.title for key, table in tables.items()}
    table_sections = [table_section(key, table, content.rows) for key, table in tables.items()]
    figure_titles = {key: shown.title for key, shown in content.figures.items()}
    figure_sections = [figure_section(key, shown) for key, shown in content.figures.items()]
    row_titles = {f"row-{name}": name for name in content.rows}
    row_sections = [row_section(name, content) for name in content.rows]
    settings = folded("params.yaml: what all rows share", content.settings)
    return {
        "tables": Group("More tables", table_titles, table_sections),
        "figures": Group("Figures", figure_titles, figure_sections),
        "rows": Group("Rows", row_titles, row_sections),
        "settings": Group("Settings", {}, [settings]),
        "versions": Group("Versions", {}, [version_table(content.versions)]),
    }


def table_section(key: str, table: Table, rows: Container[str], level: str = "h3") -> str:
    """A table, which scrolls by itself where the screen is narrower, and its notes. A long one is folded."""
    names = list(table.text.columns)
    lines = table.text.astype(str).values.tolist()
    classes = [_class_of(name, [line[i] for line in lines]) for i, name in enumerate(names)]
    cells = [tag("th", escape(name), scope="col", class_=kind) for name, kind in zip(names, classes)]
    head = tag("thead", tag("tr", "".join(cells)))
    body = tag("tbody", "\n".join(table_line(names, line, classes, rows) for line in lines))
    notes = "\n".join(tag("li", inline(note)) for note in table.notes)
    listed = tag("ul", notes, class_="notes") if notes else ""
    shown = scrolling(table.title, head, body)
    if table.is_long:
        shown = tag("details", tag("summary", f"{len(lines)} lines") + shown)
    return section(key, table.title, level, shown, listed)


def _class_of(name: str, cells: list[str]) -> str:
    """ "n" for a column of numbers, which stand to the right."""
    if name == "Row":
        return ""
    return "n" if all(cell in EMPTY or NUMBER.match(cell) for cell in cells) else ""


def table_line(names: list[str], cells: list[str], classes: list[str], rows: Container[str]) -> str:
    """A line of a table. Its name and its numbers link to the row that it is about.

    A line about no row is set apart, where the table has a column of rows.
    """
    row = plain_name(cells[names.index("Row")]) if "Row" in names else None
    shown = []
    for i, (name, cell, kind) in enumerate(zip(names, cells, classes)):
        text = escape(cell).replace("†", tag("span", "†", class_="mark"))
        if row in rows and (name == "Row" or re.search(r"\d", cell)):
            tabindex = "" if name == "Row" else "-1"  # one tab stop a line
            text = link(f"row-{row}", text, tabindex=tabindex)
        if cell in EMPTY:
            kind = f"{kind} muted".strip()
        shown.append(tag("td", text, class_=kind) if i else tag("th", text, scope="row", class_=kind))
    aside = row is not None and row not in rows
    return tag("tr", "".join(shown), class_="aside" if aside else "")


def figure_section(key: str, shown: Shown) -> str:
    image = embedded(shown.path, f"{shown.title}. {shown.caption}")
    caption = tag("figcaption", inline(shown.caption))
    return section(key, shown.title, "h3", tag("figure", image + caption))


def row_section(name: str, content: Content) -> str:
    """A row's picture and settings, and links to the tables that name it."""
    naming = []
    for key, table in content.tables.items():
        if name in [plain_name(cell) for cell in table.text.get("Row", ())]:
            naming.append(link(key, escape(table.title.split(":")[0])))
    back = tag("p", "In " + ", ".join(naming), class_="back") if naming else ""
    image = ""
    if name in content.pictures:
        image = tag("figure", embedded(content.pictures[name], f"Images of {name}"))
    return section(f"row-{name}", name, "h3", back, image, folded("Settings", content.rows[name]))


def version_table(versions: dict[str, str]) -> str:
    lines = []
    for name, version in versions.items():
        cells = tag("th", escape(name), scope="row") + tag("td", escape(version))
        lines.append(tag("tr", cells))
    return scrolling("Versions", *lines)


def section(key: str, heading: str, level: str, *parts: str) -> str:
    present = [part for part in parts if part]
    return tag("section", "\n".join([tag(level, escape(heading)), *present]), id=key) + "\n"


def scrolling(label: str, *parts: str) -> str:
    table = tag("table", "\n".join(parts))
    return tag("div", table, class_="scroll", role="region", tabindex="0", aria_label=label)


def folded(summary: str, values: dict) -> str:
    """Settings as YAML, behind a line to open."""
    text = yaml.dump(values, Dumper=Plain, sort_keys=False, allow_unicode=True)
    return tag("details", tag("summary", inline(summary)) + tag("pre", escape(text)))


def embedded(path: Path, alt: str) -> str:
    """A picture as part of the page, on a card that scrolls where a wide one would get too small to read."""
    data = path.read_bytes()
    width, height = size(data, path)
    url = f"data:{KINDS[path.suffix]};base64,{b64encode(data).decode()}"
    shape = f'width="{width}" height="{height}" style="--ratio: {width / height:.3f}"'
    image = f'<img src="{url}" alt="{escape(alt)}" {shape}>'
    return tag("div", image, class_="card")


def size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height in pixels of a PNG, or of an SVG whose size is in points, as matplotlib writes it.

    Raises:
        ValueError: an SVG without such a size.
    """
    if path.suffix == ".png":
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    if not box:
        raise ValueError(f"{path}: expected an SVG with a viewBox that begins at 0 0")
    return pixels(float(box[1])), pixels(float(box[2]))


def pixels(points: float) -> int:
    """A browser shows three points as four pixels."""
    return round(points * 4 / 3)


def links(targets: dict[str, str]) -> str:
    """A list of links, by id; nothing for fewer than two."""
    if len(targets) < 2:
        return ""
    items = [tag("li", link(target, escape(text))) for target, text in targets.items()]
    return tag("ul", "".join(items), class_="links")


def link(target: str, content: str, **attributes: str) -> str:
    """`content` as a link to an id."""
    return tag("a", content, href=f"#{quote(target)}", **attributes)


def inline(text: str) -> str:
    """Text with code in backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))


def tag(name: str, content: str, **attributes: str) -> str:
    """An element.

    Args:
        content: HTML.
        attributes: text, which is escaped; those that are empty are left out, and `class_` is `class`.
    """
    pairs = ""
    for key, value in attributes.items():
        if value:
            attribute = key.rstrip("_").replace("_", "-")
            pairs += f' {attribute}="{escape(value)}"'
    return f"<{name}{pairs}>{content}</{name}>"


class Plain(yaml.SafeDumper):
    """YAML as in suites/: lists in a line."""


def _list_in_a_line(dumper: Plain, values: list) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


Plain.add_representer(list, _list_in_a_line)
