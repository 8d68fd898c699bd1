"""train: networks on a distilled set, for every loss and repeat -> weights and test logits.

    python -m stages.train <row>
"""

import importlib
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file

from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.engine import run_units
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_tensors
from stages.shared.flat import FlatNetwork, flat_convnet
from stages.shared.images import load_set, load_split
from stages.shared.sampling import held_out
from stages.shared.settings import Count, Positive, Ratio, Section, find, param, parse, pick
from stages.shared.training import Schedule, train

__all__ = ["TrainRow", "TrainSettings", "predict", "train_row"]

TEST_BATCH = 1000


class TrainRow(Section):
    """The keys of `runs.<row>` that make its networks."""

    epochs: Count
    lr: Positive | Literal["learned"]  # learned: the step size that the distillation found
    augment: bool  # DSA augmentation


class TrainSettings(Section):
    """`train` of params.yaml."""

    repeats: Count
    losses: Annotated[list[str], Field(min_length=1)]  # files of stages/losses
    batch: Count
    momentum: Ratio
    weight_decay: Annotated[float, Field(ge=0)]
    holdout: Annotated[float, Field(gt=0, lt=1)]  # share of the distilled images that TS keeps from training
    mixup_alpha: Positive
    label_smoothing: Ratio
    focal_gamma: Annotated[float, Field(ge=0)]


def train_row(
    row: TrainRow, name: str, settings: TrainSettings, network: NetworkSettings, prepared: Path, distilled: Path, folder: Path, seed: int, device: torch.device, root: Path = Path("scratch")
) -> None:  # fmt: skip
    """Write `weights.safetensors` and `logits.safetensors` to `folder`.

    Both hold one tensor a group of networks, `(repeats, P)` and `(repeats, test images, classes)`: a group for each
    loss, and `holdout`, trained with cross-entropy on what TS leaves (absent at one image a class). Logits come with
    the test `labels`. Repeat r is a function of `(seed, r)`: the groups share its initial weights and draws.

    Raises:
        UserError: `lr: learned` without a learned step size; a network whose weights are not finite.
    """
    data, step_size = load_set(distilled, prepared)
    if row.lr == "learned" and step_size is None:
        raise UserError(f"runs.{name}.lr: 'learned', but the distilled set has no step size of its own; allowed: a number > 0")
    lr = step_size if row.lr == "learned" else row.lr
    test = load_split(prepared, "test")
    images, targets, test_images = data.images.to(device), F.one_hot(data.labels, data.classes).float().to(device), test.images.to(device)
    flat = flat_convnet(network, data, device)
    schedule = Schedule(row.epochs, lr, settings.batch, settings.momentum, settings.weight_decay, row.augment, drop=True)

    groups = list(settings.losses)
    if held_out(data.labels, data.classes, settings.holdout, seed, 0) is not None:
        groups.append("holdout")
    units = [(group, repeat) for group in groups for repeat in range(settings.repeats)]
    work = {"row": row.model_dump(), "settings": settings.model_dump(exclude={"losses", "repeats"}), "network": network.model_dump(), "seed": seed}  # fmt: skip
    with scratch(f"train-{name}", work, [distilled, *prepared.glob("*.safetensors")], root) as here:
        files = {unit: here / f"{unit[0]}-{unit[1]:02}.safetensors" for unit in units}

        def run(chunk: list[int]) -> None:
            for group in groups:
                repeats = [units[i][1] for i in chunk if units[i][0] == group and not files[units[i]].exists()]
                if repeats:
                    _train_group(group, repeats)

        def _train_group(group: str, repeats: list[int]) -> None:
            x, t = images, targets
            if group == "holdout":
                kept = [torch.ones(len(data.labels), dtype=torch.bool) for _ in repeats]
                for keep, repeat in zip(kept, repeats):
                    keep[held_out(data.labels, data.classes, settings.holdout, seed, repeat)] = False
                x, t = (torch.stack([values[keep.to(device)] for keep in kept]) for values in (images, targets))
            loss = importlib.import_module(f"stages.losses.{'cross_entropy' if group == 'holdout' else group}")
            part = here / f"part-{group}-{repeats[0]}-{len(repeats)}.safetensors"
            keys = [(seed, "train", repeat) for repeat in repeats]
            theta = train(flat, loss, settings, x, t, schedule, keys, checkpoint=part).theta
            if not bool(theta.isfinite().all()):
                raise UserError(f"{name}: training with {group} left the finite numbers at lr {lr:g}; set a smaller runs.{name}.lr")
            for n, repeat in enumerate(repeats):
                write_tensors(files[group, repeat], {"theta": theta[n], "logits": predict(flat, theta[n], test_images)})
            part.unlink(missing_ok=True)

        missing = [i for i, unit in enumerate(units) if not files[unit].exists()]
        step_operations = 3 * flat.operations(images[:1]) * min(settings.batch, len(images))
        run_units(run, missing, step_operations, device, f"networks of {name}")
        done = {unit: load_file(file) for unit, file in files.items()}
        gathered = {key: {g: torch.stack([done[g, r][key] for r in range(settings.repeats)]) for g in groups} for key in ("theta", "logits")}
        write_tensors(folder / "weights.safetensors", gathered["theta"], work)
        write_tensors(folder / "logits.safetensors", gathered["logits"] | {"labels": test.labels})


@torch.no_grad()
def predict(network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """`(N, K)` logits of `(N, C, H, W)` images, a batch at a time."""
    return torch.cat([network(theta, batch) for batch in images.split(TEST_BATCH)])


def main(name: str) -> None:
    values, suite = find("runs", name)
    dataset = values["dataset"]
    settings = parse(TrainSettings, param("train"), "params.yaml: train")
    network = parse(NetworkSettings, suite["datasets"][dataset]["network"], f"datasets.{dataset}.network")
    prepared, distilled, folder = Path("data/prepare") / dataset, Path("data/distill") / name / "set.safetensors", Path("data/train") / name
    train_row(pick(TrainRow, values, f"runs.{name}"), name, settings, network, prepared, distilled, folder, param("seed"), pick_device(param("device")))


if __name__ == "__main__":
    run_stage(main)
