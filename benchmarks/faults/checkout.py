"""A small project with this repository's dvc.yaml, in a git repository of its own, for a real `dvc repro`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from tests.project import ROOT, copy_code, make_project

__all__ = ["Checkout"]

TOPS = ("data", "scratch", "reports")  # the folders that stages write to
UNLIKE = (
    "reports/records/",  # how long each stage has taken, and the like
)
# The page shows the records.
MADE = re.compile(rb"<details><summary>How its files were made</summary>.*?</details>", re.DOTALL)


class Checkout:
    """A project in a folder, and what its results were when they were undisturbed."""

    def __init__(self, folder: Path, suite: dict, stages: Sequence[str] = ()) -> None:
        """Make the project; nothing is built.

        Args:
            stages: those of dvc.yaml that the project has; none: all of them.
        """
        self.folder = folder
        make_project(folder, suites={"shapes": suite})
        copy_code(folder, stages)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        self.must("init", "-q")
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")

    def stages(self) -> list[str]:
        """The names of the stages in dvc.yaml."""
        return list(yaml.safe_load((self.folder / "dvc.yaml").read_text())["stages"])

    # DVC

    def start(self, *words: str, log: Path) -> subprocess.Popen:
        """A dvc command in a process group of its own, whose output goes to a file."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "dvc", *words]
        with log.open("w") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def dvc(self, *words: str) -> tuple[int, str]:
        """The exit status and the output of a dvc command."""
        log = self.folder.parent / f"{self.folder.name}.log"
        status = self.start(*words, log=log).wait()
        return status, log.read_text()

    def must(self, *words: str) -> str:
        """The output of a dvc command that has to work."""
        status, output = self.dvc(*words)
        assert status == 0, output
        return output

    # Results

    def start_anew(self) -> None:
        """Delete everything that was built, also from DVC's cache."""
        for name in ("scratch", ".dvc/cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "dvc.lock").unlink(missing_ok=True)
        self.empty_data()

    def empty_data(self) -> None:
        """Delete everything below data/ but the file that is committed."""
        shutil.rmtree(self.folder / "data")
        (self.folder / "data").mkdir()
        (self.folder / "data/nothing").touch()

    def results(self) -> dict[str, bytes]:
        """By path, every file that stages have written, also what they have left under a temporary name."""
        results = {}
        for top in TOPS:
            for file in sorted((self.folder / top).rglob("*")):
                path = file.relative_to(self.folder).as_posix()
                is_temporary = file.name.startswith(".")
                if file.is_file() and (is_temporary or not path.startswith(UNLIKE)):
                    results[path] = MADE.sub(b"", file.read_bytes())
        return results

    def differences(self, undisturbed: dict[str, bytes]) -> list[str]:
        """The files that are not as in an undisturbed project, are missing, or are there beyond it."""
        results = self.results()
        paths = results.keys() | undisturbed.keys()
        return sorted(path for path in paths if results.get(path) != undisturbed.get(path))

    def locks(self) -> list[str]:
        """The paths that DVC holds locked, which are none when no process runs.

        DVC removes the lock of a killed process when another one needs it.
        """
        file = self.folder / ".dvc/tmp/rwlock"
        entries = json.loads(file.read_text()) if file.exists() else {}
        holders = list(entries.get("write", {}).items())
        for path, readers in entries.get("read", {}).items():
            holders += [(path, reader) for reader in readers]
        return [path for path, holder in holders if psutil.pid_exists(holder["pid"])]
