"""Reading settings: params.yaml and suites/<dataset>.yaml, checked against what a stage says it takes.

The keys themselves are declared where they are used, as a `Section`, so that a new key of one stage leaves the others
cached; `stages/check.py` puts them together. A typing mistake (unknown key, wrong type, value out of range) ends in one
line that names file, key, value and what is allowed.
"""

from pathlib import Path
from typing import Annotated, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.shared.errors import UserError

__all__ = ["Count", "Positive", "Ratio", "Section", "find", "known", "listed_suites", "param", "parse", "pick", "read_yaml"]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the safe one, in C where PyYAML was built with it: a stage reads every suite

Ratio = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, and nothing is converted ("5" is not 5)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def param(key: str):
    """The value of a key of params.yaml, as it stands there."""
    values = read_yaml(Path("params.yaml"))
    if key not in values:
        raise UserError(f"params.yaml: {key}: Field required")
    return values[key]


def find(kind: str, name: str) -> tuple[dict, dict]:
    """The entry `<kind>.<name>` of the suite that has it, and that suite, both as they stand there.

    Args:
        kind: "datasets", "buffers", "runs" or "architectures".
    """
    suites = [read_yaml(path) for path in sorted(Path("suites").glob("*.yaml"))]
    for suite in suites:
        if name in (suite.get(kind) or {}):
            return suite[kind][name], suite
    raise UserError(f"{kind}: {name!r} is unknown; allowed: {', '.join(key for suite in suites for key in suite.get(kind) or {})}")


def listed_suites() -> list[Path]:
    """The suites that dvc.yaml lists under `vars`."""
    return [Path(entry) for entry in read_yaml(Path("dvc.yaml")).get("vars", []) if isinstance(entry, str)]


def pick(model: type[Section], values: dict, where: str) -> Section:
    """The keys of `values` that `model` declares; those of other stages are left alone."""
    return parse(model, {key: value for key, value in values.items() if key in model.model_fields}, where)


def parse(model: type[Section], values, where: str) -> Section:
    """`model(**values)`, with pydantic's complaint turned into one line that begins with `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as problems:
        raise UserError(f"{where}: {_first_mistake(model, values, problems.errors())}") from None


def _first_mistake(model: type[Section], values, problems: list[dict]) -> str:
    """One line for the first key that is wrong; where it may be one of several kinds, for the kind that comes closest."""

    def keys(problem) -> tuple:
        """The keys on the way to the problem, without pydantic's names for the kinds of a union."""
        path, here = [], values
        for part in problem["loc"]:
            if isinstance(here, dict) or (isinstance(here, list) and isinstance(part, int)):
                path.append(part)
                here = here.get(part) if isinstance(here, dict) else here[part]
        return tuple(path)

    problems = sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden")  # a misspelt key is also a missing one
    first = keys(problems[0])
    deepest = max((problem for problem in problems if keys(problem)[: len(first)] == first), key=lambda problem: len(keys(problem)))
    key = ".".join(str(part) for part in keys(deepest))
    if deepest["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here: {', '.join(_section(model, keys(deepest)[:-1]).model_fields)}"
    if deepest["type"] == "missing":
        return f"{key}: {deepest['msg']}"
    reasons = dict.fromkeys(problem["msg"] for problem in problems if keys(problem) == keys(deepest))
    return f"{key}: {deepest['input']!r} is not allowed: {' or '.join(reasons)}"


def _section(kind, path: tuple) -> type[Section]:
    """The section that a path of keys leads to, through sections and dicts of them."""
    for key in path:
        kind = kind.model_fields[key].annotation if isinstance(kind, type) and issubclass(kind, Section) else get_args(kind)[-1]
    return kind


def read_yaml(path: Path) -> dict:
    """A YAML file of keys and values."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        values = yaml.load(path.read_text(), LOADER)
    except yaml.YAMLError as problem:
        raise UserError(f"{path}: not YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values but got {type(values).__name__}")
    return values


def known(key: str, value: str, allowed) -> None:
    """Raise a UserError that lists what is allowed, unless `value` is among it."""
    if value not in allowed:
        raise UserError(f"{key}: {value!r} is unknown; allowed: {', '.join(allowed) or 'none is defined'}")
