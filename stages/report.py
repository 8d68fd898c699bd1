"""report: results of all rows -> tables, Figures 1 and 10, README and page below reports/.

    python -m stages.report

It shows the rows of the suites that dvc.yaml lists; a row without results shows as missing. Rows of other
suites are shown where a reports/<folder>/metrics.json has their results (`stages.tools.lent` writes them).
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from stages.reporting import further_tables
from stages.reporting.captions import CAPTIONS
from stages.reporting.cells import METHODS, Results, Table
from stages.reporting.choices import choices_figure, choices_table, met_by, printed_ece
from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.figures import figure1, figure10
from stages.reporting.formats import markdown, write_table
from stages.reporting.marks import marked, with_step_size
from stages.reporting.page import Content, Shown, page
from stages.reporting.paper_cells import SUITES, paper_table
from stages.reporting.paper_tables import PAPER_TABLES, refer_to_choices
from stages.reporting.reach import reach_figure, shipped_table, without_images_table
from stages.reporting.reading import read_arrays, read_results
from stages.reporting.rows_of_figures import row_of_figure1, rows_by_ipc
from stages.runtime.errors import run_stage
from stages.runtime.files import write_text
from stages.runtime.reuse import read_json
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.project import listed_suites, param, read_yaml
from stages.settings.rows import REPORTS, Row, listed_rows
from stages.settings.tables import TableKeys

__all__ = ["Elsewhere", "all_tables", "calibration_figures", "complete", "elsewhere", "readme", "report"]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts", "shipped")
PACKAGES = ("torch", "torchvision", "kornia", "dvc", "numpy", "pandas", "scikit-learn", "matplotlib")
INTRO = """\
Networks trained on distilled data: how well their confidence agrees with their accuracy, before and after
calibration, for the tables and figures of "Rethinking Data Distillation: Do Not Overlook Calibration", beside
the paper's numbers where it has some. Every number links to its row's settings.

Nothing was chosen on test images here, but for what is called an oracle and for Table 2's best of others, as
in the paper. The mask ratios of MTS are the paper's; its first author's public fork takes the ratio that does
best on the test set. What was in view while the digits' settings were tried is said in
`stages/calibrators/README.md`."""


class Elsewhere(NamedTuple):
    """A row that did not run here."""

    row: Row
    results: dict[str, dict]  # of `evaluate`, and of `ablate`, `choices` and `reach` if they ran
    folder: Path  # of its report


def report() -> None:
    """Write reports/tables, reports/figures/calibration, reports/README.md and reports/index.html."""
    rows = {row.name: row for row in listed_rows()}
    others = elsewhere()
    tables = all_tables(rows, others)
    for name, table in tables.items():
        write_table(table, REPORTS / "tables" / name)
    figures = calibration_figures(rows) | choices_figures(rows, others) | reach_figures(rows, others)
    write_figures(figures, REPORTS / "figures" / "calibration")
    content = Content(
        intro=introduction(others),
        tables=tables,
        figures=shown_figures(),
        rows=row_settings(rows, others),
        pictures=row_pictures(rows, others),
        settings=read_yaml(Path("params.yaml")),
        versions=versions(),
    )
    write_text(REPORTS / "README.md", readme(content))
    write_text(REPORTS / "index.html", page(content))


def elsewhere() -> dict[str, Elsewhere]:
    """The rows of suites that dvc.yaml does not list, as far as reports/*/metrics.json has their results."""
    names: set[str] = set()
    listed = listed_suites()
    for suite in Path("suites").glob("*.yaml"):
        if suite not in listed:
            names |= set(read_yaml(suite)["runs"])
    others = {}
    for file in sorted(REPORTS.glob("*/metrics.json")):
        for name, values in read_json(file)["rows"].items():
            # What was too large for the file is replaced there by a sentence.
            results = {kind: of_kind for kind, of_kind in values.items() if isinstance(of_kind, dict)}
            if name in names and complete(results.get("evaluate")):
                others[name] = Elsewhere(Row(name), results, file.parent)
    return others


def complete(evaluated: dict | None) -> bool:
    """Whether there are results with intervals, which older versions did not write."""
    return evaluated is not None and "interval" in evaluated["methods"]["raw"]


def all_tables(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Table]:
    """Every table by its name, the paper's seven first; a table without lines is left out.

    Quick rows are in the table `quick` alone.

    Args:
        rows: the rows that run here, in the tables' order.
        others: the rows that did not run here, which follow them.
    """
    of_all_rows = all_results(rows, others)
    results = of_all_rows.without_quick()
    shown = {name: row for name, row in rows.items() if name in results.rows}
    tables = {name: table(results) for name, table in PAPER_TABLES.items()}
    rows_of_paper = rows_of_paper_suites()
    if rows_of_paper:
        tables["paper"] = paper_table(results, rows_of_paper)
    tables |= {
        "starts": further_tables.starts(results.rows, all_ablations(shown, others)),
        "intervals": further_tables.intervals(results),
        "overcalibration": further_tables.overcalibration(results),
        "outside": further_tables.outside(all_detections(shown)),
        "architectures": further_tables.architectures(
            tried_architectures(shown),
            read_results({name: row.architectures for name, row in shown.items()}),
        ),
        "shipped": shipped_table(results.rows, all_reached(rows, others)),
        "without_images": without_images_table(results, all_reached(rows, others)),
        "choices": choices_table(results.rows, all_choices(rows, others)),
        "scores": further_tables.scores(results),
        "quick": further_tables.quick(of_all_rows.quick()),
    }
    tables = {name: table for name, table in tables.items() if len(table.text)}
    for name, table in tables.items():
        tables[name] = marked(with_step_size(table, results), results)
    if "choices" in tables:
        refer_to_choices(tables, met_by(tables["choices"].numbers))
    return tables


def rows_of_paper_suites() -> dict[str, TableKeys]:
    """Every row of the suites that the paper has numbers for, whether it has results or not."""
    rows = {}
    for suite in sorted(Path("suites").glob("*.yaml")):
        if suite.stem in SUITES:
            for name in read_yaml(suite)["runs"]:
                rows[name] = Row(name).keys(TableKeys)
    return rows


def all_results(rows: dict[str, Row], others: dict[str, Elsewhere]) -> Results:
    """The rows with what `evaluate` found."""
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    evaluated = read_results({name: row.results for name, row in rows.items()})
    for name, other in others.items():
        keys[name] = other.row.keys(TableKeys)
        evaluated[name] = other.results["evaluate"]
    return Results(keys, evaluated, param("calibrate.start"))


def all_ablations(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, dict]:
    """What `ablate` found, by row."""
    ablations = read_results({name: row.ablation for name, row in rows.items()})
    for name, other in others.items():
        if "ablate" in other.results:
            ablations[name] = other.results["ablate"]
    return ablations


def all_detections(rows: dict[str, Row]) -> dict[str, dict[str, list[float]]]:
    """How well the networks of `features` tell images outside the distribution; {} without a result."""
    names = [name for name in analysed("features") if name in rows]
    features = read_arrays({name: rows[name].features for name in names})
    return {name: detection(features[name]) if name in features else {} for name in names}


def tried_architectures(rows: dict[str, Row]) -> dict[str, list[str]]:
    """The networks that are tried on a row's set, by row."""
    names = [name for name in analysed("architectures") if name in rows]
    return {name: rows[name].analysis("architectures", ArchitecturesKeys).networks for name in names}


def all_choices(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, dict]:
    """What `choices` found, by row; {} without a result."""
    listed = {name: rows[name].choices for name in analysed("choices")}
    found: dict[str, dict] = dict.fromkeys(listed, {}) | read_results(listed)
    for name, other in others.items():
        if "choices" in other.results:
            found[name] = other.results["choices"]
    return found


def all_reached(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, dict]:
    """What `reach` found, by row; {} without a result."""
    listed = {name: rows[name].reach for name in analysed("reach")}
    found: dict[str, dict] = dict.fromkeys(listed, {}) | read_results(listed)
    for name, other in others.items():
        if "reach" in other.results:
            found[name] = other.results["reach"]
    return found


def analysed(kind: str) -> list[str]:
    """The rows that the listed suites name under `features`, `architectures`, `reach` or `choices`."""
    names: list[str] = []
    for suite in listed_suites():
        names += read_yaml(suite).get(kind) or {}
    return names


def calibration_figures(rows: dict[str, Row]) -> dict[str, Drawn]:
    """Figures 1 and 10 of each suite, as far as its rows have results."""
    evaluated = read_results({name: row.results for name, row in rows.items()})
    suites: dict[str, dict[str, TableKeys]] = {}
    for name in evaluated:
        keys = rows[name].keys(TableKeys)
        suites.setdefault(keys.suite, {})[name] = keys
    titles = {key: METHODS[key] for key in FIGURE1}
    drawn = {}
    for keys_of_rows in suites.values():
        name = row_of_figure1(keys_of_rows)
        drawn[f"figure1-{name}"] = figure1(evaluated[name]["methods"], titles)
        for subject, names in rows_by_ipc(keys_of_rows).items():
            by_ipc = {ipc: evaluated[name]["methods"] for ipc, name in names.items()}
            drawn[f"figure10-{subject}"] = figure10(by_ipc, titles)
    return drawn


def choices_figures(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Drawn]:
    """A figure of each row with results of `choices`."""
    drawn = {}
    for name, result in all_choices(rows, others).items():
        if result:
            row = rows[name] if name in rows else others[name].row
            printed = printed_ece(row.keys(TableKeys))
            drawn[f"figure_choices-{name}"] = choices_figure(result["entries"], printed)
    return drawn


def reach_figures(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Drawn]:
    """A figure of each suite whose rows have results of `reach`."""
    suites: dict[str, dict[str, dict]] = {}
    for name, result in all_reached(rows, others).items():
        if result:
            row = rows[name] if name in rows else others[name].row
            suites.setdefault(row.suite.stem, {})[name] = result
    return {f"figure_reach-{suite}": reach_figure(reached) for suite, reached in suites.items()}


def shown_figures() -> dict[str, Shown]:
    """The figures below reports/figures, by file name in the order of the paper."""
    paths = {path.stem: path for path in (REPORTS / "figures").glob("*/figure*.svg")}
    order = list(CAPTIONS)
    figures = {}
    for name in sorted(paths, key=lambda name: (order.index(name.split("-")[0]), name)):
        figure, subject = name.split("-", 1)
        title, caption = CAPTIONS[figure]
        number = figure.removeprefix("figure")
        if number[0].isdigit():  # the paper's number
            title = f"Figure {number}: {title}"
        figures[name] = Shown(f"{title}, {subject}", caption, paths[name])
    return figures


def row_settings(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, dict[str, Any]]:
    """The settings of each row, as they stand in its suite."""
    every_row = [*rows.values(), *(other.row for other in others.values())]
    return {row.name: read_yaml(row.suite)["runs"][row.name] for row in every_row}


def row_pictures(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Path]:
    """The pictures of the distilled sets, of the rows that have one."""
    paths = {name: row.picture for name, row in rows.items()}
    for name, other in others.items():
        paths[name] = other.folder / "distilled" / f"{name}.png"
    return {name: path for name, path in paths.items() if path.exists()}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    packages = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **packages}


def introduction(others: dict[str, Elsewhere]) -> str:
    """What the results are, which rows did not run here, and where to read how those ran."""
    if not others:
        return INTRO
    names = ", ".join(f"`{name}`" for name in others)
    folders = dict.fromkeys(other.folder.relative_to(REPORTS) for other in others.values())
    files = ", ".join(f"`{folder / 'README.md'}`" for folder in folders)
    made = f"Made by themselves, not by this run: {names}."
    return f"{INTRO}\n\n{made} Their budgets, machines and times are in {files}."


def readme(content: Content) -> str:
    """The tables, and links to the figures, for the repository's web page."""
    head = f"# Results\n\n{content.intro}\n\nThe same as one page with all pictures: `index.html`."
    sections = [readme_section(name, table) for name, table in content.tables.items()]
    links = [f"- [{shown.title}]({shown.path.relative_to(REPORTS)})" for shown in content.figures.values()]
    return "\n\n".join([head, *sections, "## Figures", "\n".join(links)]) + "\n"


def readme_section(name: str, table: Table) -> str:
    """A table with its title and notes; of a long one, its title and where it stands."""
    if table.is_long:
        return f"## {table.title}\n\n{len(table.text)} lines: [tables/{name}.md](tables/{name}.md)."
    return f"## {table.title}\n\n{markdown(table)}"


def main() -> None:
    report()


if __name__ == "__main__":
    run_stage(main)
