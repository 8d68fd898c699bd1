"""The settings as they stand in params.yaml and suites/*.yaml, and the suites that dvc.yaml lists."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from stages.runtime.errors import UserError
from stages.settings.plain_yaml import load_plain

__all__ = [
    "entries_of",
    "listed_suites",
    "param",
    "params_of_results",
    "read_yaml",
    "suite_keys",
    "suite_with",
]

EXECUTION = ("device", "data_root")  # the keys of params.yaml that change no result


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values, not to be changed: a file that stays as it is is read once.

    Raises:
        UserError: no such file, or one that cannot be read, or anything else in it.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    status = path.stat()
    return _read(path.absolute(), path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _read(place: Path, path: Path, changed: int, size: int) -> dict[str, Any]:
    """`path`, as it lay at `place` at that time."""
    try:
        values = load_plain(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not UTF-8: {problem.reason} at byte {problem.start}") from None
    except ValueError as problem:
        raise UserError(f"{path}: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values but got {type(values).__name__}")
    return values


def param(key: str) -> Any:
    """The value at `key` of params.yaml, e.g. `param("seed")` or `param("train.holdout")`.

    Raises:
        UserError: the file has no such key.
    """
    value = read_yaml(Path("params.yaml"))
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"params.yaml: {key}: Field required")
        value = value[part]
    return value


def params_of_results() -> dict[str, Any]:
    """params.yaml, but for what changes no result."""
    return {key: value for key, value in read_yaml(Path("params.yaml")).items() if key not in EXECUTION}


def suite_keys(path: Path, entry: tuple[str, ...], keys: list[str]) -> dict[str, Any]:
    """Those of the keys of an entry of a suite that are there.

    Args:
        entry: the way to the entry, e.g. `("runs", "digits-mtt-ipc1")`.

    Raises:
        UserError: the suite has no such entry.
    """
    values: Any = read_yaml(path)
    for part in entry:
        values = values.get(part)
        if not isinstance(values, dict):
            raise UserError(f"{path}: {'.'.join(entry)}: expected keys and values")
    return {key: values[key] for key in keys if key in values}


def suite_with(kind: str, name: str) -> Path:
    """The suite that has the entry `<kind>.<name>`.

    Args:
        kind: "datasets", "buffers", "runs", or a section of analyses, e.g. "svd".

    Raises:
        UserError: no suite has it; the message lists the names that there are.
    """
    names: list[str] = []
    for path in sorted(Path("suites").glob("*.yaml")):
        entries = entries_of(path, kind)
        if name in entries:
            return path
        names += map(str, entries)
    raise UserError(f"{kind}: {name!r} is unknown; allowed: {', '.join(names)}")


def entries_of(path: Path, kind: str) -> dict[str, Any]:
    """The entries of a suite by name, e.g. of `runs`; none where the suite does not have the kind.

    Raises:
        UserError: something else stands there.
    """
    entries = read_yaml(path).get(kind) or {}
    if not isinstance(entries, dict):
        raise UserError(f"{path}: {kind}: expected names with keys but got {type(entries).__name__}")
    return entries


def listed_suites() -> list[Path]:
    """The suites that dvc.yaml lists under `vars`."""
    entries = read_yaml(Path("dvc.yaml")).get("vars") or []
    if not isinstance(entries, list):
        raise UserError(f"dvc.yaml: vars: expected a list of suites but got {type(entries).__name__}")
    return [Path(entry) for entry in entries if isinstance(entry, str)]
