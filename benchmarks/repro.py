"""The default pipeline in a fresh clone of the last commit: how long it takes, and what takes long.

    python -m benchmarks.repro [runs] [folder]

Measured one after the other: everything; nothing changed; `mask_ratio=0.3`; `mask_ratio=0.35`, which is
not among the ratios of `ablate`; and another color in the figures. `runs` is the number of times for
"nothing changed"; the others take minutes, and run once. The clone is made in `folder`, which must not
exist, and stays; without one it is in a temporary folder.

Writes reports/benchmarks/repro.json. `changed_by_repro` names the files that came out other than
committed. `timelines` has the seconds of each stage: of DVC before it, of the start of Python with the
imports, and of its work, which includes the imports of functions.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import report, spread

__all__ = ["Call", "change_color", "python_with_clock", "summed", "timeline"]

Stage = dict[str, Any]  # a line of `benchmarks.clocked`
# In place of `python`, which dvc.yaml calls with `-m stages.<stage> ...`.
SHIM = """\
#!/bin/sh
begun=$(date +%s.%N)
shift
exec {python} -m benchmarks.clocked "$begun" "$@"
"""


class Call(NamedTuple):
    """A call of DVC."""

    seconds: float
    timeline: list[dict[str, Any]]


def python_with_clock(folder: Path) -> Path:
    """A folder with a program `python` that runs stages by `benchmarks.clocked`."""
    folder.mkdir(parents=True)
    program = folder / "python"
    program.write_text(SHIM.format(python=sys.executable))
    program.chmod(0o755)
    return folder


class Clone:
    """A clone of this repository.

    Args:
        folder: it must not exist.
        scratch: a folder for the clock.
    """

    def __init__(self, folder: Path, scratch: Path):
        self.folder = folder
        self.times = scratch / "times.jsonl"
        programs = python_with_clock(scratch / "bin")
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "TIMELINE": str(self.times)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as a user has it
        subprocess.run(["git", "clone", "-q", ".", str(folder)], check=True)

    def git(self, *words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def dvc(self, *words: str) -> Call:
        self.times.write_text("")
        command = [sys.executable, "-m", "dvc", *words]
        begin = time.time()
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, env=self.environment)
        end = time.time()
        stages = [json.loads(line) for line in self.times.read_text().splitlines()]
        return Call(end - begin, timeline(stages, begin, end))

    def mebibytes(self) -> float:
        sizes = [file.stat().st_size for file in self.folder.rglob("*") if file.is_file()]
        return sum(sizes) / 2**20


def timeline(stages: list[Stage], begin: float, end: float) -> list[dict[str, Any]]:
    """The seconds of each stage, and at the end those of DVC after the last one.

    Args:
        begin: when DVC began, in seconds since 1970.
        end: when it ended.
    """
    lines = []
    before = begin
    for stage in sorted(stages, key=lambda stage: stage["begun"]):
        lines.append(
            {
                "stage": stage["stage"],
                "dvc": round(stage["begun"] - before, 3),
                "start": round(stage["imported"] - stage["begun"], 3),
                "work": round(stage["ended"] - stage["imported"], 3),
            }
        )
        before = stage["ended"]
    lines.append({"stage": "", "dvc": round(end - before, 3), "start": 0.0, "work": 0.0})
    return lines


def summed(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The number of stages that ran, and their seconds together."""
    sums: dict[str, Any] = {"stages": len(lines) - 1}
    for part in ("dvc", "start", "work"):
        sums[part] = round(sum(line[part] for line in lines), 3)
    return sums


def change_color(folder: Path) -> None:
    """Make MTS black in the figures."""
    file = folder / "stages/reporting/style.py"
    text, changes = re.subn(r'"mts": "#\w{6}"', '"mts": "#000000"', file.read_text())
    assert changes == 1, f"{file} has {changes} colors of MTS"
    file.write_text(text)


def call_after_changes(clone: Clone, runs: int) -> dict[str, list[Call]]:
    """The calls of DVC once everything is built, by what has changed."""
    calls = {"nothing changed": [clone.dvc("repro", "-q") for _ in range(runs)]}
    for setting in ("mask_ratio=0.3", "mask_ratio=0.35"):
        calls[setting] = [clone.dvc("exp", "run", "-q", "-S", setting)]
    change_color(clone.folder)
    calls["a color"] = [clone.dvc("repro", "-q")]
    return calls


def main(runs: str = "5", folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder) if folder else Path(temporary) / "clone"
        clone = Clone(place.resolve(), Path(temporary))
        commit = clone.git("rev-parse", "--short", "HEAD")
        calls = {"everything": [clone.dvc("repro", "-q")]}
        changed = clone.git("status", "--porcelain").splitlines()
        mebibytes = clone.mebibytes()
        calls |= call_after_changes(clone, int(runs))
    results = []
    for what, made in calls.items():
        seconds = spread([call.seconds for call in made])
        results.append({"what": what, **seconds, **summed(made[-1].timeline)})
    settings = {
        "runs": int(runs),
        "unit": "seconds",
        "commit": commit,
        "clone_mib": mebibytes,
        "changed_by_repro": changed,
        "timelines": {what: made[-1].timeline for what, made in calls.items()},
    }
    report("repro", settings, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
