"""The default pipeline in a fresh clone of the last commit: everything, nothing changed, another mask ratio.

    python -m benchmarks.repro [runs] [folder]

`runs` is of "nothing changed"; the other two, which take minutes, are run once each. The clone is made in `folder`, which must
not be there, and stays; without one it is a temporary folder. `changed_by_repro`: files that came out other than committed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import report, spread, timed


def main(runs: int = 5, folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(folder or f"{temporary}/clone")
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # the stages' `python` is this one
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def git(*words: str) -> str:
            return subprocess.run(["git", *words], cwd=clone, check=True, capture_output=True, text=True).stdout.strip()

        def dvc(*words: str) -> float:
            return timed(lambda: subprocess.run([sys.executable, "-m", "dvc", *words], cwd=clone, check=True, stdout=subprocess.DEVNULL, env=environment))

        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        seconds = {"everything": [dvc("repro", "-q")]}
        changed = git("status", "--porcelain")
        seconds["nothing changed"] = [dvc("repro", "-q") for _ in range(runs)]
        mebibytes = sum(file.stat().st_size for file in clone.rglob("*") if file.is_file()) / 2**20
        seconds["mask_ratio=0.3"] = [dvc("exp", "run", "-q", "-S", "mask_ratio=0.3")]
        settings = {"runs": runs, "unit": "seconds", "commit": git("rev-parse", "--short", "HEAD"), "clone_mib": mebibytes, "changed_by_repro": changed.splitlines()}
    report("repro", settings, [{"what": what, **spread(values)} for what, values in seconds.items()])


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
