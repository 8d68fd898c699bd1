"""What every table is made of: results by row and method, means, standard deviations, and cells as text."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.settings.tables import TableKeys

__all__ = [
    "ABSENT",
    "METHODS",
    "MISSING",
    "REPEATS",
    "SCORES",
    "Results",
    "Table",
    "mean_std",
    "means",
    "pair",
    "percent",
    "worse_than_raw",
]

METHODS = {
    "raw": "Raw",
    "ts": "TS",
    "mixup": "Mixup",
    "label_smoothing": "LS",
    "focal": "Focal",
    "mts": "MTS",
    "fixed": "T = {start:g}",
    "ts_converged": "TS conv.",
    "mts_converged": "MTS conv.",
    "oracle": "Oracle T",
}
SCORES = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "ece_15": "ECE, 15 bins",
    "adaptive_ece": "Adaptive ECE",
    "classwise_ece": "Classwise ECE",
    "smooth_ece": "Smooth ECE",
    "nll": "NLL",
    "brier": "Brier",
    "confidence_gap": "Confidence - accuracy",
}
REPEATS = "mean ± standard deviation over repeats"
MISSING = "missing"  # no result yet
ABSENT = "-"  # the row or the method does not exist


class Table(NamedTuple):
    """A table as text for readers and as numbers for programs."""

    title: str
    text: pd.DataFrame  # cells as printed
    numbers: pd.DataFrame  # one line a number with its mean, std, ..., and the paper's
    notes: list[str]


class Results(NamedTuple):
    """The rows of the tables with their results.

    A row without results is shown as missing; it is never dropped.
    """

    rows: dict[str, TableKeys]
    evaluated: dict[str, dict]  # data/evaluate/<row>.json of the rows that have it
    start: float  # first temperature of the LBFGS runs

    def method(self, row: str | None, key: str) -> dict[str, Any] | None:
        """The scores of a method on a row.

        None while the row has no results, {} where there is no such row or the method does not exist for it.
        """
        if row is None:
            return {}
        if row not in self.evaluated:
            return None
        return self.evaluated[row]["methods"].get(key, {})

    def titles(self) -> dict[str, str]:
        """The names of the methods."""
        return {key: title.format(start=self.start) for key, title in METHODS.items()}


def worse_than_raw(results: Results, method: str) -> int:
    """How many rows have a higher mean ECE by a method than by Raw: the paper's "# over-calibration"."""
    count = 0
    for row in results.rows:
        raw = results.method(row, "raw")
        calibrated = results.method(row, method)
        if raw and calibrated:
            count += int(np.mean(calibrated["ece"]) > np.mean(raw["ece"]))
    return count


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, 0.0
    return mean, float(np.std(values, ddof=1))


def means(method: dict[str, Any], keys: Iterable[str]) -> dict[str, float]:
    """`<key>_mean` and `<key>_std` of those of the numbers that a method has."""
    columns = {}
    for key in keys:
        if key in method:
            columns[f"{key}_mean"], columns[f"{key}_std"] = mean_std(method[key])
    return columns


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares, in percent."""
    mean, std = mean_std(values)
    return pair([100 * mean, 100 * std])


def pair(values: Sequence[float] | float | None) -> str:
    """[mean, standard deviation], a mean alone, or no number at all."""
    if values is None:
        return ""
    if isinstance(values, int | float):
        return f"{values:.2f}"
    mean, std = values
    return f"{mean:.2f} ± {std:.2f}"
