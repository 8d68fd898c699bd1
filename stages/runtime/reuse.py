"""Results that are kept where nothing that they were made from has changed.

The quick stages work on all rows in one process. What makes a change of one row cost one row is that each
result carries a hash of its inputs, its settings and its stage's code, and is computed anew only where that
hash is another one.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from stages.runtime.files import read_about

__all__ = ["code_version", "file_hash", "fingerprint", "is_made_from", "read_json"]


def fingerprint(*parts: object) -> str:
    """Sixteen hexadecimal digits of arrays, and of values that JSON knows."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            whole.update(f"{part.dtype} {part.shape}".encode())
            whole.update(np.ascontiguousarray(part).tobytes())
        else:
            whole.update(json.dumps(part, sort_keys=True).encode())
    return whole.hexdigest()[:16]


def code_version(stage: str) -> str:
    """The modules of a stage with their hashes, as the stage `code` wrote them; empty before it has run."""
    file = Path("data/code") / f"{stage}.json"
    return file.read_text() if file.exists() else ""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; a file that stays as it is is read once."""
    status = path.stat()
    return _file_hash(path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache
def _file_hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict:
    """What a former run has left; empty where there is nothing."""
    return json.loads(path.read_text()) if path.exists() else {}


def is_made_from(file: Path, made_from: str) -> bool:
    """Whether a file of `write_tensors` is there and says that it was made from this."""
    return file.exists() and read_about(file).get("made_from") == made_from
