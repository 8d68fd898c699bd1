"""train: networks on a distilled set, for every loss and repeat -> weights and test logits.

    python -m stages.train <row>
"""

import importlib
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_tensors
from stages.shared.flat import flat_convnet
from stages.shared.images import load_set, load_split
from stages.shared.repeats import Group, train_groups
from stages.shared.sampling import held_out, kept
from stages.shared.settings import Count, Positive, Ratio, Section, find, param, parse, pick
from stages.shared.training import Schedule

__all__ = ["TrainRow", "TrainSettings", "schedule_of", "train_row"]


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
    test, flat, schedule = load_split(prepared, "test"), flat_convnet(network, data, device), schedule_of(row, settings, step_size, name)
    groups = {loss: Group(flat, importlib.import_module(f"stages.losses.{loss}")) for loss in settings.losses}
    if held_out(data.labels, data.classes, settings.holdout, seed, 0) is not None:
        rows = [kept(data.labels, data.classes, settings.holdout, seed, repeat) for repeat in range(settings.repeats)]
        groups["holdout"] = Group(flat, groups["cross_entropy"].loss, rows)
    work = {"row": row.model_dump(), "settings": settings.model_dump(exclude={"losses", "repeats"}), "network": network.model_dump(), "seed": seed}  # fmt: skip
    with scratch(f"train-{name}", work, [distilled, *prepared.glob("*.safetensors")], root) as here:
        theta, logits = train_groups(groups, settings.repeats, settings, data, test.images, schedule, seed, name, here, device)
        write_tensors(folder / "weights.safetensors", theta, work)
        write_tensors(folder / "logits.safetensors", logits | {"labels": test.labels})


def schedule_of(row: TrainRow, settings: TrainSettings, learned: float | None, name: str) -> Schedule:
    """How the row's networks are trained; its `lr` may be the step size that the distilled set has learned."""
    if row.lr == "learned" and learned is None:
        raise UserError(f"runs.{name}.lr: 'learned', but the distilled set has no step size of its own; allowed: a number > 0, or with backbone 'file' a distill.step_size")
    lr = learned if row.lr == "learned" else row.lr
    return Schedule(row.epochs, lr, settings.batch, settings.momentum, settings.weight_decay, row.augment, drop=True)


def main(name: str) -> None:
    values, suite = find("runs", name)
    dataset = values["dataset"]
    settings = parse(TrainSettings, param("train"), "params.yaml: train")
    network = parse(NetworkSettings, suite["datasets"][dataset]["network"], f"datasets.{dataset}.network")
    prepared, distilled, folder = Path("data/prepare") / dataset, Path("data/distill") / name / "set.safetensors", Path("data/train") / name
    train_row(pick(TrainRow, values, f"runs.{name}"), name, settings, network, prepared, distilled, folder, param("seed"), pick_device(param("device")))


if __name__ == "__main__":
    run_stage(main)
