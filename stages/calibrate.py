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
from stages.shared.convnet import ConvNet
from stages.shared.device import pick_device
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.flat import FlatNetwork
from stages.shared.images import load_set
from stages.shared.settings import NetworkSettings, Params, load

__all__ = ["METHODS", "calibrate"]

METHODS = {"ts": ts, "mts": mts}


def calibrate(
    params: Params, mask_ratio: float, network: NetworkSettings, prepared: Path, distilled: Path, weights: Path, file: Path, device: torch.device
) -> None:  # fmt: skip
    """Write the temperatures of every method and repeat to `file`.

    `{method: {"networks": group, "early_stopped" | "converged": {"temperature": [...], "bound_hit": [...]}}}`, one
    entry a repeat; a method that does not exist for the row (TS at one image a class) is absent.
    """
    data, _ = load_set(distilled, prepared)
    theta = load_file(weights)
    flat = FlatNetwork(ConvNet(data.images.shape[1], data.images.shape[2], data.classes, network.width, network.depth).to(device))
    result = {"mask_ratio": mask_ratio, "start": params.calibrate.start, "methods": {}}
    for name, method in METHODS.items():
        if method.NETWORKS not in theta:
            continue
        fits = {"early_stopped": [], "converged": []}
        for repeat, weight in enumerate(theta[method.NETWORKS]):
            images, labels = method.fitting_images(data, params, params.seed, repeat, mask_ratio)
            with torch.no_grad():
                logits = flat(weight.to(device), images.to(device)).cpu()
            fits["early_stopped"].append(early_stopped(logits, labels, params.calibrate))
            fits["converged"].append(optimum(logits.numpy(), labels.numpy(), params.calibrate.bounds))
        result["methods"][name] = {"networks": method.NETWORKS} | {
            how: {"temperature": [fit.temperature for fit in some], "bound_hit": [fit.bound_hit for fit in some]} for how, some in fits.items()
        }
    write_json(file, result)


def main(name: str) -> None:
    settings = load()
    row, dataset = settings.row(name)
    calibrate(
        settings.params,
        settings.mask_ratio(name),
        dataset.network,
        Path("data/prepare") / row.dataset,
        Path("data/distill") / name / "set.safetensors",
        Path("data/train") / name / "weights.safetensors",
        Path("data/calibrate") / f"{name}.json",
        pick_device(settings.params.device),
    )


if __name__ == "__main__":
    run_stage(main)
