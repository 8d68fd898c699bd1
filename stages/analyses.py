"""analyses: ablations, singular values and features of the rows -> Figures 2 to 9, 12 and 13 of each suite.

    python -m stages.analyses

The figures are of the suites that dvc.yaml lists, as far as their rows have results. Quick rows have figures
of their own, whose names end in `-quick`. A figure is drawn again only when it has changed. `report` draws
Figures 1 and 10, and those of suites whose rows did not run here.
"""

from pathlib import Path

from stages.reporting.analysis_figures import analysis_figures
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.reading import read_arrays, read_results
from stages.runtime.errors import run_stage
from stages.runtime.files import read_about
from stages.settings.project import listed_suites, read_yaml
from stages.settings.rows import REPORTS, Row
from stages.settings.tables import TableKeys

__all__ = ["suite_figures"]


def suite_figures(suite: Path) -> dict[str, Drawn]:
    """The figures of a suite by file name, of the results that there are."""
    values = read_yaml(suite)
    rows = {name: Row(name) for name in values["runs"]}
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    quick = {name: row for name, row in keys.items() if row.budget == "quick"}
    others = {name: row for name, row in keys.items() if row.budget != "quick"}
    drawn: dict[str, Drawn] = {}
    for subject, kept in ((suite.stem, others), (f"{suite.stem}-quick", quick)):
        ablated = {name: rows[name].ablation for name in kept}
        decomposed = {name: rows[name].singular_values for name in values.get("svd") or {} if name in kept}
        looked_into = {name: rows[name].features for name in values.get("features") or {} if name in kept}
        features = read_arrays(looked_into)
        classes = read_about(looked_into[next(iter(features))])["classes"] if features else []
        results = (read_results(ablated), read_results(decomposed), features)
        drawn |= analysis_figures(subject, kept, *results, classes)
    return drawn


def analyses() -> None:
    """Write reports/figures/analyses."""
    drawn: dict[str, Drawn] = {}
    for suite in listed_suites():
        drawn |= suite_figures(suite)
    write_figures(drawn, REPORTS / "figures" / "analyses")


def main() -> None:
    analyses()


if __name__ == "__main__":
    run_stage(main)
