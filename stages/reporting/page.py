"""The report as one page: findings, tables, figures, rows and settings in a file that loads no other.

Every number of a row links to the section with its settings, its files and the command that makes it, which
links back to the tables. What moves is in page.js, and the page is whole without it.
"""

from base64 import b64encode
from hashlib import sha256
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from stages.reporting.cells import Results, Table
from stages.reporting.elements import folded, inline, link, links, scrolling, section, settings_text, tag
from stages.reporting.embedding import embedded
from stages.reporting.explorer import HEADING as EXPLORER
from stages.reporting.explorer import explorer_section
from stages.reporting.marks import plain_name
from stages.reporting.page_tables import Facts, Look, table_section
from stages.reporting.paper_beside import papers_own
from stages.reporting.paper_tables import PAPER_TABLES
from stages.reporting.records import Made, made_table
from stages.settings.project import read_yaml

__all__ = ["Content", "Shown", "page", "table_section"]

TITLE = "Calibration of networks trained on distilled data"
SUMMARY = "summary"  # the table of the means by data set
CLAIMS = "claims"  # the table of the paper's claims
SHOWN_LINES = 20  # a table with more lines is folded
GLOSSARY = read_yaml(Path(__file__).with_name("glossary.yaml"))
STYLE = Path(__file__).with_name("page.css").read_text()
SCRIPT = Path(__file__).with_name("page.js").read_text()
SCRIPT_HASH = b64encode(sha256(SCRIPT.encode()).digest()).decode()
# The policy makes browsers themselves refuse whatever is not in the page, and every script but page.js.
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}';"
    " base-uri 'none'; form-action 'none'"
)
HEAD = f"""<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
"""
FILTERS = {"dataset": "Data set", "backbone": "Backbone", "ipc": "Images per class"}

# Where the first screen leads, by id.
WAYS = {
    CLAIMS: "The paper's claims, one by one",
    "explore": "Try a temperature",
    "tables": "Tables",
    "figures": "Figures",
    "glossary": "What the words mean",
}


class Shown(NamedTuple):
    """A figure of the page."""

    title: str
    caption: str
    path: Path  # .svg or .png


class Content(NamedTuple):
    """All that the page shows."""

    intro: str  # paragraphs between empty lines; words in backticks are code, as in the notes of a table
    tables: dict[str, Table]  # by id
    figures: dict[str, Shown]  # by id
    rows: dict[str, dict]  # settings by row, as in suites/*.yaml; lines of tables link to the row in `Row`
    pictures: dict[str, Path]  # of the rows that have one
    settings: dict[str, Any]  # params.yaml
    versions: dict[str, str]  # of all that the results were made with
    findings: list[str] = []  # sentences that say what was found
    hero: str | None = None  # the id of the figure beside them
    facts: dict[str, Facts] = {}  # by row
    results: Results | None = None  # what the moving diagram is drawn from
    made: dict[str, list[Made]] = {}  # the runs that have made the files of each row


class Group(NamedTuple):
    """A part of the page with a heading and sections."""

    heading: str
    sections: list[str]
    targets: dict[str, str] = {}  # text of the links in the contents, by id


def page(content: Content) -> str:
    """The whole page, the same for the same content and files."""
    groups = {key: group for key, group in _groups(content).items() if any(group.sections)}
    shown = {key: _group_section(key, group) for key, group in groups.items()}
    filtered = [shown.pop(key) for key in ("tables", "more") if key in shown]
    tables = tag("div", _filters(content.facts) + "".join(filtered), class_="filtered") if filtered else ""
    before = [shown.pop(key) for key in (SUMMARY, CLAIMS, "explore") if key in shown]
    body = [_first_screen(content, groups), *before, tables, *shown.values()]
    contents = tag("nav", _contents(groups), class_="contents", aria_label="Contents")
    skip = link("main", "Skip to the findings", class_="skip")
    main = tag("main", "\n".join(body), id="main", tabindex="-1")
    script = tag("script", SCRIPT)
    whole = (
        tag("head", HEAD + tag("style", STYLE)) + "\n" + tag("body", f"{skip}{contents}\n{main}\n{script}")
    )
    return "<!DOCTYPE html>\n" + tag("html", whole, lang="en") + "\n"


def _first_screen(content: Content, groups: dict[str, Group]) -> str:
    """What was found: sentences, the figure that shows it, and where to read on."""
    sentences = "\n".join(tag("li", _with_lead(sentence)) for sentence in content.findings)
    found = tag("ol", sentences, class_="findings") if sentences else ""
    ways = {}
    for key, text in WAYS.items():
        if key in groups:
            ways[key] = text
    found += tag("nav", links(ways), class_="ways", aria_label="Where to read on") if ways else ""
    parts = tag("div", found, class_="found")
    if content.hero in content.figures:
        shown = content.figures[content.hero]
        parts += tag("figure", _picture_and_caption(shown), id=content.hero)
    return tag("header", tag("h1", TITLE) + tag("div", parts, class_="first"))


def _with_lead(sentence: str) -> str:
    """A sentence with what stands before its colon in bold."""
    lead, colon, rest = sentence.partition(":")
    if not colon:
        return inline(sentence)
    return f"{tag('b', inline(lead + colon))} {inline(rest)}"


def _groups(content: Content) -> dict[str, Group]:
    """The parts below the first screen, by id."""
    of_paper = {key: table for key, table in content.tables.items() if key in PAPER_TABLES}
    others = {
        key: table for key, table in content.tables.items() if key not in (*PAPER_TABLES, SUMMARY, CLAIMS)
    }
    figures = {key: shown for key, shown in content.figures.items() if key != content.hero}
    settings = folded("params.yaml: what all rows share", settings_text(content.settings))
    terms = [tag("dt", escape(name)) + tag("dd", inline(text)) for name, text in GLOSSARY.items()]
    about = [tag("p", inline(part)) for part in content.intro.split("\n\n") if part.strip()]
    diagram = explorer_section(content.results) if content.results else ""
    return {
        SUMMARY: Group("By data set", [_first_table(content, SUMMARY)]),
        CLAIMS: Group("Claim by claim", [_first_table(content, CLAIMS)]),
        "explore": Group(EXPLORER, [diagram]),
        "tables": Group("The paper's tables", *_table_sections(content, of_paper)),
        "more": Group("More tables", *_table_sections(content, others)),
        "figures": Group("Figures", _figure_sections(figures), _titles_of_figures(figures)),
        "rows": Group("Rows", [_row_section(name, content) for name in content.rows]),
        "about": Group("About the numbers", about),
        "glossary": Group("What the words mean", [tag("dl", "\n".join(terms), class_="terms")]),
        "settings": Group("Settings", [settings]),
        "versions": Group("Versions", [_version_table(content.versions)]),
    }


def _group_section(key: str, group: Group) -> str:
    """A part with its heading; the first tables and the diagram have one of their own."""
    if key in (SUMMARY, CLAIMS, "explore"):
        return "\n".join(group.sections)
    return section(key, group.heading, "h2", *group.sections)


def _contents(groups: dict[str, Group]) -> str:
    items = []
    for key, group in groups.items():
        below = links(group.targets) if len(group.targets) > 1 else ""
        items.append(tag("li", link(key, escape(group.heading)) + below))
    return tag("ul", "".join(items))


def _first_table(content: Content, key: str) -> str:
    """A table that stands before all others, and links to them."""
    if key not in content.tables:
        return ""
    targets = {key: table.title for key, table in content.tables.items()}
    targets |= {key: shown.title for key, shown in content.figures.items()}
    return table_section(key, content.tables[key], content.rows, Look("h2", targets=targets))


def _filters(facts: dict[str, Facts]) -> str:
    """What the lines of all tables can be filtered by."""
    if not facts:
        return ""
    selects = []
    for name, title in FILTERS.items():
        values = sorted({getattr(of_row, name) for of_row in facts.values()}, key=_by_size)
        options = ['<option value="">all</option>']
        options += [tag("option", escape(value), value=value) for value in values]
        selects.append(tag("label", title + tag("select", "".join(options), name=name)))
    left = tag("span", "", id="left", role="status")
    return tag("form", "".join(selects) + left, id="filters", hidden="hidden", aria_label="Filter all tables")


def _by_size(value: str) -> tuple[float, str]:
    """Numbers in their order, words after them."""
    return (float(value) if value.isdigit() else float("inf"), value)


def _table_sections(content: Content, tables: dict[str, Table]) -> tuple[list[str], dict[str, str]]:
    """The sections of tables, and their titles for the contents."""
    cells = content.tables["paper"].numbers if "paper" in content.tables else None
    look = Look(longest=SHOWN_LINES, facts=content.facts)
    sections = []
    for key, table in tables.items():
        sections.append(table_section(key, table, content.rows, look, papers_own(key, cells)))
    titles = {}
    for key, table in tables.items():
        titles[key] = table.title if key in PAPER_TABLES else table.title.split(":")[0]
    return sections, titles


def _figure_sections(figures: dict[str, Shown]) -> list[str]:
    """The figures; those of one number stand together, with one caption where all have the same."""
    sections = []
    for _, keys in groupby(figures, key=lambda key: key.split("-")[0]):
        of_number = {key: figures[key] for key in keys}
        captions = {shown.caption for shown in of_number.values()}
        is_shared = len(of_number) > len(captions) == 1
        parts = [_figure_section(key, shown, not is_shared) for key, shown in of_number.items()]
        if is_shared:
            parts.append(tag("p", inline(captions.pop()), class_="notes"))
        sections.append(tag("div", "\n".join(parts), class_="gallery"))
    return sections


def _titles_of_figures(figures: dict[str, Shown]) -> dict[str, str]:
    """One link for figures of one number that stand together; a second one names its subject, too."""
    titles: dict[str, str] = {}
    for _, keys in groupby(figures, key=lambda key: key.split("-")[0]):
        first = next(keys)
        title = figures[first].title
        short = title.rsplit(",", 1)[0]
        titles[first] = title if short in titles.values() else short
    return titles


def _figure_section(key: str, shown: Shown, has_caption: bool) -> str:
    picture = _picture_and_caption(shown) if has_caption else _picture(shown)
    return section(key, shown.title, "h3", tag("figure", picture))


def _picture_and_caption(shown: Shown) -> str:
    return _picture(shown) + tag("figcaption", inline(shown.caption))


def _picture(shown: Shown) -> str:
    return embedded(shown.path, f"{shown.title}. {shown.caption}")


def _row_section(name: str, content: Content) -> str:
    """A row, folded: what its numbers are of, its picture and settings, and the tables that name it."""
    naming = []
    for key, table in content.tables.items():
        if name in [plain_name(cell) for cell in table.text.get("Row", ())]:
            naming.append(link(key, escape(table.title.split(":")[0])))
    back = tag("p", "In " + ", ".join(naming), class_="back") if naming else ""
    facts = content.facts.get(name)
    image = ""
    if name in content.pictures:
        image = tag("figure", embedded(content.pictures[name], f"Images of {name}"))
    made = made_table(content.made.get(name, []))
    parts = [_fact_list(facts) if facts else "", back, image, settings_text(content.rows[name]), made]
    heading = tag("h3", escape(name))
    brief = tag("span", escape(_brief(facts)), class_="muted") if facts else ""
    return tag("details", tag("summary", heading + brief) + "\n".join(parts), id=f"row-{name}", class_="row")


def _brief(facts: Facts) -> str:
    images = "all images" if facts.ipc == "all" else f"{facts.ipc} a class"
    about = f"{facts.dataset}, {facts.backbone}, {images}"
    if not facts.networks:
        return f"{about}; no result yet"
    return f"{about}; {facts.networks} networks, {facts.test_images:,} test images"


def _fact_list(facts: Facts) -> str:
    """What a row's numbers are of, where they stand, and how to make them."""
    commands = " or ".join(f"`{command}`" for command in facts.commands)
    files = ", ".join(f"`{file}`" for file in facts.metrics)
    values = {
        "Networks (n)": str(facts.networks or "none yet"),
        "Test images": f"{facts.test_images:,}" if facts.test_images else "",
        "Step size": facts.step_size,
        "Mask ratio of MTS": facts.mask_ratio,
        "All numbers": files,
        "Made by": commands,
    }
    items = [tag("dt", escape(name)) + tag("dd", inline(text)) for name, text in values.items() if text]
    return tag("dl", "".join(items), class_="facts")


def _version_table(versions: dict[str, str]) -> str:
    lines = []
    for name, version in versions.items():
        cells = tag("th", escape(name), scope="row") + tag("td", escape(version))
        lines.append(tag("tr", cells))
    return scrolling("Versions", *lines)
