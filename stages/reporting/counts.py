"""How many rows a method makes worse than Raw, for each kind of row apart."""

from collections.abc import Iterable, Sequence

from stages.reporting.cells import ABSENT, Results
from stages.reporting.each_set_once import each_set_once
from stages.reporting.rows_of_figures import REFERENCES

__all__ = ["COUNTED_APART", "OF_FEWER", "count", "counted_groups", "worse_than_raw"]

PAPERS = "the paper's rows"  # published settings, and the paper has numbers for it
REDUCED = "reduced rows"
OTHERS = "other distilled rows"  # sets that the paper does not have
REAL = "rows of real images"  # the references
COUNTED_APART = (
    "The paper's rows are those that it has numbers for, with the published settings. Reduced rows, other"
    " distilled rows and the references of real images are counted apart, and each set once. In brackets: how"
    " many rows have results."
)
OF_FEWER = "`1 of 2`: the method exists for two of them."


def counted_groups(results: Results, of_paper: Iterable[str]) -> dict[str, Results]:
    """The rows with results in the groups that are counted apart, by the name of the group and its size.

    A group without rows is left out, and a set counts once.

    Args:
        of_paper: the rows that the paper has numbers for.
    """
    printed = set(of_paper)
    groups: dict[str, list[str]] = {PAPERS: [], REDUCED: [], OTHERS: [], REAL: []}
    with_results = [name for name in results.rows if name in results.evaluated]
    for name in each_set_once(results.rows, with_results):
        row = results.rows[name]
        if row.budget == "published" and name in printed:
            groups[PAPERS].append(name)
        elif row.budget == "reduced" and (name in printed or row.method not in REFERENCES):
            groups[REDUCED].append(name)
        elif row.method in REFERENCES:
            groups[REAL].append(name)
        else:
            groups[OTHERS].append(name)
    return {f"{group} ({len(names)})": results.of(names) for group, names in groups.items() if names}


def worse_than_raw(results: Results, method: str) -> list[bool]:
    """Whether the ECE by a method is higher than by Raw, for each row that has both.

    It is where the 95 % interval of their difference, over networks and test images, lies above zero. Rows
    without an interval, which are results of older versions, are left out.
    """
    worse = []
    for row in results.rows:
        calibrated = results.method(row, method)
        if calibrated and "difference_to_raw" in calibrated and results.method(row, "raw"):
            low, _ = calibrated["difference_to_raw"]
            worse.append(low > 0)
    return worse


def count(of_rows: Sequence[bool], rows: int) -> str:
    """How many rows a statement is true of; and of how many, where a method exists for fewer than `rows`."""
    if not of_rows:
        return ABSENT
    true = sum(of_rows)
    return str(true) if len(of_rows) == rows else f"{true} of {len(of_rows)}"
