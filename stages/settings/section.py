"""A section of the settings: which keys it has, what they may be, and one line for the first mistake."""

from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stages.runtime.errors import UserError

__all__ = [
    "Count",
    "NotNegative",
    "Positive",
    "Precision",
    "Ratio",
    "Section",
    "Share",
    "known",
    "parse",
    "shortened",
]

LONGEST = 200  # characters of a value in a message

# Numbers beyond these limits are slips, and overflow in float32, int64 or memory.
SMALLEST = 1e-12
LARGEST = 1e12
MOST = 1_000_000_000

Count = Annotated[int, Field(ge=1, le=MOST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]


def _not_tiny(number: float) -> float:
    if number < SMALLEST:
        raise ValueError(f"the number should be at least {SMALLEST:g}")
    return number


Positive = Annotated[float, Field(gt=0, le=LARGEST), AfterValidator(_not_tiny)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "tf32", "bfloat16"]  # of the products; weights are float32 in any case
Share = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A group of keys. Unknown keys, nan and infinity are refused, and nothing is converted: "5" is not 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def parse(section: type[S], values: object, where: str) -> S:
    """`section(**values)`.

    Raises:
        UserError: one line that begins with `where` and names the first wrong key, its value and what is
            allowed.
    """
    try:
        return section.model_validate(values)
    except ValidationError as mistakes:
        raise UserError(f"{where}: {_first_mistake(section, values, mistakes.errors())}") from None


def known(where: str, value: str, allowed) -> None:
    """
    Raises:
        UserError: `value` is not among the names in `allowed`; the message lists them.
    """
    if value not in allowed:
        problem = f"{shortened(repr(value))} is unknown"
        raise UserError(f"{where}: {problem}; allowed: {', '.join(allowed) or 'none is defined'}")


def shortened(text: str) -> str:
    """A text that fits into a message."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _first_mistake(section: type[Section], values: object, mistakes: list) -> str:
    """The first wrong key, its value and what is allowed.

    Where a key may be one of several kinds, pydantic reports a mistake for each kind; the one that gets
    deepest into the value is of the kind that the user meant.
    """
    # A misspelt key is also a missing one: report the spelling first.
    mistakes = sorted(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = _path(values, mistakes[0])
    same_key = [mistake for mistake in mistakes if _path(values, mistake)[: len(first)] == first]
    deepest = max(same_key, key=lambda mistake: len(_path(values, mistake)))
    path = _path(values, deepest)
    key = ".".join(_printable(part) for part in path)
    if deepest["type"] == "extra_forbidden":
        allowed = ", ".join(_section_at(section, path[:-1]).model_fields)
        return f"{key}: unknown key; allowed here: {allowed}"
    if deepest["type"] == "missing":
        return f"{key}: {deepest['msg']}"
    reasons = dict.fromkeys(mistake["msg"] for mistake in mistakes if _path(values, mistake) == path)
    value = shortened(repr(deepest["input"]))
    return f"{key}: {value} is not allowed: {' or '.join(reasons)}"


def _printable(key: object) -> str:
    """A key, on one line."""
    text = str(key)
    return shortened(text if text.isprintable() else ascii(text))


def _path(values: object, mistake) -> tuple:
    """The keys on the way to the mistake, without pydantic's names for the kinds of a union."""
    path = []
    for part in mistake["loc"]:
        if isinstance(values, dict):
            path.append(part)
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            path.append(part)
            values = values[part]
    return tuple(path)


def _section_at(kind, path: tuple) -> type[Section]:
    """The section that a path of keys leads to, through sections and dicts of them."""
    for key in path:
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = kind.model_fields[key].annotation
        else:
            kind = get_args(kind)[-1]
    return kind
