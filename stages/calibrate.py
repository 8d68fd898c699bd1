"""calibrate: temperatures of every row's networks, fitted on its distilled images -> one file a row.

    python -m stages.calibrate [<row> ...]

Every method is fitted twice: early-stopped as in the paper, and converged. No test image and no test label is
read here.
"""

from functools import partial

import numpy as np

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.fitting import NETWORKS, Fitting
from stages.calibrators.optimum import as_lists, optimum
from stages.machine.cores import on_all_cores
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, write_result
from stages.runtime.reuse import code_version, fingerprint, former_result
from stages.settings.calibrate import CalibrateKeys, CalibrateSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.tools.records import recorded

__all__ = ["calibrate", "temperatures_of"]


def temperatures_of(logits: np.ndarray, labels: np.ndarray, settings: CalibrateSettings) -> dict:
    """`{"early_stopped" | "converged": {"temperature": [...], "bound_hit": [...]}}`, one entry a repeat.

    Args:
        logits: `(repeats, M, K)`, of the fitting images.
        labels: `(repeats, M)`, or `(repeats, M, K)` probabilities where labels are soft.
    """
    early = [early_stopped(z, y, settings) for z, y in zip(logits, labels)]
    exact = [optimum(z, y, settings.bounds) for z, y in zip(logits, labels)]
    return {"early_stopped": as_lists(early), "converged": as_lists(exact)}


def calibrate(
    settings: CalibrateSettings, holdout: float, ratio_for_all_rows: float | None, row: Row
) -> None:
    """Write the temperatures of every method and repeat to `row.temperatures`.

    `{"mask_ratio", "start", "methods": {method: {"networks": group, "early_stopped", "converged"}}}`; a
    method that does not exist for the row (TS and `mts_holdout` at one image a class) is absent.

    Args:
        holdout: the share of the distilled images that TS kept from training.
        ratio_for_all_rows: the mask ratio of MTS; None: each row's own.
    """
    own_ratio = row.keys(CalibrateKeys).mask_ratio
    ratio = own_ratio if ratio_for_all_rows is None else ratio_for_all_rows
    fittings = [
        Fitting("ts", 0.0, holdout),
        Fitting("mts", ratio, settings.share),
        Fitting("mts_holdout", ratio, holdout),
    ]
    logits = read_arrays(row.fitting_logits)
    fittings = [fitting for fitting in fittings if fitting.key in logits]
    arrays = {fitting.method: (logits[fitting.key], logits[f"{fitting.key}.labels"]) for fitting in fittings}
    hashes = {method: fingerprint(*pair) for method, pair in arrays.items()}
    made_from = fingerprint(hashes, settings.model_dump(), ratio, code_version("calibrate"))
    if former_result(row.temperatures).get("made_from") == made_from:
        return
    methods = {}
    for method, (z, labels) in arrays.items():
        methods[method] = {"networks": NETWORKS[method], **temperatures_of(z, labels, settings)}
    result = {"mask_ratio": ratio, "start": settings.start, "methods": methods, "made_from": made_from}
    write_result(row.temperatures, result)


def main(*names: str) -> None:
    settings = parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate")
    rows = finished_rows("calibrate", names, lambda row: row.fitting_logits)
    on_all_cores(partial(calibrate, settings, param("train.holdout"), param("mask_ratio")), rows)


if __name__ == "__main__":
    run_stage(recorded(main))
