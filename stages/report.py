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
from stages.reporting.ablation_figures import ablation_figures
from stages.reporting.by_ipc import figure10
from stages.reporting.captions import CAPTIONS
from stages.reporting.cells import METHODS, Results, Table, lr_and_step_size
from stages.reporting.choices import choices_figure, choices_table, met_by, printed_ece
from stages.reporting.claims import claims_table
from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.evidence import Evidence
from stages.reporting.findings import findings
from stages.reporting.formats import markdown, write_table
from stages.reporting.hero import hero, hero_row
from stages.reporting.main_readme import found, found_section, with_section
from stages.reporting.marks import marked, with_step_size
from stages.reporting.page import Content, Shown, page
from stages.reporting.page_tables import Facts
from stages.reporting.paper_cells import SUITES, hours_of_grid, paper_table
from stages.reporting.paper_tables import PAPER_TABLES, refer_to_choices
from stages.reporting.reach import reach_figure, shipped_table, without_images_table
from stages.reporting.reading import read_arrays, read_results
from stages.reporting.records import Made, made_elsewhere, made_here
from stages.reporting.reliability import figure1
from stages.reporting.rows_of_figures import row_of_figure1, rows_by_ipc
from stages.reporting.svg import description
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_text
from stages.runtime.reuse import read_json
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.project import listed_suites, param, read_yaml
from stages.settings.rows import REPORTS, Row, listed_rows
from stages.settings.tables import TableKeys

__all__ = [
    "Elsewhere",
    "all_results",
    "all_tables",
    "calibration_figures",
    "complete",
    "elsewhere",
    "readme",
    "report",
]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts", "shipped")
PACKAGES = ("torch", "torchvision", "kornia", "dvc", "numpy", "pandas", "scikit-learn", "matplotlib")
GRID = REPORTS / "benchmarks/grid.json"
INTRO = """\
Networks trained on distilled data: how well their confidence agrees with their accuracy, before and after
calibration, for the tables and figures of "Rethinking Data Distillation: Do Not Overlook Calibration", beside
the paper's numbers where it has some. Every number links to its row's settings.

Nothing was chosen on test images here, but for what is called an oracle and for Table 2's best of others, as
in the paper. The mask ratios of MTS are the paper's; its first author's public fork takes the ratio that does
best on the test set. What was in view while the digits' settings were tried is said in
`stages/calibrators/README.md`."""

PAGE = "The same as one page with all pictures: `index.html`."


class Elsewhere(NamedTuple):
    """A row that did not run here."""

    row: Row
    results: dict[str, dict]  # of `evaluate`, and of `ablate`, `choices` and `reach` if they ran
    folder: Path  # of its report


def report() -> None:
    """Write reports/tables, reports/figures/calibration, reports/README.md and reports/index.html.

    What was found is written to the main README, too, where that has a place for it.
    """
    rows = {row.name: row for row in listed_rows()}
    others = elsewhere()
    results = all_results(rows, others)
    evidence = all_evidence(results, rows, others)
    first = first_figure(evidence)
    figures = (
        first
        | calibration_figures(results, others)
        | choices_figures(rows, others)
        | reach_figures(rows, others)
    )
    write_figures(figures, REPORTS / "figures" / "calibration")
    shown = shown_figures()
    for name, drawn in first.items():
        shown[name] = shown[name]._replace(title=drawn.words["title"])
    tables = all_tables(results, rows, others)
    no_results = tuple(f"-{name}" for name in results.quick().rows)
    to_link = [name for name in shown if not name.endswith(no_results)]
    tables = {"claims": claims_table(evidence, [*tables, *to_link]), **tables}
    for name, table in tables.items():
        write_table(table, REPORTS / "tables" / name)
    content = Content(
        intro=introduction(others),
        tables=tables,
        figures=shown,
        rows=row_settings(rows, others),
        pictures=row_pictures(rows, others),
        settings=read_yaml(Path("params.yaml")),
        versions=versions(),
        findings=findings(evidence.results),
        hero=next(iter(first), None),
        facts=row_facts(results, rows, others),
        results=evidence.results,
        made=row_records(rows, others),
    )
    write_text(REPORTS / "README.md", readme(content))
    write_text(REPORTS / "index.html", page(content))
    write_main_readme(evidence.results, content)


def all_evidence(every_row: Results, rows: dict[str, Row], others: dict[str, Elsewhere]) -> Evidence:
    """What the paper's claims are judged by, without quick rows."""
    results = every_row.without_quick()
    looked_into = [name for name in analysed("features") if name in results.rows]
    decomposed = [name for name in analysed("svd") if name in results.rows]
    return Evidence(
        results=results,
        ablations=all_ablations(rows, others),
        features=read_arrays({name: rows[name].features for name in looked_into}),
        decomposed=read_results({name: rows[name].singular_values for name in decomposed}),
    )


def first_figure(evidence: Evidence) -> dict[str, Drawn]:
    """The figure that stands beside the findings, by its name; {} without results for it."""
    row = hero_row(evidence.results, evidence.ablations)
    if row is None:
        return {}
    return {f"figure_hero-{row}": hero(evidence.results, evidence.ablations, row)}


def write_main_readme(results: Results, content: Content) -> None:
    """Write what was found to README.md, between the two comments that it has for it."""
    path = Path("README.md")
    if not path.exists():
        return
    text = path.read_text()
    hero = hero_of(content, Path())
    changed = with_section(text, found_section(results, content.tables, hero))
    if changed != text:
        write_text(path, changed)


def hero_of(content: Content, folder: Path) -> tuple[str, Path] | None:
    """The title of the figure beside the findings, and its file as seen from a folder."""
    if not content.hero:
        return None
    shown = content.figures[content.hero]
    return shown.title, shown.path.relative_to(folder)


def elsewhere() -> dict[str, Elsewhere]:
    """The rows of suites that dvc.yaml does not list, as far as reports/*/metrics.json has their results."""
    names: set[str] = set()
    listed = listed_suites()
    for suite in Path("suites").glob("*.yaml"):
        if suite not in listed:
            names |= set(read_yaml(suite)["runs"])
    others = {}
    for file in sorted(REPORTS.glob("*/metrics.json")):
        for name, values in rows_of(file).items():
            # What was too large for the file is replaced there by a sentence.
            results = {kind: of_kind for kind, of_kind in values.items() if isinstance(of_kind, dict)}
            if name in names and complete(results.get("evaluate")):
                others[name] = Elsewhere(Row(name), results, file.parent)
    return others


def rows_of(file: Path) -> dict[str, dict]:
    """The results by row in a metrics.json.

    Raises:
        UserError: there are none in it.
    """
    values = read_json(file)
    rows = values.get("rows") if isinstance(values, dict) else None
    if not isinstance(rows, dict):
        raise UserError(
            f"{file}: rows: expected the results of rows; `python -m stages.tools.lent` writes them"
        )
    return rows


def complete(evaluated: dict | None) -> bool:
    """Whether there are results with intervals, which older versions did not write."""
    return evaluated is not None and "interval" in evaluated["methods"]["raw"]


def all_tables(every_row: Results, rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Table]:
    """Every table by its name, the paper's seven first; a table without lines is left out.

    Quick rows are in the table `quick` alone.

    Args:
        every_row: the rows in the tables' order, with what `evaluate` found.
        rows: the rows that run here.
        others: the rows that did not run here.
    """
    results = every_row.without_quick()
    reached = all_reached(rows, others)
    shown = {name: row for name, row in rows.items() if name in results.rows}
    tables = {name: table(results) for name, table in PAPER_TABLES.items()}
    rows_of_paper = rows_of_paper_suites()
    if rows_of_paper:
        tables["paper"] = paper_table(results, rows_of_paper, hours_of_grid(read_json(GRID)))
    tables |= {
        "starts": further_tables.starts(results.rows, all_ablations(shown, others)),
        "intervals": further_tables.intervals(results),
        "overcalibration": further_tables.overcalibration(results),
        "outside": further_tables.outside(all_detections(shown)),
        "architectures": further_tables.architectures(
            tried_architectures(shown),
            read_results({name: row.architectures for name, row in shown.items()}),
        ),
        "shipped": shipped_table(results.rows, reached),
        "without_images": without_images_table(results, reached),
        "choices": choices_table(results.rows, all_choices(rows, others)),
        "scores": further_tables.scores(results),
        "quick": further_tables.quick(every_row.quick()),
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
    """The rows with what `evaluate` found, as `place_of_row` orders them."""
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    evaluated = read_results({name: row.results for name, row in rows.items()})
    for name, other in others.items():
        keys[name] = other.row.keys(TableKeys)
        evaluated[name] = other.results["evaluate"]
    ordered = {name: keys[name] for name in sorted(keys, key=lambda name: place_of_row(keys[name]))}
    return Results(ordered, evaluated, param("calibrate.start"))


def place_of_row(row: TableKeys) -> tuple[int, int]:
    """Where a row stands among all: the paper's data sets are first, and of each the published rows."""
    budgets = ["published", "reduced", None, "quick"]
    suite = SUITES.index(row.suite) if row.suite in SUITES else len(SUITES)
    return suite, budgets.index(row.budget)


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


def calibration_figures(results: Results, others: dict[str, Elsewhere]) -> dict[str, Drawn]:
    """Figures 1 and 10 of each suite, and Figures 8 and 9 of what did not run here, of rows with results."""
    titles = {key: METHODS[key] for key in FIGURE1}
    drawn = {}
    for suite, keys in by_suite(results.rows, results.evaluated).items():
        has_shipped = {name for name in keys if results.method(name, "shipped")}
        name = row_of_figure1(keys, preferred=has_shipped)
        methods = results.evaluated[name]["methods"]
        drawn[f"figure1-{name}"] = figure1(methods, titles, about_row(name, results.evaluated[name]))
        groups = {}
        for subject, names in rows_by_ipc(keys).items():
            groups[subject] = {ipc: results.evaluated[name]["methods"] for ipc, name in names.items()}
        if groups:
            drawn[f"figure10-{suite}"] = figure10(groups, titles)
    ablations = {name: other.results["ablate"] for name, other in others.items() if "ablate" in other.results}
    for suite, keys in by_suite(results.without_quick().rows, ablations).items():
        of_suite = ablation_figures(keys, {name: ablations[name] for name in keys})
        drawn |= {f"{figure}-{suite}": of_figure for figure, of_figure in of_suite.items()}
    return drawn


def by_suite(rows: dict[str, TableKeys], results: dict[str, dict]) -> dict[str, dict[str, TableKeys]]:
    """The rows that have results, by suite."""
    suites: dict[str, dict[str, TableKeys]] = {}
    for name, keys in rows.items():
        if name in results:
            suites.setdefault(keys.suite, {})[name] = keys
    return suites


def about_row(name: str, evaluated: dict) -> str:
    """What a reliability diagram is of."""
    networks = len(evaluated["methods"]["raw"]["ece"])
    return f"{name}: {networks} networks, {evaluated['test_images']:,} test images each"


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
    """The figures below reports/figures, by file name: the paper's data sets first, in the paper's order."""
    paths = {path.stem: path for path in (REPORTS / "figures").glob("*/figure*.svg")}
    order = list(CAPTIONS)

    def place(name: str) -> tuple:
        figure, subject = name.split("-", 1)
        return subject.split("-")[0] not in SUITES, order.index(figure), name

    figures = {}
    for name in sorted(paths, key=place):
        figure, subject = name.split("-", 1)
        title, caption = CAPTIONS[figure]
        number = figure.removeprefix("figure")
        if number[0].isdigit():  # the paper's number
            title = f"Figure {number}: {title}"
        words = f"{caption} {description(paths[name].read_text())}".strip()
        figures[name] = Shown(f"{title}, {subject}", words, paths[name])
    return figures


def row_settings(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, dict[str, Any]]:
    """The settings of each row, as they stand in its suite."""
    every_row = [*rows.values(), *(other.row for other in others.values())]
    return {row.name: read_yaml(row.suite)["runs"][row.name] for row in every_row}


def row_facts(results: Results, rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, Facts]:
    """What stands beside every number of a row: what it is of, its files, and the command that makes it."""
    facts = {}
    for name, keys in results.rows.items():
        if name in others:
            files = [others[name].folder / "metrics.json"]
            commands = [f"python -m stages.tools.lent {name}"]
        else:
            files = [rows[name].results, rows[name].metrics]
            commands = ["dvc repro -s evaluate", f"python -m stages.tools.row {name}"]
        about = Facts(
            dataset=keys.dataset,
            backbone=keys.method,
            ipc="all" if keys.ipc is None else str(keys.ipc),
            step_size=lr_and_step_size(results, name),
            metrics=tuple(str(file) for file in files),
            commands=tuple(commands),
        )
        facts[name] = with_counts(about, results.evaluated.get(name))
    return facts


def with_counts(facts: Facts, evaluated: dict | None) -> Facts:
    """The facts of a row with the number of its networks and test images, if it has results."""
    if evaluated is None:
        return facts
    return facts._replace(
        networks=len(evaluated["methods"]["raw"]["ece"]),
        test_images=evaluated.get("test_images", 0),
        mask_ratio=f"{evaluated['mask_ratio']:g}",
    )


def row_records(rows: dict[str, Row], others: dict[str, Elsewhere]) -> dict[str, list[Made]]:
    """The runs that have made the files of each row, its buffer and its data set."""
    here = made_here()
    made = {}
    for name, row in rows.items():
        names = [row.value("dataset"), Path(row.value("reads")).name, name]
        made[name] = [run for of_name in dict.fromkeys(names) for run in here.get(of_name, [])]
    elsewhere = {folder: made_elsewhere(folder) for folder in {other.folder for other in others.values()}}
    for name, other in others.items():
        made[name] = elsewhere[other.folder].get(name, [])
    return made


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
    hero = hero_of(content, REPORTS)
    head = ["# Results", *found(content.findings, hero), content.intro, PAGE]
    tables = dict(content.tables)
    if "claims" in tables:
        tables["claims"] = with_links(content)
    sections = [readme_section(name, table) for name, table in tables.items()]
    links = [f"- [{shown.title}]({shown.path.relative_to(REPORTS)})" for shown in content.figures.values()]
    return "\n\n".join([*head, *sections, "## Figures", "\n".join(links)]) + "\n"


def with_links(content: Content) -> Table:
    """The table of claims with links to the files of the tables and figures that it names."""
    paths = {name: Path("tables") / f"{name}.md" for name in content.tables}
    for name, shown in content.figures.items():
        paths[name] = shown.path.relative_to(REPORTS)
    claims = content.tables["claims"]
    cells = []
    for cell in claims.text["See"]:
        names = [name for name in cell.split(", ") if name]
        cells.append(", ".join(f"[{name}]({paths[name]})" for name in names))
    return claims._replace(text=claims.text.assign(See=cells))


def readme_section(name: str, table: Table) -> str:
    """A table with its title and notes; of a long one, its title and where it stands."""
    if table.is_long:
        return f"## {table.title}\n\n{len(table.text)} lines: [tables/{name}.md](tables/{name}.md)."
    return f"## {table.title}\n\n{markdown(table)}"


def main() -> None:
    report()


if __name__ == "__main__":
    run_stage(main)
