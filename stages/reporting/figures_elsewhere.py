"""Figures 2 to 9, 12 and 13 of suites of which no row has run here; `analyses` draws those of the others."""

from collections.abc import Iterable
from typing import TypeVar

from stages.reporting.ablation_figures import ablation_figures
from stages.reporting.drawing import Drawn
from stages.reporting.feature_figures import feature_figures
from stages.reporting.gathered import Gathered, features_elsewhere, found_elsewhere
from stages.reporting.singular_value_figures import singular_value_figures
from stages.settings.tables import TableKeys

__all__ = ["figures_elsewhere"]

T = TypeVar("T")


def figures_elsewhere(gathered: Gathered) -> dict[str, Drawn]:
    """The figures by file name, of the results that there are."""
    ran_here = {row.suite.stem for row in gathered.here.values() if row.results.exists()}
    suites: dict[str, dict[str, TableKeys]] = {}
    for name, row in gathered.results.without_quick().rows.items():
        if name in gathered.elsewhere and row.suite not in ran_here:
            suites.setdefault(row.suite, {})[name] = row
    drawn = {}
    for suite, rows in suites.items():
        for figure, of_figure in suite_figures(rows, gathered).items():
            drawn[f"{figure}-{suite}"] = of_figure
    return drawn


def suite_figures(rows: dict[str, TableKeys], gathered: Gathered) -> dict[str, Drawn]:
    """The figures of some rows."""
    ablations = of_rows(rows, found_elsewhere(gathered.elsewhere, "ablate"))
    decomposed = of_rows(rows, found_elsewhere(gathered.elsewhere, "svd"))
    features = of_rows(rows, features_elsewhere(gathered.elsewhere))
    drawn = ablation_figures(rows, ablations) | singular_value_figures(rows, decomposed)
    if features:
        arrays = {name: found.arrays for name, found in features.items()}
        classes = next(iter(features.values())).classes
        drawn |= feature_figures(rows, arrays, classes)
    return drawn


def of_rows(rows: Iterable[str], found: dict[str, T]) -> dict[str, T]:
    """What was found on some rows, in their order."""
    return {name: found[name] for name in rows if name in found}
