"""architectures: other networks on a row's distilled set -> accuracy and calibration of each.

    python -m stages.architectures [<row> ...]

A set is distilled for one network; what another network makes of it is the field's cross-architecture
generalisation.
"""

import importlib
from typing import Any

import numpy as np
import torch

from stages.images.prepared import LabelledImages
from stages.losses import cross_entropy
from stages.metrics.scores import log_softmax, scores
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_json
from stages.runtime.reuse import code_version, file_hash, fingerprint, read_json
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.network import NetworkSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.train import TrainKeys
from stages.training.flat import FlatNetwork
from stages.training.objective import Loss
from stages.training.repeats import Group, description, input_files, setup_of, train_groups, train_settings

__all__ = ["architectures", "build"]


def architectures(row: Row) -> None:
    """Write `{network: {"parameters": P, "accuracy" | "ece" | ...: [...]}}` of a row, one number a repeat.

    Every network is trained with cross-entropy on the row's own schedule, so that `convnet` is the row's Raw.

    Raises:
        UserError: the images are too small for a network; `lr: learned` without a learned step size; a
            network has weights that are not finite.
    """
    keys = row.keys(TrainKeys)
    settings = train_settings()
    networks = row.analysis("architectures", ArchitecturesKeys).networks
    bins = param("evaluate.bins")
    made_from = fingerprint(
        description(row, keys, settings),
        [file_hash(path) for path in input_files(row)],
        [networks, settings.repeats, bins, code_version("architectures")],
    )
    if read_json(row.architectures).get("made_from") == made_from:
        return
    setup = setup_of(row, keys, settings)
    groups = {}
    for name in networks:
        where = f"architectures.{row.name}.networks"
        network = build(name, setup.data, row.network, where, setup.device)
        groups[name] = Group(network, Loss(cross_entropy))
    results: dict[str, Any] = {"made_from": made_from}
    with scratch(f"architectures-{row.name}", description(row, keys, settings), input_files(row)) as folder:
        trained = train_groups(groups, setup, folder)
        for name, group in groups.items():
            numbers = repeat_scores(trained.logits[name].numpy(), setup.test.labels.numpy(), bins)
            results[name] = {"parameters": group.network.size, **numbers}
        write_json(row.architectures, results)


def build(
    name: str, data: LabelledImages, settings: NetworkSettings, where: str, device: torch.device
) -> FlatNetwork:
    """A network of `stages/networks` for the channels, the size and the classes of a data set's images.

    Args:
        where: the key of the settings that names the network, for messages.

    Raises:
        UserError: the images are too small for the network.
    """
    _, channels, size, _ = data.images.shape
    module = importlib.import_module(f"stages.networks.{name}")
    try:
        network = module.build(channels, size, data.classes, settings)
    except ValueError as problem:
        raise UserError(f"{where}: {problem}") from None
    return FlatNetwork(network.to(device))


def repeat_scores(logits: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, list[float]]:
    """Every score, one number a repeat, from `(repeats, N, K)` logits."""
    repeats = [scores(log_softmax(of_repeat), labels, bins) for of_repeat in logits]
    numbers = {}
    for name in repeats[0]:
        numbers[name] = [repeat[name] for repeat in repeats]
    return numbers


def main(*names: str) -> None:
    for row in finished_rows("architectures", names, lambda row: row.distilled, kind="architectures"):
        architectures(row)


if __name__ == "__main__":
    run_stage(main)
