"""architectures: other networks on a row's distilled set -> accuracy and calibration of each.

    python -m stages.architectures <row>

A set is distilled for one network; what another makes of it is the field's cross-architecture generalisation.
"""

import importlib
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from stages.losses import cross_entropy
from stages.metrics.scores import log_softmax, scores
from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_json
from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages, load_set, load_split
from stages.shared.repeats import Group, train_groups
from stages.shared.settings import Section, find, param, parse, pick
from stages.train import TrainRow, TrainSettings, schedule_of

__all__ = ["ArchitecturesSettings", "architectures"]


class ArchitecturesSettings(Section):
    """`architectures.<row>` of a suite."""

    dataset: str  # the row's
    networks: Annotated[list[str], Field(min_length=1)]  # files of stages/networks


def architectures(
    networks: list[str], row: TrainRow, name: str, settings: TrainSettings, network: NetworkSettings, bins: int, prepared: Path, distilled: Path, file: Path, seed: int, device: torch.device, root: Path = Path("scratch")
) -> None:  # fmt: skip
    """Write `{network: {"parameters": P, "accuracy" | "ece" | ...: [...]}}` to `file`, one number a repeat.

    Every network is trained with cross-entropy on the row's own schedule, `convnet` exactly as the row's Raw.

    Raises:
        UserError: images too small for a network; `lr: learned` without a learned step size; weights that are not finite.
    """
    data, step_size = load_set(distilled, prepared)
    test, schedule = load_split(prepared, "test"), schedule_of(row, settings, step_size, name)
    groups = {key: Group(build(key, data, network, f"architectures.{name}.networks", device), cross_entropy) for key in networks}
    work = {"row": row.model_dump(), "settings": settings.model_dump(exclude={"losses", "repeats"}), "network": network.model_dump(), "seed": seed}  # fmt: skip
    with scratch(f"architectures-{name}", work, [distilled, *prepared.glob("*.safetensors")], root) as here:
        _, logits = train_groups(groups, settings.repeats, settings, data, test.images, schedule, seed, name, here, device)
        result = {}
        for key, group in groups.items():
            each = [scores(log_softmax(one), test.labels.numpy(), bins) for one in logits[key].numpy()]
            result[key] = {"parameters": group.network.size} | {number: [one[number] for one in each] for number in each[0]}
        write_json(file, result)


def build(key: str, data: LabelledImages, settings: NetworkSettings, where: str, device: torch.device) -> FlatNetwork:
    """A network of `stages/networks` for a data set's channels, size and classes."""
    _, channels, size, _ = data.images.shape
    try:
        return FlatNetwork(importlib.import_module(f"stages.networks.{key}").build(channels, size, data.classes, settings).to(device))
    except ValueError as problem:
        raise UserError(f"{where}: {problem}") from None


def main(name: str) -> None:
    values, suite = find("architectures", name)
    settings = pick(ArchitecturesSettings, values, f"architectures.{name}")
    architectures(
        settings.networks,
        pick(TrainRow, suite["runs"][name], f"runs.{name}"),
        name,
        parse(TrainSettings, param("train"), "params.yaml: train"),
        parse(NetworkSettings, suite["datasets"][settings.dataset]["network"], f"datasets.{settings.dataset}.network"),
        param("evaluate")["bins"],
        Path("data/prepare") / settings.dataset,
        Path("data/distill") / name / "set.safetensors",
        Path("data/evaluate/architectures") / f"{name}.json",
        param("seed"),
        pick_device(param("device")),
    )


if __name__ == "__main__":
    run_stage(main)
