"""report: results of all rows -> tables, Figures 1 and 10, README and page under reports/.

    python -m stages.report

Shows the rows of the suites that dvc.yaml lists; a row without results shows as missing. Rows of other suites are shown where
reports/<folder>/metrics.json has their results (`benchmarks/paper_cifar10.py` leaves them). Imports no training code.
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import yaml
from safetensors.numpy import load_file

from stages import tables
from stages.analyses import detection, read, read_json
from stages.figures import figure1, figure10, write_figures
from stages.page import Shown, page
from stages.shared.errors import run_stage
from stages.shared.files import write_text
from stages.shared.settings import listed_suites, pick, read_yaml
from stages.tables import METHODS, Row, Table

__all__ = ["all_tables", "calibration_figures", "readme", "report", "write_table"]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts")
PAPER_TABLES = ("table1", "table2", "table3", "table4", "table5", "table6", "table7")
PACKAGES = ("torch", "torchvision", "kornia", "dvc", "numpy", "pandas", "scikit-learn", "matplotlib")
INTRO = """Networks trained on distilled data: how well their confidence agrees with their accuracy, before and after calibration, for the
tables and figures of "Rethinking Data Distillation: Do Not Overlook Calibration", beside the paper's numbers where it has some.
Nothing was chosen on test images, but for what is called an oracle. Every number links to its row's settings."""
CAPTIONS = {
    "figure1": ("Reliability diagrams", "Accuracy by confidence in ten bins, all networks of the row together; below, the share of samples."),
    "figure2a": ("Maximum logits", "On test images: networks of the full data (FDNN) and of distilled data (DDNN)."),
    "figure2b": ("Maximum probabilities in and out of distribution", "Before and after masked distillation training (MDT)."),
    "figure3": ("Accuracy without the largest singular values", "Networks trained on what is left of the data."),
    "figure4": ("t-SNE of each block's output", "Test images, by class: networks of the full data and of distilled data."),
    "figure5": ("Accuracy without the largest singular values, with MDT", "As Figure 3, for sets distilled with and without masks."),
    "figure6": ("t-SNE of each block's output, with MDT", "As Figure 4, for sets distilled with and without masks."),
    "figure7": ("Maximum logits on masked images", "As Figure 2a, and of the DDNN on the distilled images under masks. Figure 12a is this for another data set."),
    "figure8": ("ECE by mask ratio of MTS", "Early-stopped as in the paper, and the exact optimum on the same masked images. Each row has its own scale."),
    "figure9": ("ECE by the share of images that MTS is fitted on", "At the row's own mask ratio. Each row has its own scale."),
    "figure10": ("ECE by images per class", "Mean and standard deviation over networks."),
    "figure12b": ("t-SNE by training loss", "As Figure 6, for networks trained with mixup, label smoothing and focal loss."),
    "figure13": ("Cumulative explained ratio of singular values", "Of the largest sets of each kind."),
}


class Elsewhere(NamedTuple):
    """A row that did not run here."""

    row: dict  # its settings, as in `suites/*.yaml`
    results: dict[str, dict]  # of `evaluate`, and of `ablate` if that ran
    folder: Path  # of its report


def elsewhere(folder: Path, suites: dict[str, dict]) -> dict[str, Elsewhere]:
    """The rows of `suites` that have results in `<folder>/*/metrics.json`, as they stand there."""
    known, found = {name: values for suite in suites.values() for name, values in suite["runs"].items()}, {}
    for file in sorted(folder.glob("*/metrics.json")):
        rows = {name: {kind: of for kind, of in results.items() if isinstance(of, dict)} for name, results in read_json(file)["rows"].items() if name in known}
        found |= {name: Elsewhere(known[name], results, file.parent) for name, results in rows.items() if complete(results.get("evaluate"))}
    return found


def complete(results: dict | None) -> bool:
    """Whether they have the intervals, which those of older versions have not."""
    return results is not None and "interval" in results["methods"]["raw"]


def all_tables(suites: dict[str, dict], data: Path, start: float, others: dict[str, Elsewhere]) -> dict[str, Table]:
    """Every table by its name: the paper's seven, then what it left out.

    Args:
        suites: by name, as in `suites/*.yaml`, in the tables' order.
        data: folder of `evaluate/`, `ablate/` and `features/`.
        start: first temperature of the LBFGS runs.
        others: rows that did not run here, by name.
    """
    rows = {name: pick(Row, values, f"{suite}: runs.{name}") for suite, entries in suites.items() for name, values in entries["runs"].items()}
    tried = {name: values["networks"] for entries in suites.values() for name, values in entries["architectures"].items()}
    seen = [name for entries in suites.values() for name in entries["features"]]
    results, ablations = (read(data / kind, rows, "json", read_json) for kind in ("evaluate", "ablate"))
    rows |= {name: pick(Row, other.row, f"runs.{name}") for name, other in others.items()}
    results |= {name: other.results["evaluate"] for name, other in others.items()}
    ablations |= {name: other.results["ablate"] for name, other in others.items() if "ablate" in other.results}
    trials = read(data / "evaluate" / "architectures", tried, "json", read_json)
    found = read(data / "features", seen, "safetensors", load_file)
    paper = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())
    return {name: getattr(tables, name)(rows, results, paper, start) for name in PAPER_TABLES} | {
        "starts": tables.starts(rows, ablations),
        "intervals": tables.intervals(rows, results, start),
        "overcalibration": tables.overcalibration(rows, results, start),
        "outside": tables.outside({name: detection(found[name]) if name in found else {} for name in seen}),
        "architectures": tables.architectures(tried, trials),
        "scores": tables.scores(rows, results, start),
    }


def calibration_figures(suite: str, entries: dict, results: dict[str, dict]) -> dict:
    """Figure 1 of each row with results, and Figure 10 of each backbone with several counts of images per class."""
    rows = {name: pick(Row, values, f"{suite}: runs.{name}") for name, values in entries["runs"].items() if name in results}
    titles = {key: METHODS[key] for key in FIGURE1}
    drawn = {f"figure1-{name}": figure1(results[name]["methods"], titles) for name in rows}
    for backbone in dict.fromkeys(row.backbone for row in rows.values()):
        plain = {row.ipc: results[name]["methods"] for name, row in rows.items() if row.backbone == backbone and row.mdt == 0}
        if len(plain) > 1:
            drawn[f"figure10-{suite}-{backbone}"] = figure10(plain, titles)
    return drawn


def report(suites: dict[str, dict], params: dict, data: Path, folder: Path, unlisted: dict[str, dict] | None = None) -> None:
    """Write `<table>.{csv,md,tex}`, `figures/calibration/*.{svg,png,csv}`, `README.md` and `index.html` to `folder`.

    Args:
        suites: by name, as in `suites/*.yaml`.
        params: `params.yaml`.
        data: folder of the stages' results.
        folder: it may hold `figures/analyses/` and `distilled/`, which are shown too, and results of unlisted suites.
        unlisted: the suites that dvc.yaml does not list, by name.
    """
    others = elsewhere(folder, unlisted or {})
    found = all_tables(suites, data, params["calibrate"]["start"], others)
    for name, table in found.items():
        write_table(table, folder / name)
    drawn = {}
    for suite, entries in suites.items():
        drawn |= calibration_figures(suite, entries, read(data / "evaluate", entries["runs"], "json", read_json))
    write_figures(drawn, folder / "figures" / "calibration")
    shown = shown_figures(folder / "figures")
    rows = {name: values for entries in suites.values() for name, values in entries["runs"].items()}
    pictures = {name: path for name in rows if (path := folder / "distilled" / f"{name}.png").exists()}
    rows |= {name: other.row for name, other in others.items()}
    pictures |= {name: path for name, other in others.items() if (path := other.folder / "distilled" / f"{name}.png").exists()}
    intro = INTRO + (f"\n\n{introduced(others, folder)}" if others else "")
    versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    write_text(folder / "README.md", readme(found, shown, folder, intro))
    write_text(folder / "index.html", page(found, shown, rows, pictures, params, versions, intro))


def shown_figures(folder: Path) -> dict[str, Shown]:
    """What lies in the folder's folders, in the order of the paper: `figure<number>-<of what>` -> title, caption and SVG file."""
    paths = {path.stem: path for path in folder.glob("*/figure*.svg")}
    order = sorted(paths, key=lambda name: ([*CAPTIONS].index(name.split("-")[0]), name))
    return {name: Shown(f"Figure {name.split('-')[0][6:]}: {CAPTIONS[name.split('-')[0]][0]}, {name.split('-', 1)[1]}", CAPTIONS[name.split("-")[0]][1], paths[name]) for name in order}


def write_table(table: Table, path: Path) -> None:
    """A table three times: numbers as CSV, text as Markdown and LaTeX."""
    write_text(path.with_suffix(".csv"), table.numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(path.with_suffix(".md"), markdown(table))
    write_text(path.with_suffix(".tex"), latex(table))


def introduced(others: dict[str, Elsewhere], folder: Path) -> str:
    """Which rows did not run here, and where to read how they ran."""
    names, reports = ", ".join(f"`{name}`" for name in others), dict.fromkeys(f"`{(other.folder / 'README.md').relative_to(folder)}`" for other in others.values())
    return f"Made by themselves, not by this run: {names}. Their budgets, machines and times are in {', '.join(reports)}."


def readme(found: dict[str, Table], figures: dict[str, Shown], folder: Path, about: str) -> str:
    """The tables and links to the figures, as the repository's web page shows them."""
    pictures = [f"- [{shown.title}]({shown.path.relative_to(folder)})" for shown in figures.values()]
    intro = f"# Results\n\n{about}\n\nThe same as one page with all pictures: `index.html`."
    return "\n\n".join([intro, *(f"## {table.title}\n\n{body(table)}" for table in found.values()), "## Figures", "\n".join(pictures)]) + "\n"


def markdown(table: Table) -> str:
    return f"**{table.title}**\n\n{body(table)}\n"


def body(table: Table) -> str:
    """Lines and notes in Markdown."""
    lines = [list(table.text.columns), ["---"] * len(table.text.columns), *table.text.values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + "\n".join(f"- {note}" for note in table.notes)


def latex(table: Table) -> str:
    """A booktabs tabular."""
    escape = str.maketrans({"#": r"\#", "_": r"\_", "%": r"\%", "±": r"$\pm$", "†": r"$^\dagger$"})
    lines = [" & ".join(cell.translate(escape) for cell in line) + r" \\" for line in table.text.values.tolist()]
    head = " & ".join(name.translate(escape) for name in table.text.columns) + r" \\"
    columns = "l" + "r" * (len(table.text.columns) - 1)
    whole = [rf"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(whole) + "\n"


def main() -> None:
    listed = listed_suites()
    suites, unlisted = ({path.stem: read_yaml(path) for path in paths} for paths in (listed, sorted({*Path("suites").glob("*.yaml")} - {*listed})))
    report(suites, read_yaml(Path("params.yaml")), Path("data"), Path("reports"), unlisted)


if __name__ == "__main__":
    run_stage(main)
