"""row: build one row alone, up to its metrics and its line in the tables.

    python -m stages.tools.row <row>

DVC builds what the row needs up to its networks, and the images from outside that these are shown; then the
stages for all rows run on the rows that have networks. The tables show rows without results as missing.
"""

import subprocess
import sys
from pathlib import Path

from stages.runtime.errors import UserError, run_stage
from stages.settings.project import entries_of, listed_suites, read_yaml
from stages.settings.rows import Row

__all__ = ["build", "first_stages", "stages_for_all_rows"]


def build(row: Row) -> None:
    """
    Raises:
        UserError: dvc.yaml does not list the suite of the row, or a stage has failed.
    """
    if row.suite not in listed_suites():
        raise UserError(
            f"{row.name} is in {row.suite}, which dvc.yaml does not list under vars; uncomment it there"
        )
    for words in (first_stages(row), ["--single-item", *stages_for_all_rows()]):
        if subprocess.run([sys.executable, "-m", "dvc", "repro", *words]).returncode:
            raise UserError(f"dvc repro {' '.join(words)} has failed; see above")


def first_stages(row: Row) -> list[str]:
    """The stages of dvc.yaml whose outputs the stages for all rows need of this row."""
    shown = entries_of(row.suite, "features")
    outside = [f"prepare@{shown[row.name]['outside']}"] if row.name in shown else []
    return [f"train@{row.name}", *outside]


def stages_for_all_rows() -> list[str]:
    """The stages of dvc.yaml that follow `train`."""
    stages = list(read_yaml(Path("dvc.yaml"))["stages"])
    return stages[stages.index("train") + 1 :]


def main(name: str = "") -> None:
    build(Row(name))


if __name__ == "__main__":
    run_stage(main)
