"""In how many rows of the paper's own tables a claim is so, by the means that they print."""

from typing import Any

from stages.reporting.paper_tables import PAPER

__all__ = ["printed_counts"]


def printed_counts(tables: list[str], method: str, side: str = "", beside: str = "") -> str:
    """For each table the number of rows where the mean is on that side, e.g. "3 of 8 in Table 1".

    Args:
        method: a column of the tables.
        side: of the mean of `beside`, "above" or "below"; "": the mean is the least of the row.
        beside: another column.
    """
    parts = []
    for table in tables:
        signs = [_is_so(means, method, side, beside) for means in _rows(PAPER[table])]
        parts.append(f"{sum(signs)} of {len(signs)} in Table {table.removeprefix('table')}")
    return ", ".join(parts)


def _rows(table: dict[str, Any]) -> list[dict[str, float]]:
    """The means of a table by column, for each row."""
    rows = []
    for row in table["rows"]:
        values = [value[0] if isinstance(value, list) else value for value in row["values"]]
        rows.append({key: mean for key, mean in zip(table["columns"], values) if mean is not None})
    return rows


def _is_so(means: dict[str, float], method: str, side: str, beside: str) -> bool:
    if not side:
        return means[method] == min(means.values())
    difference = means[method] - means[beside]
    return difference > 0 if side == "above" else difference < 0
