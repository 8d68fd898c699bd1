"""Where a running stage keeps its checkpoints: in `scratch/`, as DVC deletes its outputs before it starts."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stages.runtime.errors import UserError
from stages.runtime.files import write_result
from stages.runtime.reuse import former_result

__all__ = ["digest", "earlier_attempts", "scratch"]

STAGES = Path(__file__).resolve().parents[1]
SCRATCH = Path("scratch")
CLUSTER = "stages.machine.cluster"
ATTEMPTS = "attempts.json"  # in the folder of a piece of work; its time of change is when the last one began

_earlier = {"earlier_attempts": 0, "earlier_seconds": 0.0}  # of the work that this process has resumed


def digest(settings: Any, inputs: list[Path]) -> str:
    """Twelve hexadecimal digits that change with the settings, the input files and the loaded code."""
    text = json.dumps(settings, sort_keys=True, default=str)
    combined = hashlib.sha256(text.encode())
    for path in sorted(inputs) + _loaded_code():
        with path.open("rb") as file:
            combined.update(hashlib.file_digest(file, "sha256").digest())
    return combined.hexdigest()[:12]


def _loaded_code() -> list[Path]:
    """The files of this project's modules that are loaded, also of the stage that runs as `__main__`.

    What gives tasks to a cluster is left out: it is loaded with the first of them, and changes no result.
    """
    names = [name for name in sys.modules if name == "__main__" or name.startswith("stages.")]
    files = [getattr(sys.modules[name], "__file__", None) for name in names if name != CLUSTER]
    paths = {Path(file).resolve() for file in files if file}
    return sorted(path for path in paths if path.is_relative_to(STAGES))


@contextmanager
def scratch(name: str, settings: Any, inputs: list[Path]) -> Iterator[Path]:
    """A folder for the checkpoints of one piece of work, which is deleted when the work is done.

    The folder's name holds the `digest`: work that was killed resumes only with the same settings, inputs
    and code. A lock keeps a second process out, because a stage may outlive the `dvc` that started it.

    Raises:
        UserError: another process is doing the same work.
    """
    folder = SCRATCH / f"{name}-{digest(settings, inputs)}"
    folder.mkdir(parents=True, exist_ok=True)
    lock_file = SCRATCH / f"{folder.name}.lock"
    with _locked(lock_file, name):
        _count_attempt(folder)
        try:
            yield folder
        except BaseException as problem:  # an error or ctrl-C
            problem.add_note(f"the next run goes on from {folder}")
            raise
        shutil.rmtree(folder)
    if not folder.exists():  # it does if another process has already begun the same work anew
        lock_file.unlink(missing_ok=True)


def earlier_attempts() -> dict[str, float]:
    """How many attempts at this process's work were killed, and their seconds up to their last checkpoints.

    {} where none was.
    """
    return dict(_earlier) if _earlier["earlier_attempts"] else {}


def _count_attempt(folder: Path) -> None:
    """Note that an attempt at the work of a folder begins."""
    file = folder / ATTEMPTS
    attempts = former_result(file) or {"count": 0, "seconds": 0.0}
    if attempts["count"]:
        last_sign = max(path.stat().st_mtime for path in folder.iterdir())
        attempts["seconds"] += max(0.0, last_sign - file.stat().st_mtime)  # 0: the clock was set back
        _earlier["earlier_attempts"] += attempts["count"]
        _earlier["earlier_seconds"] += round(attempts["seconds"], 1)
    write_result(file, attempts | {"count": attempts["count"] + 1})


@contextmanager
def _locked(file: Path, name: str) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        message = f"{name} is already running in another process (lock {file}); wait for it or stop it"
        raise UserError(message) from None
    try:
        yield
    finally:
        lock.release()
