"""calibrate: temperatures of a row's networks, fitted on its distilled images -> one JSON file.

    python -m stages.calibrate <row>

Every method is fitted twice: early-stopped as in the paper, and converged. No test image and no test label is read here.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import optimum
from stages.calibrators.settings import NETWORKS, CalibrateSettings, key_of
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.settings import Ratio, Section, find, param, parse, pick

__all__ = ["CalibrateRow", "by_method", "calibrate", "wanted"]


class CalibrateRow(Section):
    """The key of `runs.<row>` that MTS takes."""

    mask_ratio: Ratio


def calibrate(settings: CalibrateSettings, mask_ratio: float, logits: dict[str, np.ndarray], file: Path) -> None:
    """Write the temperatures of every method and repeat to `file`.

    `{method: {"networks": group, "early_stopped" | "converged": {"temperature": [...], "bound_hit": [...]}}}`, one
    entry a repeat; a method that does not exist for the row (TS at one image a class) is absent.

    Args:
        logits: of the fitting images by method, `(repeats, M, K)`, and their labels `(repeats, M)` as `<method>.labels`.
    """
    result = {"mask_ratio": mask_ratio, "start": settings.start, "methods": {}}
    for name, group in NETWORKS.items():
        if name in logits:
            each = list(zip(logits[name], logits[f"{name}.labels"]))
            fits = {
                "early_stopped": [early_stopped(z, labels, settings) for z, labels in each],
                "converged": [optimum(z, labels, settings.bounds) for z, labels in each],
            }
            result["methods"][name] = {"networks": group} | {
                how: {"temperature": [fit.temperature for fit in some], "bound_hit": [fit.bound_hit for fit in some]} for how, some in fits.items()
            }
    write_json(file, result)


def wanted(settings: CalibrateSettings, holdout: float, mask_ratio: float) -> dict[str, tuple[str, float, float]]:
    """What each method is fitted on: method, mask ratio and share of the images, as `key_of` takes them."""
    return {"ts": ("ts", 0.0, holdout), "mts": ("mts", mask_ratio, settings.share)}


def by_method(logits: dict[str, np.ndarray], wanted: dict[str, tuple[str, float, float]]) -> dict[str, np.ndarray]:
    """Of the logits in `data/masked/<row>.safetensors` those that are wanted, under the methods' names."""
    names = {method: key_of(*each) for method, each in wanted.items() if key_of(*each) in logits}
    return {method + end: logits[name + end] for method, name in names.items() for end in ("", ".labels")}


def main(name: str) -> None:
    values, suite = find("runs", name)
    settings = parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate")
    own, for_all_rows = pick(CalibrateRow, values, f"runs.{name}").mask_ratio, param("mask_ratio")
    ratio = own if for_all_rows is None else for_all_rows
    each, there = wanted(settings, param("train")["holdout"], ratio), load_file(Path("data/masked") / f"{name}.safetensors")
    if key_of(*each["mts"]) not in there:
        there |= masked_now(each["mts"], name, values["dataset"], suite)
    calibrate(settings, ratio, by_method(there, each), Path("data/calibrate") / f"{name}.json")


def masked_now(one: tuple[str, float, float], name: str, dataset: str, suite: dict) -> dict[str, np.ndarray]:
    """Logits at a mask ratio that is not among `sweep.ratios`: the one case in which this stage runs networks."""
    from stages.masked import fitting_logits
    from stages.shared.convnet import NetworkSettings
    from stages.shared.device import pick_device

    network = parse(NetworkSettings, suite["datasets"][dataset]["network"], f"datasets.{dataset}.network")
    distilled, weights = Path("data/distill") / name / "set.safetensors", Path("data/train") / name / "weights.safetensors"
    found = fitting_logits([one], network, Path("data/prepare") / dataset, distilled, weights, param("seed"), pick_device(param("device")))
    return {key: value.numpy() for key, value in found.items()}


if __name__ == "__main__":
    run_stage(main)
