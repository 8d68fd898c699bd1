"""Pictures in a folder that are drawn again only when they have changed."""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from stages.machine.cores import on_all_cores
from stages.runtime.files import write_json

__all__ = ["digest", "drawing_code", "redraw"]

RECORD = "drawn.json"


def redraw(folder: Path, keys: dict[str, str], endings: tuple[str, ...], draw: Callable[[str], None]) -> None:
    """Draw the pictures that have changed, on all cores, and delete whatever else lies in the folder.

    `drawn.json` in the folder has a hash for each picture, of its key and its files. A picture is drawn where
    this hash differs, so also where somebody else has changed or deleted its files.

    Args:
        keys: a hash of all that a picture is drawn from, by the picture's name.
        endings: of the files of a picture, e.g. ".svg".
        draw: writes `<folder>/<name><ending>` for a name and every ending.
    """
    files = {name: [folder / f"{name}{ending}" for ending in endings] for name in keys}
    _delete_others(folder, files)
    before = _read_record(folder / RECORD)
    changed = []
    for name, key in keys.items():
        whole = all(file.exists() for file in files[name])
        if not whole or _hash(key, files[name]) != before.get(name):
            changed.append(name)
    on_all_cores(draw, changed)
    write_json(folder / RECORD, {name: _hash(key, files[name]) for name, key in keys.items()})


def digest(*parts: bytes) -> str:
    """A hash of bytes, in the order given."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def drawing_code(files: list[Path]) -> str:
    """A hash of the code that draws: of these files, and of the version of matplotlib."""
    sources = [file.read_bytes() for file in files]
    return digest(*sources, version("matplotlib").encode())


def _hash(key: str, files: list[Path]) -> str:
    """Of a picture's key and files."""
    contents = [file.read_bytes() for file in files]
    return digest(key.encode(), *contents)


def _read_record(path: Path) -> dict[str, str]:
    """The hashes of the last time; none where a conflict of versions has left no JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _delete_others(folder: Path, files: dict[str, list[Path]]) -> None:
    kept = {folder / RECORD}
    for paths in files.values():
        kept |= set(paths)
    for path in folder.glob("*"):
        if path not in kept and path.is_file():
            path.unlink()
