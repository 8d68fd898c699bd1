"""Every table of the report, from the results of all rows."""

from collections.abc import Container

from stages.reporting import further_tables
from stages.reporting.by_data_set import summary
from stages.reporting.cells import Table
from stages.reporting.choices import choices_table, met_by
from stages.reporting.detection import detection
from stages.reporting.gathered import Gathered, asked_for, rows_of_paper_suites
from stages.reporting.iterations_table import iterations_table
from stages.reporting.marks import marked, with_step_size
from stages.reporting.paper_cells import hours_of_grid, paper_table
from stages.reporting.paper_tables import PAPER_TABLES, refer_to_choices
from stages.reporting.shipped_table import shipped_table
from stages.reporting.without_images_table import without_images_table
from stages.runtime.reuse import read_json
from stages.settings.rows import REPORTS

__all__ = ["GRID", "every_table"]

GRID = REPORTS / "benchmarks/grid.json"


def every_table(gathered: Gathered) -> dict[str, Table]:
    """Every table by its name, the paper's seven first; a table without lines is left out.

    Quick rows are in the table `quick` alone.
    """
    results = gathered.results.without_quick()
    reached = gathered.reached()
    ablations = {name: found for name, found in gathered.ablations().items() if name in results.rows}
    tables = {name: table(results) for name, table in PAPER_TABLES.items()}
    rows_of_paper = rows_of_paper_suites()
    if rows_of_paper:
        tables["paper"] = paper_table(results, rows_of_paper, hours_of_grid(read_json(GRID)))
    tables |= {
        "summary": summary(results),
        "iterations": iterations_table(results, ablations),
        "starts": further_tables.starts(results.rows, ablations),
        "intervals": further_tables.intervals(results),
        "overcalibration": further_tables.overcalibration(results),
        "outside": further_tables.outside(detections(gathered, results.rows)),
        "architectures": further_tables.architectures(
            gathered.tried_architectures(results.rows), gathered.architectures()
        ),
        "shipped": shipped_table(results.rows, reached),
        "without_images": without_images_table(results, reached),
        "choices": choices_table(results.rows, gathered.choices()),
        "scores": further_tables.scores(results),
        "quick": further_tables.quick(gathered.results.quick()),
    }
    tables = {name: table for name, table in tables.items() if len(table.text)}
    for name, table in tables.items():
        tables[name] = marked(with_step_size(table, results), results)
    if "choices" in tables:
        refer_to_choices(tables, met_by(tables["choices"].numbers))
    return tables


def detections(gathered: Gathered, names: Container[str]) -> dict[str, dict[str, list[float]]]:
    """How well the networks of some rows tell images outside the distribution; {} without a result."""
    features = gathered.features(names)
    asked = [name for name in asked_for("features") if name in names]
    shown = dict.fromkeys([*asked, *features])
    return {name: detection(features[name]) if name in features else {} for name in shown}
