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
    "bound_mark",
    "lr_and_step_size",
    "mean_std",
    "means",
    "pair",
    "percent",
    "step_size",
    "temperature_cell",
]

METHODS = {
    "raw": "Raw",
    "ts": "TS",
    "mixup": "Mixup",
    "label_smoothing": "LS",
    "focal": "Focal",
    "focal_detached": "Focal, p detached",
    "mts": "MTS",
    "mts_holdout": "MTS, held out",
    "shipped": "Shipped T",
    "fixed": "T = {start:g}",
    "ts_converged": "TS conv.",
    "mts_converged": "MTS conv.",
    "mts_holdout_converged": "MTS, held out, conv.",
    "oracle": "Oracle T",
}
HELD_OUT = ("mts_holdout", "mts_holdout_converged")  # have columns in Table 7 alone
OPTIONAL = ("focal_detached", "shipped", *HELD_OUT)  # have a column only where a row of the table has them
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
LONG = 100  # lines: a table with more of them is not shown among others as it is


class Table(NamedTuple):
    """A table as text for readers and as numbers for programs."""

    title: str
    text: pd.DataFrame  # cells as printed
    numbers: pd.DataFrame  # one line a number with its mean, std, ..., and the paper's
    notes: list[str]

    @property
    def is_long(self) -> bool:
        return len(self.text) > LONG


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

    def without_quick(self) -> "Results":
        """The rows of all tables but one: quick rows are no results."""
        return self.of([name for name, row in self.rows.items() if row.budget != "quick"])

    def quick(self) -> "Results":
        """The rows whose numbers are no results."""
        return self.of([name for name, row in self.rows.items() if row.budget == "quick"])

    def of(self, names: Iterable[str]) -> "Results":
        """Some of the rows."""
        return self._replace(rows={name: self.rows[name] for name in names})

    def has(self, method: str) -> bool:
        """Whether a row has results of a method."""
        return any(self.method(row, method) for row in self.rows)

    def titles(self) -> dict[str, str]:
        """The names of all methods."""
        return {key: title.format(start=self.start) for key, title in METHODS.items()}

    def columns(self, held_out: bool = False) -> dict[str, str]:
        """The names of the methods that have a column in a table of these rows.

        Args:
            held_out: whether MTS on held-out images may have columns.
        """
        columns = self.titles()
        for key in OPTIONAL:
            is_left_out = key in HELD_OUT and not held_out
            if is_left_out or not self.has(key):
                del columns[key]
        return columns


def lr_and_step_size(results: Results, row: str) -> str:
    """`lr` of a row, and the number that "learned" or "teacher" stands for where a result says it."""
    lr = results.rows[row].lr
    number = results.evaluated.get(row, {}).get("step_size")
    if isinstance(lr, str) and number is not None:
        return f"{lr} {number:.3g}"
    return step_size(results.rows[row])


def step_size(row: TableKeys) -> str:
    """`lr` of a row: a number, or "learned" or "teacher" alone."""
    return row.lr if isinstance(row.lr, str) else f"{row.lr:g}"


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which is NaN for a single value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return float(np.mean(values)), std


def means(method: dict[str, Any], keys: Iterable[str]) -> dict[str, float]:
    """`<key>_mean` and `<key>_std` of those of the numbers that a method has."""
    columns = {}
    for key in keys:
        if key in method:
            columns[f"{key}_mean"], columns[f"{key}_std"] = mean_std(method[key])
    return columns


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares, in percent; a single share has no deviation."""
    return pair([100 * number for number in mean_std(values)])


def pair(values: Sequence[float] | float | None, decimals: int = 2) -> str:
    """[mean, standard deviation], a mean alone, or no number at all. A deviation of NaN is left out."""
    if values is None:
        return ""
    mean, std = (values, np.nan) if isinstance(values, int | float) else values
    spread = "" if np.isnan(std) else f" ± {std:.{decimals}f}"
    return f"{mean:.{decimals}f}{spread}"


def bound_mark(fitted: dict[str, Any]) -> str:
    """What stands behind a number where a temperature of it ended on a bound."""
    return "†" if any(fitted.get("bound_hit", [])) else ""


def temperature_cell(entry: dict[str, Any]) -> str:
    """The mean temperature of an entry; "" where it has none."""
    if "temperature" not in entry:
        return ""
    return f"{np.mean(entry['temperature']):.2f}{bound_mark(entry)}"
