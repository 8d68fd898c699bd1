"""calibrate: temperatures of a row's networks, fitted on its distilled images -> one JSON file.

    python -m stages.calibrate <row>

Every method is fitted twice: early-stopped as in the paper, and converged. No test image and no test label is read here.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from stages.calibrators import mts, ts
from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import optimum
from stages.calibrators.settings import CalibrateSettings
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.flat import flat_convnet, predict
from stages.shared.images import load_set
from stages.shared.settings import Ratio, Section, find, param, parse, pick

__all__ = ["CalibrateRow", "calibrate"]

METHODS = {"ts": ts, "mts": mts}


class CalibrateRow(Section):
    """The key of `runs.<row>` that MTS takes."""

    mask_ratio: Ratio


def calibrate(
    settings: CalibrateSettings, holdout: float, mask_ratio: float, network: NetworkSettings, prepared: Path, distilled: Path, weights: Path, file: Path, seed: int, device: torch.device
) -> None:  # fmt: skip
    """Write the temperatures of every method and repeat to `file`.

    `{method: {"networks": group, "early_stopped" | "converged": {"temperature": [...], "bound_hit": [...]}}}`, one
    entry a repeat; a method that does not exist for the row (TS at one image a class) is absent.
    """
    data, _ = load_set(distilled, prepared)
    theta = load_file(weights)
    flat = flat_convnet(network, data, device)
    shares = {"ts": holdout, "mts": settings.share}
    result = {"mask_ratio": mask_ratio, "start": settings.start, "methods": {}}
    for name, method in METHODS.items():
        if method.NETWORKS not in theta:
            continue
        fits = {"early_stopped": [], "converged": []}
        for repeat, weight in enumerate(theta[method.NETWORKS]):
            images, labels = method.fitting_images(data, shares[name], mask_ratio, seed, repeat)
            logits = predict(flat, weight.to(device), images.to(device)).cpu()
            fits["early_stopped"].append(early_stopped(logits, labels, settings))
            fits["converged"].append(optimum(logits.numpy(), labels.numpy(), settings.bounds))
        result["methods"][name] = {"networks": method.NETWORKS} | {
            how: {"temperature": [fit.temperature for fit in some], "bound_hit": [fit.bound_hit for fit in some]} for how, some in fits.items()
        }
    write_json(file, result)


def main(name: str) -> None:
    values, suite = find("runs", name)
    dataset = values["dataset"]
    own, for_all_rows = pick(CalibrateRow, values, f"runs.{name}").mask_ratio, param("mask_ratio")
    calibrate(
        parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate"),
        param("train")["holdout"],
        own if for_all_rows is None else for_all_rows,
        parse(NetworkSettings, suite["datasets"][dataset]["network"], f"datasets.{dataset}.network"),
        Path("data/prepare") / dataset,
        Path("data/distill") / name / "set.safetensors",
        Path("data/train") / name / "weights.safetensors",
        Path("data/calibrate") / f"{name}.json",
        param("seed"),
        pick_device(param("device")),
    )


if __name__ == "__main__":
    run_stage(main)
