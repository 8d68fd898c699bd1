"""Results of other stages, of the rows that have them already."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from stages.runtime import files
from stages.runtime.errors import UserError

__all__ = ["arrays_of_rows", "read_arrays", "read_results"]


def read_results(paths: dict[str, Path]) -> dict[str, dict]:
    """The JSON files that exist, by row."""
    return {row: files.read_result(path) for row, path in paths.items() if path.exists()}


def read_arrays(paths: dict[str, Path]) -> dict[str, dict[str, np.ndarray]]:
    """The safetensors files that exist, by row."""
    return {row: files.read_arrays(path) for row, path in paths.items() if path.exists()}


def arrays_of_rows(file: Path) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """The arrays `<row>/<name>` of a file that `stages.tools.lent` has written, and the `about` of each row.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(file, "np") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no dict
            return arrays, json.loads(opened.metadata()["about"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{file} is damaged; delete it, and name all of its rows again") from None
