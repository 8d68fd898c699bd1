"""A table in files: its numbers as CSV, its text as Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from stages.reporting.cells import Table
from stages.runtime.files import write_text

__all__ = ["csv_text", "latex", "markdown", "write_table"]

ESCAPES = str.maketrans(
    {
        "#": r"\#",
        "_": r"\_",
        "%": r"\%",
        "±": r"$\pm$",
        "†": r"$^\dagger$",
        "‡": r"$^\ddagger$",
        "§": r"$^\S$",
    }
)


def write_table(table: Table, path: Path) -> None:
    """Write `<path>.csv`, `<path>.md` and `<path>.tex`."""
    write_text(path.with_suffix(".csv"), csv_text(table.numbers))
    write_text(path.with_suffix(".md"), f"**{table.title}**\n\n{markdown(table)}\n")
    write_text(path.with_suffix(".tex"), latex(table))


def csv_text(numbers: pd.DataFrame) -> str:
    """Numbers to six digits."""
    return numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def markdown(table: Table) -> str:
    """A table and its notes, without the title."""
    names = list(table.text.columns)
    rule = ["---"] * len(names)
    lines = [names, rule, *table.text.values.tolist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"{text}\n\n{notes}"


def latex(table: Table) -> str:
    """A booktabs tabular."""
    alignment = "l" + "r" * (len(table.text.columns) - 1)
    lines = [_latex_line(line) for line in table.text.values.tolist()]
    parts = [
        rf"% {table.title}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _latex_line(list(table.text.columns)),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(parts) + "\n"


def _latex_line(cells: list[str]) -> str:
    return " & ".join(cell.translate(ESCAPES) for cell in cells) + r" \\"
