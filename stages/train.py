"""train: networks on a distilled set, for every loss and repeat -> weights and test logits.

    python -m stages.train <row>

No temperature is fitted here; Raw, mixup, label smoothing and focal loss need none.
"""

import importlib

import torch

from stages.images.prepared import LabelledImages
from stages.images.sampling import held_out, kept
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import write_tensors
from stages.settings.rows import Row
from stages.settings.train import TrainKeys, TrainSettings
from stages.training.flat import FlatNetwork, flat_convnet
from stages.training.objective import Loss
from stages.training.repeats import Group, description, input_files, setup_of, train_groups, train_settings

__all__ = ["train_row"]


def train_row(row: Row) -> None:
    """Write `weights.safetensors` and `logits.safetensors` of a row.

    Both hold one tensor for each group of networks, `(repeats, P)` and `(repeats, test images,
    classes)`. There is a group for each loss, and `holdout`, which is trained with cross-entropy on the
    images that TS leaves; it is absent at one image a class. The logits come with the test `labels`.
    Repeat r is a function of `(seed, r)`: the groups share its initial weights and random draws.

    Raises:
        UserError: `lr: learned` without a learned step size; a network has weights that are not finite.
    """
    keys = row.keys(TrainKeys)
    settings = train_settings()
    setup = setup_of(row, keys, settings)
    network = flat_convnet(row.network, setup.data, setup.device)
    groups = loss_groups(network, settings)
    rows = kept_rows(setup.data, settings, setup.seed)
    if rows:
        groups["holdout"] = Group(network, groups["cross_entropy"].loss, rows)
    about = description(row, keys, settings)
    with scratch(f"train-{row.name}", about, input_files(row)) as folder:
        results = train_groups(groups, setup, folder)
        write_tensors(row.weights, results.weights, about)
        write_tensors(row.logits, results.logits | {"labels": setup.test.labels})


def loss_groups(network: FlatNetwork, settings: TrainSettings) -> dict[str, Group]:
    """A group of networks for each loss."""
    groups = {}
    for name in settings.losses:
        module = importlib.import_module(f"stages.losses.{name}")
        groups[name] = Group(network, Loss(module, settings))
    return groups


def kept_rows(data: LabelledImages, settings: TrainSettings, seed: int) -> list[torch.Tensor] | None:
    """Positions of the images that TS leaves to each repeat; None where a class has a single image."""
    share = settings.holdout
    if held_out(data.labels, data.classes, share, seed, 0) is None:
        return None
    return [kept(data.labels, data.classes, share, seed, repeat) for repeat in range(settings.repeats)]


def main(name: str) -> None:
    train_row(Row(name))


if __name__ == "__main__":
    run_stage(main)
