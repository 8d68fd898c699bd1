"""The figures of reports/figures/calibration: which there are, and of which rows.

Figures 1 and 10, those of `choices` and `reach`, and all others of suites of which no row has run here.
"""

from stages.reporting.by_ipc import figure10
from stages.reporting.cells import METHODS, Results
from stages.reporting.choices import choices_figure, printed_ece
from stages.reporting.drawing import Drawn
from stages.reporting.figures_elsewhere import figures_elsewhere
from stages.reporting.gathered import Gathered
from stages.reporting.reach_figure import reach_figure
from stages.reporting.reliability import figure1
from stages.reporting.rows_of_figures import by_suite, row_of_figure1, rows_by_ipc
from stages.settings.tables import TableKeys

__all__ = ["calibration_figures"]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts", "shipped")
TITLES = {key: METHODS[key] for key in FIGURE1}


def calibration_figures(gathered: Gathered) -> dict[str, Drawn]:
    """All of them by file name, of the results that there are."""
    return {
        **reliability_figures(gathered.results),
        **figures_elsewhere(gathered),
        **choices_figures(gathered),
        **reach_figures(gathered),
    }


def reliability_figures(results: Results) -> dict[str, Drawn]:
    """Figures 1 and 10 of each suite."""
    drawn = {}
    for suite, keys in by_suite(results.rows, results.evaluated).items():
        has_shipped = {name for name in keys if results.method(name, "shipped")}
        name = row_of_figure1(keys, preferred=has_shipped)
        evaluated = results.evaluated[name]
        drawn[f"figure1-{name}"] = figure1(evaluated["methods"], TITLES, about_row(name, evaluated))
        groups = {}
        for subject, names in rows_by_ipc(keys).items():
            groups[subject] = {ipc: results.evaluated[name]["methods"] for ipc, name in names.items()}
        if groups:
            drawn[f"figure10-{suite}"] = figure10(groups, TITLES)
    return drawn


def about_row(name: str, evaluated: dict) -> str:
    """What a reliability diagram is of."""
    networks = len(evaluated["methods"]["raw"]["ece"])
    return f"{name}: {networks} networks, {evaluated['test_images']:,} test images each"


def choices_figures(gathered: Gathered) -> dict[str, Drawn]:
    """A figure of each row with results of `choices`."""
    rows = gathered.rows()
    drawn = {}
    for name, result in gathered.choices().items():
        if result:
            printed = printed_ece(rows[name].keys(TableKeys))
            drawn[f"figure_choices-{name}"] = choices_figure(result["entries"], printed)
    return drawn


def reach_figures(gathered: Gathered) -> dict[str, Drawn]:
    """A figure of each suite whose rows have results of `reach`."""
    rows = gathered.rows()
    suites: dict[str, dict[str, dict]] = {}
    for name, result in gathered.reached().items():
        if result:
            suites.setdefault(rows[name].suite.stem, {})[name] = result
    return {f"figure_reach-{suite}": reach_figure(reached) for suite, reached in suites.items()}
