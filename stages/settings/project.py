"""The settings as they stand in params.yaml and suites/*.yaml, and the suites that dvc.yaml lists."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from stages.runtime.errors import UserError

__all__ = ["listed_suites", "param", "read_yaml", "suite_keys", "suite_with"]

# The safe loader, in C where PyYAML was built with it: every stage reads every suite.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values, not to be changed: a file that stays as it is is read once.

    Raises:
        UserError: no such file, or anything else in it.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    status = path.stat()
    return _read(path.absolute(), path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _read(place: Path, path: Path, changed: int, size: int) -> dict[str, Any]:
    """`path`, as it lay at `place` at that time."""
    try:
        values = yaml.load(path.read_text(), LOADER)
    except yaml.YAMLError as problem:
        raise UserError(f"{path}: not YAML: {' '.join(str(problem).split())}") from None
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


def suite_keys(path: Path, entry: tuple[str, ...], keys: list[str]) -> dict[str, Any]:
    """Those of the keys of an entry of a suite that are there.

    Args:
        entry: the way to the entry, e.g. `("runs", "digits-mtt-ipc1")`.
    """
    values = read_yaml(path)
    for part in entry:
        values = values[part]
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
        entries = read_yaml(path).get(kind) or {}
        if name in entries:
            return path
        names += entries
    raise UserError(f"{kind}: {name!r} is unknown; allowed: {', '.join(names)}")


def listed_suites() -> list[Path]:
    """The suites that dvc.yaml lists under `vars`."""
    entries = read_yaml(Path("dvc.yaml")).get("vars", [])
    return [Path(entry) for entry in entries if isinstance(entry, str)]
