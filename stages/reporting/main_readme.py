"""The section "What was found" of the main README, which is written between two comments."""

from pathlib import Path

import pandas as pd

from stages.reporting.by_data_set import groups
from stages.reporting.cells import Results, Table
from stages.reporting.formats import markdown
from stages.reporting.marks import plain_name

__all__ = ["BEGIN", "END", "found", "found_section", "with_section"]

BEGIN = "<!-- What follows is written by `python -m stages.report`. -->"
END = "<!-- What `python -m stages.report` writes ends here. -->"
COLUMNS = ("Row", "Accuracy", "Raw", "MTS", "T = {start:g}", "Shipped T", "Oracle T")
OF_OTHERS = 2  # rows that the table has of each data set but the first
WORDS = (
    "Mean ± standard deviation over networks, in percent. § one network on each of several sets."
    " † a temperature ended on a bound. ‡ fewer iterations than published, or a lower precision."
)


def found_section(
    sentences: list[str], results: Results, tables: dict[str, Table], hero: tuple[str, Path] | None
) -> str:
    """The findings, the means by data set, the figure, the ECE of some rows, and two counts.

    These are how many of the paper's claims hold, and how many of its numbers have one of ours beside them.

    Args:
        sentences: the findings.
        results: without quick rows.
        tables: of the page, by name.
        hero: the title and the file of the figure.
    """
    parts = found(sentences, tables.get("summary"), hero)
    lines = _lines(results, tables)
    words = []
    if len(lines):
        parts.append(markdown(Table("", lines, pd.DataFrame(), [])).strip())
        words.append(WORDS)
    claims = tables["claims"].title.removeprefix("Claim by claim: ")
    words.append(f"{claims[0].upper()}{claims[1:]}: [claim by claim](reports/tables/claims.md).")
    if "paper" in tables:
        words.append(f"{tables['paper'].title}: [number by number](reports/tables/paper.md).")
    parts.append("\n".join(words))
    return "\n\n".join(parts)


def found(sentences: list[str], summary: Table | None, hero: tuple[str, Path] | None) -> list[str]:
    """What was found, as paragraphs of Markdown: a list of the sentences, the table, and the figure.

    Args:
        summary: of all data sets.
        hero: the title and the file of the figure, seen from where the Markdown stands.
    """
    parts = []
    if sentences:
        parts.append("\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1)))
    if summary:
        parts.append(markdown(summary))
    if hero:
        title, path = hero
        parts.append(f"![{title}]({path})")
    return parts


def with_section(text: str, section: str) -> str:
    """A README with another section between the comments; as it is where it has no comments."""
    if BEGIN not in text or END not in text:
        return text
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"


def _lines(results: Results, tables: dict[str, Table]) -> pd.DataFrame:
    """Some columns of Tables 1 and 5: all rows of the first data set, and some of the others."""
    shown = [tables[name].text for name in ("table1", "table5") if name in tables]
    if not shown:
        return pd.DataFrame()
    text = pd.concat(shown).fillna("-")
    names: list[str] = []
    for group in groups(results).values():
        names += _largest_by_method(results, group)[:OF_OTHERS] if names else group
    text = text.set_index(text["Row"].map(plain_name))
    columns = [column.format(start=results.start) for column in COLUMNS]
    present = [column for column in columns if column in text]
    return text.loc[[name for name in names if name in text.index], present]


def _largest_by_method(results: Results, names: list[str]) -> list[str]:
    """The first row of each method with the most images per class."""
    largest: dict[str, str] = {}
    for name in sorted(names, key=lambda name: -(results.rows[name].ipc or 0)):
        largest.setdefault(results.rows[name].method, name)
    return list(largest.values())
