"""Where a running stage keeps what it has so far: outside its outputs, which DVC deletes before a re-run."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.shared.errors import UserError

__all__ = ["digest", "scratch"]


def digest(settings, inputs: list[Path]) -> str:
    """Twelve hexadecimal digits of the settings, the input files and the code that is loaded."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    modules = sorted(m for m in sys.modules if m.startswith("stages."))
    for path in [*sorted(inputs), *(Path(f) for m in modules if (f := sys.modules[m].__file__))]:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:12]


@contextmanager
def scratch(name: str, settings, inputs: list[Path], root: Path = Path("scratch")) -> Iterator[Path]:
    """A folder for the checkpoints of exactly this work; it outlives a kill and is deleted when the work is done.

    Its name holds a hash of the settings, the input files and the code that is loaded, so that nothing computed under
    other ones is ever resumed. A lock keeps a stage that outlived its `dvc` from being joined by a second one.

    Raises:
        UserError: the same work is already under way in another process.
    """
    folder = root / f"{name}-{digest(settings, inputs)}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f"{folder.name}.lock")
    try:
        with lock.acquire(blocking=False):
            yield folder
            shutil.rmtree(folder)
    except Timeout:
        raise UserError(f"{name} is already running in another process (lock {lock.lock_file}); wait for it or stop it") from None
    if not folder.exists():
        Path(lock.lock_file).unlink(missing_ok=True)
