"""What may not change while a stage runs: its settings, and the code that the stage `code` has listed.

DVC reads both again when the stage has ended, and takes the result for one of what it reads then.
"""

import os
import re
from pathlib import Path
from typing import Any

from stages.runtime.errors import UserError
from stages.runtime.reuse import edited_modules
from stages.settings.project import entries_of, read_yaml, suite_with

__all__ = ["KINDS", "check_code", "check_settings", "entry_of", "settings_of"]

# The kinds of the suites' entries that have a stage each; other stages work on all rows.
KINDS = {"prepare": "datasets", "buffer": "buffers", "distill": "runs", "train": "runs"}
PIPELINE = Path("dvc.yaml")


def check_code(stage: str, names: tuple[str, ...]) -> None:
    """A stage that DVC has started runs the code that DVC knows of.

    Raises:
        UserError: a module was edited after the stage `code` had run.
    """
    if "DVC_STAGE" not in os.environ:
        return
    listed = f"distill/{entry_of(stage, names)[1]['backbone']}" if stage == "distill" else stage
    edited = edited_modules(listed)
    if edited:
        raise UserError(f"{edited[0]} was edited since the stage `code` ran; run `dvc repro code` first")


def check_settings(stage: str, names: tuple[str, ...], before: dict[str, Any]) -> None:
    """The settings of a stage are those that it has begun with.

    Args:
        before: `settings_of` it.

    Raises:
        UserError: one of them is another.
    """
    after = settings_of(stage, names)
    for place in before | after:
        if before.get(place) != after.get(place):
            raise UserError(f"{place} was changed while {stage} ran with the former value; run it again")


def entry_of(stage: str, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The suite's entry of the row, buffer or data set that a stage of `KINDS` works on, after its place."""
    kind = KINDS[stage]
    suite = suite_with(kind, names[0])
    return f"{suite.as_posix()}: {kind}.{names[0]}", entries_of(suite, kind)[names[0]]


def settings_of(stage: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The settings that dvc.yaml names for a stage, by file and key; a suite as a whole where it names all.

    {} without a dvc.yaml, as for a stage that is called by itself.
    """
    if not PIPELINE.exists():
        return {}
    entry = read_yaml(PIPELINE).get("stages", {}).get(stage, {})
    entry = entry.get("do", entry)
    values: dict[str, Any] = {}
    for item in entry.get("params", []):
        files = item if isinstance(item, dict) else {"params.yaml": [item]}
        for file, keys in files.items():
            path = _filled(file, stage, names)
            for key in keys:
                place = _filled(key, stage, names)
                values[f"{path}: {place}"] = _value_at(read_yaml(Path(path)), place)
    if "suites" in entry.get("deps", []):
        values |= {str(path): path.read_text() for path in sorted(Path("suites").glob("*.yaml"))}
    return values


def _filled(text: str, stage: str, names: tuple[str, ...]) -> str:
    """A file or a key of dvc.yaml with what stands for `${key}` and `${item.<key>}`."""
    filled = text.replace("${key}", "".join(names[:1]))
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: str(entry_of(stage, names)[1][match[1]]), filled)


def _value_at(values: Any, key: str) -> Any:
    """The value at a key with dots; None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
