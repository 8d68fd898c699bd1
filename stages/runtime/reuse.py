"""Results that are kept where nothing that they were made from has changed.

The quick stages work on all rows in one process. What makes a change of one row cost one row is that each
result carries a hash of its inputs, its settings and its stage's code, and is computed anew only where that
hash is another one.
"""

import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from stages.runtime.checksums import DamagedError, check
from stages.runtime.errors import UserError
from stages.runtime.files import read_about, read_result

__all__ = [
    "code_version",
    "edited_modules",
    "file_hash",
    "fingerprint",
    "former_result",
    "input_hash",
    "is_made_from",
    "read_json",
]


CODE = Path("data/code")  # where the stage `code` lists the modules of each stage


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
    """The modules of a stage with their hashes; empty before the stage `code` has listed them.

    Raises:
        DamagedError: the stage's list is not as it was written.
    """
    file = CODE / f"{stage}.json"
    if not file.exists():
        return ""
    listed = read_result(file)
    present = {module: _module_hash(Path(module)) for module in listed}
    return file.read_text() if present == listed else json.dumps(present)


def edited_modules(stage: str) -> list[str]:
    """The modules of a stage that are not as the stage `code` has listed them; none before it has run."""
    listed = read_result(CODE / f"{stage}.json", {})
    return [module for module, of_code in listed.items() if _module_hash(Path(module)) != of_code]


def _module_hash(path: Path) -> str:
    """The `file_hash` of a module, as the stage `code` lists it; "" where it is gone."""
    return file_hash(path) if path.exists() else ""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; a file that stays as it is is read once."""
    status = path.stat()
    return _file_hash(path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache
def _file_hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_hash(path: Path) -> str:
    """The `file_hash` of a file that a stage has written, which may be read or not.

    Raises:
        DamagedError: the file is not as it was written.
    """
    check(path)
    return file_hash(path)


def read_json(path: Path) -> dict:
    """JSON without a checksum, such as a file of `reports/`; empty where there is nothing.

    Raises:
        UserError: the file is no JSON, or anything else than keys and values.
    """
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
    except ValueError as problem:
        raise UserError(f"{path}: not JSON: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values but got {type(values).__name__}")
    return values


def former_result(path: Path) -> dict:
    """What a former run of the stage has written by `write_result`.

    Empty where there is nothing, and with a line that says so, where the file is damaged.
    """
    try:
        return read_result(path, {})
    except DamagedError:
        _say_it_is_made_anew(path)
        return {}


def is_made_from(file: Path, made_from: str) -> bool:
    """Whether a file of `write_tensors` is there, is undamaged, and says that it was made from this."""
    if not file.exists():
        return False
    try:
        return read_about(file).get("made_from") == made_from
    except DamagedError:
        _say_it_is_made_anew(file)
        return False


def _say_it_is_made_anew(path: Path) -> None:
    print(f"{path} is damaged, or an earlier version has written it: it is made anew", file=sys.stderr)
