"""train: networks on a distilled set, for every loss and repeat -> weights and test logits.

    python -m stages.train <row>

No temperature is fitted here; Raw, mixup, label smoothing and focal loss need none.
"""

import importlib
from collections.abc import Container

import torch

from stages.images.prepared import LabelledImages
from stages.images.sampling import held_out, kept
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import write_tensors
from stages.settings.rows import Row
from stages.settings.train import TrainKeys, TrainSettings
from stages.tools.records import recorded
from stages.training.flat import FlatNetwork, flat_convnet
from stages.training.groups import Group, Setup, description, train_groups, train_settings
from stages.training.objective import Loss
from stages.training.repeats import input_files, setup_of

__all__ = ["train_row"]


def train_row(row: Row) -> None:
    """Write `weights.safetensors` and `logits.safetensors` of a row.

    Both hold one tensor for each group of networks, `(repeats, P)` and `(repeats, test images,
    classes)`. There is a group for each loss, and `holdout`, which is trained with cross-entropy on the
    images that TS leaves; it is absent at one image a class. Losses that need a class for each image are
    absent where the labels of the set are soft. The logits come with the test `labels`.
    Repeat r is a function of `(seed, r)`: the groups share its initial weights, and the order of the images
    where they have the same ones. The weights come with the settings, the step size, the number of sets and
    the reason why a loss is absent, in the metadata of their file.

    Raises:
        UserError: `lr: learned` or `teacher`, but the set came without such a step size; a network has
            weights that are not finite.
    """
    keys = row.keys(TrainKeys)
    settings = train_settings()
    setup = setup_of(row, keys, settings)
    network = flat_convnet(row.network, setup.data, setup.device)
    absent = absent_losses(settings, setup.data)
    for name, reason in absent.items():
        print(f"{row.name}: no networks with {name}: {reason}")
    groups = loss_groups(network, settings, absent)
    rows = kept_rows(setup, settings.holdout)
    if rows:
        groups["holdout"] = Group(network, groups["cross_entropy"].loss, rows)
    about = description(row, keys, settings)
    with scratch(f"train-{row.name}", about, input_files(row)) as folder:
        results = train_groups(groups, setup, folder)
        reasons = {"absent": absent} if absent else {}
        write_tensors(row.weights, results.weights, about | outcome(setup) | reasons)
        write_tensors(row.logits, results.logits | {"labels": setup.test.labels})


def outcome(setup: Setup) -> dict[str, float]:
    """What the networks were trained with that the settings do not say: the step size, and how many sets."""
    sets = 1
    if setup.rows:
        first_rows = {int(rows[0]) for rows in setup.rows}  # no two sets have an image in common
        sets = len(first_rows)
    return {"step_size": setup.schedule.lr, "sets": sets}


def absent_losses(settings: TrainSettings, data: LabelledImages) -> dict[str, str]:
    """The losses that no network is trained with, each with the reason."""
    absent = {}
    for name in settings.losses:
        if data.is_soft and loss_of(name, settings).needs_classes:
            absent[name] = "it needs a class for each image, and the labels of the set are soft"
    return absent


def loss_groups(network: FlatNetwork, settings: TrainSettings, absent: Container[str]) -> dict[str, Group]:
    """A group of networks for each loss that is not absent."""
    return {name: Group(network, loss_of(name, settings)) for name in settings.losses if name not in absent}


def loss_of(name: str, settings: TrainSettings) -> Loss:
    """The loss of this name, which is a file of `stages/losses`."""
    return Loss(importlib.import_module(f"stages.losses.{name}"), settings)


def kept_rows(setup: Setup, share: float) -> list[torch.Tensor] | None:
    """Positions of the images that TS leaves to each repeat; None where a class has a single image."""
    labels = setup.data.labels
    classes = setup.data.classes
    remaining = []
    for repeat in range(setup.repeats):
        rows = setup.rows[repeat] if setup.rows else torch.arange(len(labels))
        if held_out(labels[rows], classes, share, setup.seed, repeat) is None:
            return None
        remaining.append(rows[kept(labels[rows], classes, share, setup.seed, repeat)])
    return remaining


def main(name: str) -> None:
    train_row(Row(name))


if __name__ == "__main__":
    run_stage(recorded(main))
