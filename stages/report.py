"""report: results of all rows -> tables and figures under reports/.

    python -m stages.report

Shows the rows of the suites that dvc.yaml lists; a row without results shows as missing. Imports no training code.
"""

import json
from pathlib import Path

import yaml

from stages.figures import reliability_diagrams
from stages.shared.errors import run_stage
from stages.shared.files import replacing, write_text
from stages.shared.settings import listed_suites, param, pick, read_yaml
from stages.tables import METHODS, Row, Table, architectures, table1, table7

__all__ = ["listed_rows", "report"]

FIGURE1 = ("raw", "focal", "mixup", "label_smoothing", "ts", "mts")


def report(rows: dict[str, Row], start: float, tried: dict[str, list[str]], evaluated: Path, folder: Path) -> None:
    """Write `{table1,table7,architectures}.{csv,md,tex}` and `figures/reliability-<row>.png` to `folder`.

    Args:
        rows: by name, in the tables' order.
        start: first temperature of the LBFGS runs.
        tried: networks by row whose set is tried on others than its own.
        evaluated: folder of `<row>.json` and `architectures/<row>.json`.
    """
    results = read_results(evaluated, rows)
    paper = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())
    for table in (table1, table7):
        write_table(table(rows, results, paper, start), folder / table.__name__)
    write_table(architectures(tried, read_results(evaluated / "architectures", tried)), folder / "architectures")
    for name, result in results.items():
        figure = reliability_diagrams(result["methods"], {key: METHODS[key] for key in FIGURE1})
        with replacing(folder / "figures" / f"reliability-{name}.png") as temporary:
            figure.savefig(temporary, dpi=130, metadata={"Software": None})


def read_results(folder: Path, names) -> dict[str, dict]:
    """`<name>.json` of each name that has one."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names if (folder / f"{name}.json").exists()}


def write_table(table: Table, path: Path) -> None:
    """A table three times: numbers as CSV, text as Markdown and LaTeX."""
    write_text(path.with_suffix(".csv"), table.numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    notes = "\n".join(f"- {note}" for note in table.notes)
    write_text(path.with_suffix(".md"), f"**{table.title}**\n\n{markdown(table)}\n\n{notes}\n")
    write_text(path.with_suffix(".tex"), latex(table))


def markdown(table: Table) -> str:
    lines = [list(table.text.columns), ["---"] * len(table.text.columns), *table.text.values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(table: Table) -> str:
    """A booktabs tabular."""
    escape = str.maketrans({"#": r"\#", "_": r"\_", "%": r"\%", "±": r"$\pm$", "†": r"$^\dagger$"})
    body = [" & ".join(cell.translate(escape) for cell in line) + r" \\" for line in table.text.values.tolist()]
    head = " & ".join(name.translate(escape) for name in table.text.columns) + r" \\"
    columns = "l" + "r" * (len(table.text.columns) - 1)
    lines = [rf"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def listed_rows() -> dict[str, Row]:
    """The rows of the suites that dvc.yaml lists, in that order."""
    return {name: pick(Row, values, f"{path}: runs.{name}") for path in listed_suites() for name, values in read_yaml(path)["runs"].items()}


def listed_architectures() -> dict[str, list[str]]:
    """The networks that each row of those suites is tried on."""
    return {name: values["networks"] for path in listed_suites() for name, values in read_yaml(path)["architectures"].items()}


def main() -> None:
    report(listed_rows(), param("calibrate")["start"], listed_architectures(), Path("data/evaluate"), Path("reports"))


if __name__ == "__main__":
    run_stage(main)
