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
from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.figures import figure1, figure10
from stages.reporting.formats import markdown, write_table
from stages.reporting.page import Content, Shown, page
from stages.reporting.paper_tables import PAPER_TABLES
from stages.reporting.reading import read_arrays, read_results
from stages.runtime.errors import run_stage
from stages.runtime.files import write_text
from stages.runtime.reuse import read_json
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.project import listed_suites, param, read_yaml
from stages.settings.rows import REPORTS, Row, listed_rows
from stages.settings.tables import TableKeys

__all__ = ["Elsewhere", "all_tables", "calibration_figures", "complete", "elsewhere", "readme", "report"]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts")
PACKAGES = ("torch", "torchvision", "kornia", "dvc", "numpy", "pandas", "scikit-learn", "matplotlib")
INTRO = """\
Networks trained on distilled data: how well their confidence agrees with their accuracy, before and after
calibration, for the tables and figures of "Rethinking Data Distillation: Do Not Overlook Calibration", beside
the paper's numbers where it has some. Nothing was chosen on test images, but for what is called an oracle.
Every number links to its row's settings."""


class Elsewhere(NamedTuple):
    """A row that did not run here."""

    row: Row
    results: dict[str, dict]  # of `evaluate`, and of `ablate` if that ran
    folder: Path  # of its report


def report() -> None:
    """Write reports/tables, reports/figures/calibration, reports/README.md and reports/index.html."""
    rows = {row.name: row for row in listed_rows()}
    others = elsewhere()
    tables = all_tables(rows, others)
    for name, table in tables.items():
        write_table(table, REPORTS / "tables" / name)
    write_figures(calibration_figures(rows), REPORTS / "figures" / "calibration")
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

    Args:
        rows: the rows that run here, in the tables' order.
        others: the rows that did not run here, which follow them.
    """
    results = all_results(rows, others)
    tables = {name: table(results) for name, table in PAPER_TABLES.items()}
    tables |= {
        "starts": further_tables.starts(results.rows, all_ablations(rows, others)),
        "intervals": further_tables.intervals(results),
        "overcalibration": further_tables.overcalibration(results),
        "outside": further_tables.outside(all_detections(rows)),
        "architectures": further_tables.architectures(
            tried_architectures(rows),
            read_results({name: row.architectures for name, row in rows.items()}),
        ),
        "scores": further_tables.scores(results),
    }
    return {name: table for name, table in tables.items() if len(table.text)}


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
    names = analysed("features")
    features = read_arrays({name: rows[name].features for name in names})
    return {name: detection(features[name]) if name in features else {} for name in names}


def tried_architectures(rows: dict[str, Row]) -> dict[str, list[str]]:
    """The networks that are tried on a row's set, by row."""
    names = analysed("architectures")
    return {name: rows[name].analysis("architectures", ArchitecturesKeys).networks for name in names}


def analysed(kind: str) -> list[str]:
    """The rows that the listed suites name under `features` or `architectures`."""
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
    for suite, keys_of_rows in suites.items():
        name = row_of_figure1(keys_of_rows)
        drawn[f"figure1-{name}"] = figure1(evaluated[name]["methods"], titles)
        by_ipc = {ipc: evaluated[name]["methods"] for ipc, name in plain_mtt(keys_of_rows).items()}
        if len(by_ipc) > 1:
            drawn[f"figure10-{suite}-mtt"] = figure10(by_ipc, titles)
    return drawn


def row_of_figure1(rows: dict[str, TableKeys]) -> str:
    """As in the paper the plain MTT row with the most images per class; the first row where there is none."""
    plain = plain_mtt(rows)
    return plain[max(plain)] if plain else next(iter(rows))


def plain_mtt(rows: dict[str, TableKeys]) -> dict[int, str]:
    """The first row of each number of images per class that MTT distilled without masks."""
    plain: dict[int, str] = {}
    for name, row in rows.items():
        if row.backbone == "mtt" and row.mdt == 0 and row.ipc is not None:
            plain.setdefault(row.ipc, name)
    return plain


def shown_figures() -> dict[str, Shown]:
    """The figures below reports/figures, by file name in the order of the paper."""
    paths = {path.stem: path for path in (REPORTS / "figures").glob("*/figure*.svg")}
    order = list(CAPTIONS)
    figures = {}
    for name in sorted(paths, key=lambda name: (order.index(name.split("-")[0]), name)):
        figure, subject = name.split("-", 1)
        title, caption = CAPTIONS[figure]
        number = figure.removeprefix("figure")
        figures[name] = Shown(f"Figure {number}: {title}, {subject}", caption, paths[name])
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
    sections = [f"## {table.title}\n\n{markdown(table)}" for table in content.tables.values()]
    links = [f"- [{shown.title}]({shown.path.relative_to(REPORTS)})" for shown in content.figures.values()]
    return "\n\n".join([head, *sections, "## Figures", "\n".join(links)]) + "\n"


def main() -> None:
    report()


if __name__ == "__main__":
    run_stage(main)
