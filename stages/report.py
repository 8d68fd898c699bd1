"""report: results of all rows -> tables, Figures 1 and 10, README and page below reports/.

    python -m stages.report

It shows the rows of the suites that dvc.yaml lists; a row without results shows as missing. Results that a
reports/<folder>/metrics.json has of a row, of any suite, are shown where there are none here
(`stages.tools.lent` writes such files).
"""

import platform
from importlib.metadata import version
from pathlib import Path

from stages.reporting.about_rows import row_facts, row_pictures, row_records, row_settings
from stages.reporting.calibration_figures import calibration_figures
from stages.reporting.captions import CAPTIONS
from stages.reporting.claims import claims_table
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.every_table import every_table
from stages.reporting.evidence import Evidence
from stages.reporting.findings import findings
from stages.reporting.formats import write_table
from stages.reporting.gathered import Elsewhere, Gathered, gather
from stages.reporting.hero import hero, hero_row
from stages.reporting.main_readme import found_section, with_section
from stages.reporting.page import Content, Shown, page
from stages.reporting.paper_cells import SUITES
from stages.reporting.readme import hero_of, readme
from stages.reporting.svg import description
from stages.runtime.errors import run_stage
from stages.runtime.files import write_text
from stages.settings.project import read_yaml
from stages.settings.rows import REPORTS

__all__ = ["report"]

PACKAGES = ("torch", "torchvision", "kornia", "dvc", "numpy", "pandas", "scikit-learn", "matplotlib")
INTRO = """\
Networks trained on distilled data: how well their confidence agrees with their accuracy, before and after
calibration, for the tables and figures of "Rethinking Data Distillation: Do Not Overlook Calibration", beside
the paper's numbers where it has some. On the page, every number of a row links to the row's settings.

Nothing was chosen on test images here, but for what is called an oracle; for the best of other methods, in
Table 2 as in the paper and in the claims about it; and for how MTT's two released sets of CIFAR-10 had been
normalised (`stages/images/released.yaml`). The mask ratios of MTS are the paper's; the digits,
which the paper does not have, have 0.1. The first author's public fork takes the ratio that does best on the
test set. What was in view while the digits' settings were tried is said in `stages/calibrators/README.md`."""


def report() -> None:
    """Write reports/tables, reports/figures/calibration, reports/README.md and reports/index.html.

    What was found is written to the main README, too, where that has a place for it.
    """
    gathered = gather()
    evidence = all_evidence(gathered)
    first = first_figure(evidence)
    write_figures(first | calibration_figures(gathered), REPORTS / "figures" / "calibration")
    content = page_content(gathered, evidence, first)
    for name, table in content.tables.items():
        write_table(table, REPORTS / "tables" / name)
    write_text(REPORTS / "README.md", readme(content))
    write_text(REPORTS / "index.html", page(content))
    write_main_readme(evidence, content)


def all_evidence(gathered: Gathered) -> Evidence:
    """What the paper's claims are judged by, without quick rows."""
    results = gathered.results.without_quick()
    return Evidence(
        results=results,
        ablations=gathered.ablations(),
        features=gathered.features(results.rows),
        decomposed=gathered.decomposed(results.rows),
    )


def first_figure(evidence: Evidence) -> dict[str, Drawn]:
    """The figure that stands beside the findings, by its name; {} without results for it."""
    row = hero_row(evidence.results, evidence.ablations)
    if row is None:
        return {}
    return {f"figure_hero-{row}": hero(evidence.results, evidence.ablations, row)}


def page_content(gathered: Gathered, evidence: Evidence, first: dict[str, Drawn]) -> Content:
    """All that the page and the README below reports/ show.

    Args:
        first: the figure that stands beside the findings.
    """
    shown = shown_figures()
    for name, drawn in first.items():
        shown[name] = shown[name]._replace(title=drawn.words["title"])
    tables = every_table(gathered)
    no_results = tuple(f"-{name}" for name in gathered.results.quick().rows)
    to_link = [name for name in shown if not name.endswith(no_results)]
    return Content(
        intro=introduction(gathered.elsewhere),
        tables={"claims": claims_table(evidence, [*tables, *to_link]), **tables},
        figures=shown,
        rows=row_settings(gathered),
        pictures=row_pictures(gathered),
        settings=read_yaml(Path("params.yaml")),
        versions=versions(),
        findings=findings(evidence),
        hero=next(iter(first), None),
        facts=row_facts(gathered),
        results=evidence.results,
        made=row_records(gathered),
    )


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
    made = f"Not built by `dvc repro` here, but row by row with `python -m stages.tools.lent`: {names}."
    return f"{INTRO}\n\n{made} Their budgets, machines and times are in {files}."


def write_main_readme(evidence: Evidence, content: Content) -> None:
    """Write what was found to README.md, between the two comments that it has for it."""
    path = Path("README.md")
    if not path.exists():
        return
    text = path.read_text()
    hero = hero_of(content, Path())
    section = found_section(content.findings, evidence.results, content.tables, hero)
    changed = with_section(text, section)
    if changed != text:
        write_text(path, changed)


def main() -> None:
    report()


if __name__ == "__main__":
    run_stage(main)
