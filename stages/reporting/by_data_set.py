"""The rows of distilled sets by data set: how many are over-confident, and the mean ECE of each method.

Rows of the paper's data sets come first, those of the published budget before the reduced ones. Rows of real
images never count as distilled.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.reporting.cells import ABSENT, METHODS, Results, Table
from stages.reporting.claims import data_set
from stages.reporting.evidence import Evidence, distilled_plain, over_confidence, with_all

__all__ = ["WITHIN", "Found", "found_on", "groups", "mean_ece", "summary"]

WITHIN = 1.0  # points of ECE that a shipped temperature may be above the oracle's to count as close
FITTED = ("raw", "mts", "fixed")  # what a row needs to be counted for MTS
SHOWN = (*FITTED, "shipped", "oracle")


class Found(NamedTuple):
    """What was found on the rows of a data set and a budget: a value for each row that has the results."""

    gaps: list[float]  # Raw's confidence minus accuracy, in points
    over_confident: list[bool]  # whether that is positive, by its interval
    better: list[bool]  # whether MTS has a lower ECE than Raw, by the interval of the difference
    worse: list[bool]  # whether it has a higher one
    shipped_better: list[bool]  # whether a shipped temperature has a lower ECE than Raw, likewise
    shipped_worse: list[bool]
    close: list[bool]  # whether its ECE is close to the oracle's
    ece: dict[str, float]  # in percent by method, the mean over the same rows for all methods
    rows: int  # in that mean


def groups(results: Results) -> dict[str, list[str]]:
    """The rows of distilled sets by data set and budget, in their order.

    A row of a reduced budget is left out where there is one of the published budget otherwise like it.
    """
    names = distilled_plain(results)
    published = {_kind(results, name) for name in names if results.rows[name].budget == "published"}
    named: dict[str, list[str]] = {}
    for name in names:
        if results.rows[name].budget != "reduced" or _kind(results, name) not in published:
            named.setdefault(data_set(results, name), []).append(name)
    return named


def _kind(results: Results, name: str) -> tuple[str, str, int | None]:
    """The suite of a row, the method that made its set, and the images per class."""
    row = results.rows[name]
    return row.suite, row.method, row.ipc


def found_on(results: Results, names: list[str]) -> Found:
    """What was found on rows of distilled sets."""
    cases = [case for case in over_confidence(Evidence(results, {}, {}, {})) if case.row in names]
    differences = [_difference(results, name, "mts") for name in with_all(results, names, FITTED)]
    shipped = with_all(results, names, ["shipped", "oracle"])
    of_shipped = [_difference(results, name, "shipped") for name in shipped]
    above = [_above_oracle(results, name) for name in shipped]
    rows = compared(results, names)
    methods = [method for method in SHOWN if rows and with_all(results, rows, [method]) == rows]
    return Found(
        gaps=[100 * case.value for case in cases],
        over_confident=[case.low > 0 for case in cases],
        better=[high < 0 for _, high in differences],
        worse=[low > 0 for low, _ in differences],
        shipped_better=[high < 0 for _, high in of_shipped],
        shipped_worse=[low > 0 for low, _ in of_shipped],
        close=[points <= WITHIN for points in above],
        ece={method: mean_ece(results, rows, method) for method in methods},
        rows=len(rows),
    )


def compared(results: Results, names: list[str]) -> list[str]:
    """The rows over which methods are compared: those with a shipped temperature, where there are any."""
    fitted = with_all(results, names, FITTED)
    return with_all(results, fitted, ["shipped"]) or fitted


def mean_ece(results: Results, names: list[str], method: str) -> float:
    """The mean over rows of the ECE in percent."""
    return float(np.mean([_ece(results, name, method) for name in names]))


def summary(results: Results) -> Table:
    """A line for each data set and budget.

    Args:
        results: without quick rows.
    """
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for group, names in groups(results).items():
        found = found_on(results, names)
        lines.append({"Data set": group, **_cells(found, results.start)})
        numbers.append({"data_set": group, **_numbers(found)})
    start = f"{results.start:g}"
    notes = [
        "Rows of sets that are distilled without masks. A row of a reduced budget is left out where there is"
        " one of the published budget that is like it. Mean ECE in percent (lower is better), over the rows"
        " with a shipped temperature where there are any.",
        "Over-confident: on how many rows Raw's confidence exceeds accuracy, by its 95 % interval; in"
        " brackets the least and the largest difference in points.",
        f"T = {start} divides the logits by {start}, where MTS starts, and fits nothing. Shipped T is"
        " fitted once, on other networks and real training images, and comes with the set. Oracle T has"
        " the lowest negative log-likelihood on the test labels: it is no result, and has not always the"
        " lowest ECE.",
        "MTS better, MTS worse: on how many rows its ECE is below Raw's, and above it, by the 95 %"
        " interval of the difference. It has the paper's mask ratios, and 0.1 on the digits, which the paper"
        " does not have; what other ratios do is in the table of claims, and what other numbers of iterations"
        " of its fit do is in the table `iterations`.",
    ]
    return Table("Mean ECE by data set", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _cells(found: Found, start: float) -> dict[str, str]:
    ends = dict.fromkeys(f"{gap:+.1f}" for gap in (min(found.gaps), max(found.gaps)))
    count = f"{sum(found.over_confident)} of {len(found.gaps)}"
    cells = {"Over-confident": f"{count} ({' to '.join(ends)})"}
    for method in SHOWN:
        title = METHODS[method].format(start=start)
        cells[title] = f"{found.ece[method]:.1f}" if method in found.ece else ABSENT
    for title, signs in (("MTS better", found.better), ("MTS worse", found.worse)):
        cells[title] = f"{sum(signs)} of {len(signs)}" if signs else ABSENT
    return cells


def _numbers(found: Found) -> dict[str, Any]:
    return {
        "rows": len(found.gaps),
        "over_confident": sum(found.over_confident),
        "least_gap_points": min(found.gaps),
        "largest_gap_points": max(found.gaps),
        "rows_with_mts": len(found.better),
        "mts_lowers_ece": sum(found.better),
        "mts_raises_ece": sum(found.worse),
        "rows_with_shipped": len(found.close),
        "shipped_lowers_ece": sum(found.shipped_better),
        "shipped_raises_ece": sum(found.shipped_worse),
        "shipped_close_to_oracle": sum(found.close),
        "rows_in_means": found.rows,
        **{f"ece_{method}_percent": ece for method, ece in found.ece.items()},
    }


def _ece(results: Results, row: str, method: str) -> float:
    """In percent."""
    return 100 * float(np.mean((results.method(row, method) or {})["ece"]))


def _difference(results: Results, row: str, method: str) -> list[float]:
    """The interval of a method's difference to Raw."""
    return (results.method(row, method) or {})["difference_to_raw"]


def _above_oracle(results: Results, row: str) -> float:
    return _ece(results, row, "shipped") - _ece(results, row, "oracle")
