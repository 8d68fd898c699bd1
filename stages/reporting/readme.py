"""reports/README.md: the tables, and links to the figures, for the repository's web page."""

from pathlib import Path

from stages.reporting.cells import Table
from stages.reporting.formats import markdown
from stages.reporting.main_readme import found
from stages.reporting.page import Content
from stages.settings.rows import REPORTS

__all__ = ["hero_of", "readme", "readme_section"]

PAGE = "The same as one page with all pictures: `index.html`."


def readme(content: Content) -> str:
    """The whole file: what was found, every table, and links to the figures."""
    hero = hero_of(content, REPORTS)
    tables = dict(content.tables)
    summary = tables.pop("summary", None)
    head = ["# Results", *found(content.findings, summary, hero), content.intro, PAGE]
    if "claims" in tables:
        tables["claims"] = with_links(content)
    sections = [readme_section(name, table) for name, table in tables.items()]
    links = [f"- [{shown.title}]({shown.path.relative_to(REPORTS)})" for shown in content.figures.values()]
    return "\n\n".join([*head, *sections, "## Figures", "\n".join(links)]) + "\n"


def with_links(content: Content) -> Table:
    """The table of claims with links to the files of the tables and figures that it names."""
    paths = {name: Path("tables") / f"{name}.md" for name in content.tables}
    for name, shown in content.figures.items():
        paths[name] = shown.path.relative_to(REPORTS)
    claims = content.tables["claims"]
    cells = []
    for cell in claims.text["See"]:
        names = [name for name in cell.split(", ") if name]
        cells.append(", ".join(f"[{name}]({paths[name]})" for name in names))
    return claims._replace(text=claims.text.assign(See=cells))


def readme_section(name: str, table: Table) -> str:
    """A table with its title and notes; of a long one, its title and where it stands."""
    if table.is_long:
        return f"## {table.title}\n\n{len(table.text)} lines: [tables/{name}.md](tables/{name}.md)."
    return f"## {table.title}\n\n{markdown(table)}"


def hero_of(content: Content, folder: Path) -> tuple[str, Path] | None:
    """The title of the figure beside the findings, and its file as seen from a folder."""
    if not content.hero:
        return None
    shown = content.figures[content.hero]
    return shown.title, shown.path.relative_to(folder)
