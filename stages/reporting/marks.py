"""Marks behind the names of rows, and the notes that say what they mean."""

from stages.reporting.cells import Results, Table, lr_and_step_size

__all__ = ["marked", "plain_name", "with_step_size"]

REDUCED = "‡"
SEVERAL_SETS = "§"


def marked(table: Table, results: Results) -> Table:
    """A table with a mark behind the name of each reduced row and of each row of several sets.

    Args:
        results: of all rows that the table may have.
    """
    if "Row" not in table.text:
        return table
    cells = list(table.text["Row"])
    shown = results.of([name for name in results.rows if name in cells])
    text = table.text.assign(Row=[_marked_name(cell, shown) for cell in cells])
    return table._replace(
        text=text, notes=[*table.notes, *_reduced_notes(shown), *_several_sets_notes(shown)]
    )


def with_step_size(table: Table, results: Results) -> Table:
    """A table that says after each row's name at which step size its networks were trained, as Table 1 does.

    Args:
        results: of all rows that the table may have.
    """
    if "Row" not in table.text or "Step size" in table.text:
        return table
    cells = [lr_and_step_size(results, row) if row in results.rows else "" for row in table.text["Row"]]
    text = table.text.copy()
    text.insert(1, "Step size", cells)
    return table._replace(text=text)


def plain_name(cell: str) -> str:
    """The name of a row without its marks."""
    return cell.rstrip(f" {REDUCED}{SEVERAL_SETS}")


def _marked_name(name: str, results: Results) -> str:
    marks = ""
    if name in results.rows and results.rows[name].budget == "reduced":
        marks += REDUCED
    if name in results.rows and _has_several_sets(results, name):
        marks += SEVERAL_SETS
    return f"{name} {marks}".strip()


def _has_several_sets(results: Results, row: str) -> bool:
    return results.evaluated.get(row, {}).get("sets", 1) > 1


def _reduced_notes(results: Results) -> list[str]:
    """What is reduced, with the rows that it is said of."""
    rows_of_note: dict[str, list[str]] = {}
    for name, row in results.rows.items():
        if row.budget == "reduced":
            rows_of_note.setdefault(row.budget_note, []).append(f"`{name}`")
    return [
        f"{REDUCED} reduced budget, {', '.join(names)}: {note.rstrip('.')}."
        for note, names in rows_of_note.items()
    ]


def _several_sets_notes(results: Results) -> list[str]:
    if not any(_has_several_sets(results, row) for row in results.rows):
        return []
    return [
        f"{SEVERAL_SETS} the networks of the row have several sets between them: ± is over sets and networks."
    ]
