"""MTS by the number of LBFGS iterations after which its fit stops, which the paper does not say."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.reporting.by_data_set import groups
from stages.reporting.cells import Results, Table
from stages.reporting.differences import Interval, paired

__all__ = ["Counted", "counts", "iterations_table"]

ALL = "all"


class Counted(NamedTuple):
    """MTS after a number of iterations on some rows."""

    rows: int
    ece: float  # mean over the rows, a share in [0, 1]
    better: int  # rows whose ECE is below Raw's, by the interval of the paired difference
    worse: int  # rows whose ECE is above it


def counts(results: Results, ablations: dict[str, dict], names: list[str]) -> dict[int, Counted]:
    """MTS on the rows that were tried at several numbers of iterations, by that number.

    Args:
        ablations: `data/ablate/<row>.json` by row.
        names: the rows that may count.
    """
    eces: dict[int, list[float]] = {}
    differences: dict[int, list[Interval]] = {}
    for name in names:
        raw = results.method(name, "raw")
        if raw and name in ablations:
            for steps, ece in _by_iterations(ablations[name]).items():
                eces.setdefault(steps, []).append(float(np.mean(ece)))
                differences.setdefault(steps, []).append(paired(ece, raw["ece"]))
    counted = {}
    for steps in sorted(eces):
        better = sum(high < 0 for _, _, high in differences[steps])
        worse = sum(low > 0 for _, low, _ in differences[steps])
        counted[steps] = Counted(len(eces[steps]), float(np.mean(eces[steps])), better, worse)
    return counted


def _by_iterations(ablation: dict) -> dict[int, list[float]]:
    """The ECE of each network by the number of iterations, at settings that are else the row's own."""
    own = (ablation["ratio"], ablation["share"], ablation["start"])
    fits = [fit for fit in ablation["fits"] if (fit["ratio"], fit["share"], fit["start"]) == own]
    return {fit["steps"]: fit["ece"] for fit in fits if fit["steps"] is not None}


def iterations_table(results: Results, ablations: dict[str, dict]) -> Table:
    """A line for each data set and budget, and one for all rows.

    Args:
        results: without quick rows.
        ablations: `data/ablate/<row>.json` by row.
    """
    of_groups = groups(results)
    of_groups[ALL] = [name for names in of_groups.values() for name in names]
    lines = []
    numbers: list[dict[str, Any]] = []
    for group, names in of_groups.items():
        counted = counts(results, ablations, names)
        if counted:
            lines.append({"Data set": group} | {str(steps): _cell(of) for steps, of in counted.items()})
        for steps, of in counted.items():
            numbers.append({"data_set": group, "iterations": steps} | of._asdict())
    own = sorted({ablation["steps"] for ablation in ablations.values()})
    notes = [
        "Mean ECE of MTS in percent after so many iterations, and on how many rows it is below Raw's, and"
        " above it, by the 95 % interval of the paired difference over networks alone. The rows are those of"
        " `summary`, and all other settings are theirs.",
        'The paper has the step size 0.02 and "only one step", and no number of iterations. Its first author'
        " has 50 in a public fork, with the step size 0.01; 20 are PyTorch's default. The step size here is"
        f" the paper's, and all other tables have {' or '.join(str(steps) for steps in own)} iterations.",
    ]
    title = "MTS by the number of iterations of its fit"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _cell(counted: Counted) -> str:
    return f"{100 * counted.ece:.1f} ({counted.better} better, {counted.worse} worse, of {counted.rows})"
