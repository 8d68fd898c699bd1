"""ablate: ECE of MTS at other mask ratios, shares of images, starting values and steps -> one file a row.

    python -m stages.ablate [<row> ...]

For Figures 8 and 9 and the table of starting values. Nothing here is a result of a row: the settings that do
best on the test images were chosen on them, and are shown as such.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from stages.calibrators.early_stopped import lbfgs_path, within
from stages.calibrators.fitting import Fitting
from stages.calibrators.optimum import Fit, as_lists, optimum
from stages.machine.cores import on_all_cores
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, read_result, write_result
from stages.runtime.reuse import code_version, fingerprint, former_result
from stages.settings.ablate import AblateSettings
from stages.settings.calibrate import CalibrateKeys, CalibrateSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.tools.records import recorded

__all__ = ["Tried", "ablate"]


class Tried(NamedTuple):
    """All settings that MTS is tried at."""

    calibrate: CalibrateSettings  # of the row's own result
    ablate: AblateSettings
    bins: int  # of ECE


class TestLogits(NamedTuple):
    logits: np.ndarray  # (repeats, N, K)
    labels: np.ndarray  # (N,)
    bins: int


def errors(temperatures: list[float], test: TestLogits) -> list[float]:
    """The ECE of each repeat at its temperature."""
    values = []
    for z, temperature in zip(test.logits, temperatures):
        values.append(ece(np.exp(log_softmax(z / temperature)), test.labels, test.bins))
    return values


def fit_entry(
    fitting: Fitting, start_and_steps: tuple[float | None, int | None], fits: list[Fit], test: TestLogits
) -> dict:
    """One entry of the result: the temperatures of all repeats, and their ECE on the test images."""
    start, steps = start_and_steps
    return {
        "ratio": fitting.ratio,
        "share": fitting.share,
        "start": start,
        "steps": steps,
        **as_lists(fits),
        "ece": errors([fit.temperature for fit in fits], test),
    }


def fittings_of(tried: Tried, own_ratio: float) -> list[Fitting]:
    """MTS at every mask ratio on its own share of images, then on other shares at the row's mask ratio."""
    own_share = tried.calibrate.share
    ratios = sorted({own_ratio, *tried.ablate.ratios})
    other_shares = sorted({*tried.ablate.shares} - {own_share})
    over_ratios = [Fitting("mts", ratio, own_share) for ratio in ratios]
    over_shares = [Fitting("mts", own_ratio, share) for share in other_shares]
    return over_ratios + over_shares


def entries_of(
    fitting: Fitting, images: list[tuple[np.ndarray, np.ndarray]], tried: Tried, test: TestLogits
) -> list[dict]:
    """One entry for the exact optimum, and one for every start and number of LBFGS steps.

    Shares other than the row's own are tried from its own start, with its own number of steps.

    Args:
        images: `(M, K)` logits and labels of the fitting images, `(M,)` or soft, one pair a repeat.
    """
    settings = tried.calibrate
    starts = [settings.start]
    steps = [settings.max_iter]
    if fitting.share == settings.share:
        starts = sorted({settings.start, *tried.ablate.starts})
        steps = sorted({settings.max_iter, *tried.ablate.steps})
    exact = [optimum(z, labels, settings.bounds) for z, labels in images]
    entries = [fit_entry(fitting, (None, None), exact, test)]
    for start in starts:
        paths = [lbfgs_path(z, labels, start, settings.lr, max(steps)) for z, labels in images]
        for count in steps:
            temperatures = [path[min(count, len(path) - 1)] for path in paths]
            fits = [within(temperature, settings.bounds) for temperature in temperatures]
            entries.append(fit_entry(fitting, (start, count), fits, test))
    return entries


def ablate(tried: Tried, row: Row) -> None:
    """Write `{"ratio", "share", "start", "steps", "raw", "fixed", "shipped", "fits": [...]}`.

    The first four are the row's own settings. `raw` (T = 1), `fixed` (T = `start`) and `shipped` (the
    temperature that comes with the set; absent without one) are lists of ECEs, one a repeat. Each of the
    `fits` has `ratio`, `share`, `start` and `steps` (null for the exact optimum), and lists `temperature`,
    `bound_hit` and `ece`.
    """
    own_ratio = row.keys(CalibrateKeys).mask_ratio
    logits = read_arrays(row.logits)
    test = TestLogits(logits["cross_entropy"], logits["labels"], tried.bins)
    fitting_logits = read_arrays(row.fitting_logits)
    images = {}
    for fitting in fittings_of(tried, own_ratio):
        images[fitting] = (fitting_logits[fitting.key], fitting_logits[f"{fitting.key}.labels"])
    hashes = [fingerprint(*pair) for pair in images.values()]
    settings = [tried.calibrate.model_dump(), tried.ablate.model_dump(), tried.bins, own_ratio]
    shipped = read_result(row.shipped, {}).get("temperature")
    made_from = fingerprint(test.logits, test.labels, hashes, settings, shipped, code_version("ablate"))
    if former_result(row.ablation).get("made_from") == made_from:
        return
    start = tried.calibrate.start
    fits = []
    for fitting, (z, labels) in images.items():
        fits += entries_of(fitting, list(zip(z, labels)), tried, test)
    result = {
        "ratio": own_ratio,
        "share": tried.calibrate.share,
        "start": start,
        "steps": tried.calibrate.max_iter,
        "raw": errors([1.0] * len(test.logits), test),
        "fixed": errors([start] * len(test.logits), test),
        "fits": fits,
        "made_from": made_from,
    }
    if shipped is not None:
        result["shipped"] = errors([shipped] * len(test.logits), test)
    write_result(row.ablation, result)


def main(*names: str) -> None:
    tried = Tried(
        parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate"),
        parse(AblateSettings, param("ablate"), "params.yaml: ablate"),
        param("evaluate.bins"),
    )
    rows = finished_rows("ablate", names, lambda row: row.fitting_logits)
    on_all_cores(partial(ablate, tried), rows)


if __name__ == "__main__":
    run_stage(recorded(main))
