"""masked: logits of the distilled images that temperatures are fitted on, at every mask ratio and share of the sweep.

    python -m stages.masked <row>

The one stage between training and tables that runs networks; all fits after it are arithmetic on its output. What it has
computed before is taken over, so that one more ratio costs one more ratio. No test image is read here.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from stages.calibrators import mts, ts
from stages.calibrators.settings import NETWORKS, SweepSettings, key_of
from stages.shared.checkpoint import digest
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import run_stage
from stages.shared.files import read_about, write_tensors
from stages.shared.flat import flat_convnet, predict
from stages.shared.images import load_set
from stages.shared.settings import find, param, parse

__all__ = ["fitting_logits", "masked"]

METHODS = {"ts": ts, "mts": mts}

def fitting_logits(
    wanted: list[tuple[str, float, float]], network: NetworkSettings, prepared: Path, distilled: Path, weights: Path, seed: int, device: torch.device
) -> dict[str, torch.Tensor]:  # fmt: skip
    """`(repeats, M, K)` logits and `(repeats, M)` labels of the fitting images, by `key_of` of each (method, ratio, share).

    A method that does not exist for the row (TS at one image a class) is absent.
    """
    data, _ = load_set(distilled, prepared)
    theta, flat, found = load_file(weights), flat_convnet(network, data, device), {}
    for name, ratio, share in wanted:
        networks = theta.get(NETWORKS[name], [])
        each = [METHODS[name].fitting_images(data, share, ratio, seed, repeat) for repeat in range(len(networks))]
        if each:
            logits = [predict(flat, weight.to(device), images.to(device)).cpu() for weight, (images, _) in zip(networks, each)]
            found |= {key_of(name, ratio, share): torch.stack(logits), f"{key_of(name, ratio, share)}.labels": torch.stack([labels for _, labels in each])}
    return found


def masked(
    sweep: SweepSettings, holdout: float, share: float, mask_ratio: float, network: NetworkSettings, prepared: Path, distilled: Path, weights: Path, file: Path, seed: int, device: torch.device
) -> None:  # fmt: skip
    """Write the logits of TS's images, of MTS's at every ratio, and of MTS's at every share and the row's own ratio.

    Args:
        holdout: share of the distilled images that TS has kept from training.
        share: of them that MTS fits on.
        mask_ratio: the row's own.
    """
    wanted = [("ts", 0.0, holdout), *(("mts", ratio, share) for ratio in [mask_ratio, *sweep.ratios]), *(("mts", mask_ratio, some) for some in sweep.shares)]
    here = digest({"network": network.model_dump(), "seed": seed}, [distilled, weights, *prepared.glob("*.safetensors")])
    found = load_file(file) if file.exists() and read_about(file).get("inputs") == here else {}
    names = {key_of(*each): each for each in wanted}
    missing = [each for key, each in names.items() if key not in found]
    found = {key: value for key, value in found.items() if key.removesuffix(".labels") in names}
    found |= fitting_logits(missing, network, prepared, distilled, weights, seed, device)
    write_tensors(file, found, {"inputs": here})


def main(name: str) -> None:
    values, suite = find("runs", name)
    dataset = values["dataset"]
    masked(
        parse(SweepSettings, param("sweep"), "params.yaml: sweep"),
        param("train")["holdout"],
        param("calibrate")["share"],
        values["mask_ratio"],
        parse(NetworkSettings, suite["datasets"][dataset]["network"], f"datasets.{dataset}.network"),
        Path("data/prepare") / dataset,
        Path("data/distill") / name / "set.safetensors",
        Path("data/train") / name / "weights.safetensors",
        Path("data/masked") / f"{name}.safetensors",
        param("seed"),
        pick_device(param("device")),
    )


if __name__ == "__main__":
    run_stage(main)
