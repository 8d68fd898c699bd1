"""Results of other stages, of the rows that have them already."""

from pathlib import Path

import numpy as np

from stages.runtime import files

__all__ = ["read_arrays", "read_results"]


def read_results(paths: dict[str, Path]) -> dict[str, dict]:
    """The JSON files that exist, by row."""
    return {row: files.read_result(path) for row, path in paths.items() if path.exists()}


def read_arrays(paths: dict[str, Path]) -> dict[str, dict[str, np.ndarray]]:
    """The safetensors files that exist, by row."""
    return {row: files.read_arrays(path) for row, path in paths.items() if path.exists()}
