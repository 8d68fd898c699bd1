"""The report as one page: tables, figures, rows and settings in a single file of HTML that loads nothing else.

Every number of a row links to the row's section, with its picture and settings, and that links back to the tables.
"""

import re
import struct
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import yaml

from stages.tables import Table

__all__ = ["Shown", "page"]

TITLE = "Calibration of networks trained on distilled data"
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
NUMBER = re.compile(r"[-+−]?(\d|nan|inf)")
EMPTY = ("", "-", "missing")  # cells that say that there is no number
# The policy makes browsers themselves refuse whatever is not in the page.
HEAD = f"""<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
"""


class Shown(NamedTuple):
    title: str
    caption: str
    path: Path  # .svg or .png


def page(
    tables: dict[str, Table], figures: dict[str, Shown], rows: dict[str, dict], pictures: dict[str, Path], settings: dict, versions: dict[str, str], intro: str
) -> str:
    """The whole page, the same for the same arguments and files.

    Args:
        tables: by id, at least one; the first stands right below the introduction.
        figures: by id.
        rows: settings by row, as in `suites/*.yaml`; the lines of tables whose cell `Row` is a name here link to it.
        pictures: of the rows that have one.
        settings: `params.yaml`.
        versions: of all that the results were made with.
        intro: paragraphs between empty lines; what stands in backticks is code, as in the notes of a table.
    """
    (first, result), *others = tables.items()
    short = {key: table.title.split(":")[0] for key, table in tables.items()}
    naming = {name: {key: short[key] for key, table in tables.items() if name in list(table.text.get("Row", ()))} for name in rows}
    groups = {  # heading, targets of the links below it, parts
        "tables": ("More tables", {key: table.title for key, table in others}, [table_section(key, table, rows) for key, table in others]),
        "figures": ("Figures", {key: shown.title for key, shown in figures.items()}, [figure_section(*item) for item in figures.items()]),
        "rows": ("Rows", {f"row-{name}": name for name in rows}, [row_section(name, rows[name], pictures.get(name), naming[name]) for name in rows]),
        "settings": ("Settings", {}, [folded("params.yaml: what all rows share", settings)]),
        "versions": ("Versions", {}, [version_table(versions)]),
    }
    groups = {key: group for key, group in groups.items() if group[2]}
    style = tag("style", (Path(__file__).parent / "page.css").read_text())
    contents = links({first: "Result"} | {key: heading for key, (heading, _, _) in groups.items()})
    header = tag("header", tag("h1", TITLE) + tag("nav", contents, aria_label="Contents"))
    sections = [section(key, heading, "h2", links(targets), *parts) for key, (heading, targets, parts) in groups.items()]
    paragraphs = [tag("p", inline(part)) for part in intro.split("\n\n") if part.strip()]
    main = tag("main", "\n".join([*paragraphs, table_section(first, result, rows, "h2"), *sections]))
    return "<!DOCTYPE html>\n" + tag("html", tag("head", HEAD + style) + "\n" + tag("body", f"{header}\n{main}"), lang="en") + "\n"


def table_section(key: str, table: Table, rows, level: str = "h3") -> str:
    """A table, which scrolls by itself where the screen is narrower, and its notes."""
    names, lines = list(table.text.columns), table.text.astype(str).values.tolist()
    classes = ["n" if name != "Row" and all(NUMBER.match(line[i]) or line[i] in EMPTY for line in lines) else "" for i, name in enumerate(names)]
    head = "".join(tag("th", escape(name), scope="col", class_=kind) for name, kind in zip(names, classes))
    body = "\n".join(table_line(line, classes, line[names.index("Row")] if "Row" in names else None, rows) for line in lines)
    notes = tag("ul", "\n".join(tag("li", inline(note)) for note in table.notes), class_="notes") if table.notes else ""
    return section(key, table.title, level, scrolling(table.title, tag("thead", tag("tr", head)), tag("tbody", body)), notes)


def table_line(cells: list[str], classes: list[str], row: str | None, rows) -> str:
    """A line of a table. Its name and its numbers link to the row that it is about; a line about no row is set apart."""
    shown = []
    for i, (cell, kind) in enumerate(zip(cells, classes)):
        text = escape(cell).replace("†", tag("span", "†", class_="mark"))
        if row in rows and (cell == row or re.search(r"\d", cell)):
            text = link(f"row-{row}", text, tabindex="" if cell == row else "-1")  # one tab stop a line
        kind = f"{kind} muted".strip() if cell in EMPTY else kind
        shown.append(tag("td", text, class_=kind) if i else tag("th", text, scope="row", class_=kind))
    return tag("tr", "".join(shown), class_="" if row is None or row in rows else "aside")


def figure_section(key: str, shown: Shown) -> str:
    image, caption = embedded(shown.path, f"{shown.title}. {shown.caption}"), tag("figcaption", inline(shown.caption))
    return section(key, shown.title, "h3", tag("figure", image + caption))


def row_section(name: str, values: dict, picture: Path | None, tables: dict[str, str]) -> str:
    """A row's picture and settings, and the tables that name it: id and label."""
    back = tag("p", "In " + ", ".join(link(key, escape(title)) for key, title in tables.items()), class_="back") if tables else ""
    image = tag("figure", embedded(picture, f"Images of {name}")) if picture else ""
    return section(f"row-{name}", name, "h3", back, image, folded("Settings", values))


def version_table(versions: dict[str, str]) -> str:
    return scrolling("Versions", *(tag("tr", tag("th", escape(name), scope="row") + tag("td", escape(version))) for name, version in versions.items()))


def section(key: str, heading: str, level: str, *parts: str) -> str:
    return tag("section", "\n".join([tag(level, escape(heading)), *filter(None, parts)]), id=key) + "\n"


def scrolling(label: str, *parts: str) -> str:
    return tag("div", tag("table", "\n".join(parts)), class_="scroll", role="region", tabindex="0", aria_label=label)


def folded(summary: str, values: dict) -> str:
    """Settings as YAML, behind a line to open."""
    text = yaml.dump(values, Dumper=Plain, sort_keys=False, allow_unicode=True)
    return tag("details", tag("summary", inline(summary)) + tag("pre", escape(text)))


def embedded(path: Path, alt: str) -> str:
    """A picture as part of the page, on a card that scrolls where a wide one would get too small to read."""
    data = path.read_bytes()
    width, height = size(data, path)
    url = f"data:{KINDS[path.suffix]};base64,{b64encode(data).decode()}"
    image = f'<img src="{url}" alt="{escape(alt)}" width="{width}" height="{height}" style="--ratio: {width / height:.3f}">'
    return tag("div", image, class_="card")


def size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height in pixels of a PNG, or of an SVG in points, as matplotlib writes it."""
    if path.suffix == ".png":
        return struct.unpack(">II", data[16:24])
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    if not box:
        raise ValueError(f"{path}: expected an SVG with a viewBox that begins at 0 0")
    return round(float(box[1]) * 4 / 3), round(float(box[2]) * 4 / 3)


def links(targets: dict[str, str]) -> str:
    """A list of links, by id; nothing for fewer than two."""
    return tag("ul", "".join(tag("li", link(target, escape(text))) for target, text in targets.items()), class_="links") if len(targets) > 1 else ""


def link(target: str, content: str, **attributes: str) -> str:
    """`content` as a link to an id."""
    return tag("a", content, href=f"#{quote(target)}", **attributes)


def inline(text: str) -> str:
    """Text with code in backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))


def tag(name: str, content: str, **attributes: str) -> str:
    """An element. `content` is HTML already; attributes are escaped, those that are empty left out."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items() if value)
    return f"<{name}{pairs}>{content}</{name}>"


class Plain(yaml.SafeDumper):
    """YAML as in suites/: lists in a line."""


Plain.add_representer(list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True))
