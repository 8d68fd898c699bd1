"""Figures 2 to 9, 12 and 13 of suites of which no row has run here; `analyses` draws those of the others."""

from collections.abc import Iterable
from typing import TypeVar

from stages.reporting.analysis_figures import analysis_figures
from stages.reporting.drawing import Drawn
from stages.reporting.gathered import Gathered, features_elsewhere, found_elsewhere
from stages.reporting.rows_of_figures import by_suite

__all__ = ["figures_elsewhere"]

T = TypeVar("T")


def figures_elsewhere(gathered: Gathered) -> dict[str, Drawn]:
    """The figures by file name, of the results that there are."""
    ran_here = {row.suite.stem for row in gathered.here.values() if row.results.exists()}
    ablations = found_elsewhere(gathered.elsewhere, "ablate")
    decomposed = found_elsewhere(gathered.elsewhere, "svd")
    found = features_elsewhere(gathered.elsewhere)
    drawn: dict[str, Drawn] = {}
    for suite, rows in by_suite(gathered.results.without_quick().rows, gathered.elsewhere).items():
        if suite in ran_here:
            continue
        of_suite = of_rows(rows, found)
        features = {name: of_row.arrays for name, of_row in of_suite.items()}
        classes = next(iter(of_suite.values())).classes if of_suite else []
        results = (of_rows(rows, ablations), of_rows(rows, decomposed), features)
        drawn |= analysis_figures(suite, rows, *results, classes)
    return drawn


def of_rows(rows: Iterable[str], found: dict[str, T]) -> dict[str, T]:
    """What was found on some rows, in their order."""
    return {name: found[name] for name in rows if name in found}
