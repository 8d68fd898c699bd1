"""Groups of networks that are trained on one set, several times over.

What to train on and what to show the networks afterwards is given by a `Setup`; no file is read here but
checkpoints.
"""

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stages.images.distilled import DistilledSet
from stages.images.prepared import LabelledImages
from stages.machine.engine import run_units
from stages.machine.precision import say_what_is_used
from stages.runtime.checksums import is_whole
from stages.runtime.errors import UserError
from stages.runtime.files import read_tensors, write_tensors
from stages.settings.project import param
from stages.settings.rows import Row
from stages.settings.section import parse
from stages.settings.train import TrainKeys, TrainSettings
from stages.training.flat import FlatNetwork, predict
from stages.training.loop import Schedule, examples, train
from stages.training.needs import bytes_of_network
from stages.training.objective import Loss
from stages.training.snapshots import delete_checkpoint

__all__ = [
    "Group",
    "GroupResults",
    "Setup",
    "description",
    "own_settings",
    "schedule_of",
    "step_size_of",
    "train_groups",
    "train_settings",
]


class Setup(NamedTuple):
    """What all groups of networks have in common."""

    row: str  # its name
    title: str  # what is trained, for messages: the row, or the row and what is changed
    data: LabelledImages  # to train on
    rows: list[torch.Tensor] | None  # for each repeat, the positions of its images; None: all
    test: LabelledImages
    schedule: Schedule
    repeats: int
    seed: int
    device: torch.device
    purpose: str = "train"  # networks for different purposes have different random draws


class Group(NamedTuple):
    """Networks that differ in their repeat alone."""

    network: FlatNetwork
    loss: Loss
    rows: list[torch.Tensor] | None = None  # in place of those of the setup


class GroupResults(NamedTuple):
    """The networks of each group, and what they make of the test images."""

    weights: dict[str, torch.Tensor]  # (repeats, P)
    logits: dict[str, torch.Tensor]  # (repeats, N, K)


def train_settings() -> TrainSettings:
    """`train` of params.yaml."""
    return parse(TrainSettings, param("train"), "params.yaml: train")


def schedule_of(keys: TrainKeys, settings: TrainSettings, distilled: DistilledSet, row: str) -> Schedule:
    """The schedule of a row: `train` of params.yaml, and what the row has otherwise.

    Args:
        row: its name, for messages.

    Raises:
        UserError: `lr: learned` or `lr: teacher`, but the set came without such a step size.
    """
    settings = own_settings(keys, settings)
    return Schedule(
        epochs=keys.epochs,
        lr=step_size_of(keys, distilled, row),
        batch=settings.batch,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        augment=keys.augment,
        drop=settings.drop,
        mix_first=settings.mixup_first,
        precision=settings.precision,
    )


def own_settings(keys: TrainKeys, settings: TrainSettings) -> TrainSettings:
    """`train` of params.yaml, with what the row has otherwise."""
    own = {key: value for key, value in keys.train.model_dump().items() if value is not None}
    return settings.model_copy(update=own)


def step_size_of(keys: TrainKeys, distilled: DistilledSet, row: str) -> float:
    """The step size that `lr` of a row stands for.

    Raises:
        UserError: `lr: learned` or `lr: teacher`, but the set came without such a step size.
    """
    if keys.lr == "learned":
        lr, key = distilled.step_size, "step_size"
    elif keys.lr == "teacher":
        lr, key = distilled.teacher_step_size, "teacher_step_size"
    else:
        return keys.lr
    if lr is None:
        problem = f"{keys.lr!r}, but the distilled set has no such step size of its own"
        allowed = f"a number > 0, or with backbone 'file' a distill.{key}"
        raise UserError(f"runs.{row}.lr: {problem}; allowed: {allowed}")
    return lr


def description(row: Row, keys: TrainKeys, settings: TrainSettings) -> dict[str, Any]:
    """Everything that the networks of a row depend on beside `input_files`."""
    return {
        "row": keys.model_dump(),
        "settings": settings.model_dump(exclude={"losses", "repeats"}),
        "network": row.network.model_dump(),
        "seed": row.seed,
    }


def train_groups(groups: dict[str, Group], setup: Setup, folder: Path) -> GroupResults:
    """Train every group of networks.

    Repeat r is a function of `(seed, purpose, r)`: groups share its initial weights, and the order of
    the images where they have the same ones. Finished networks are kept in `folder`, and are not trained
    again.

    Raises:
        UserError: a network has weights that are not finite.
    """
    training = _Training(groups, setup, folder)
    training.run_missing()
    weights = {}
    logits = {}
    for group in groups:
        files = [training.file(_Unit(group, repeat)) for repeat in range(setup.repeats)]
        networks = [read_tensors(file) for file in files]
        weights[group] = torch.stack([network["theta"] for network in networks])
        logits[group] = torch.stack([network["logits"] for network in networks])
    return GroupResults(weights, logits)


class _Unit(NamedTuple):
    """A network, as one of its group."""

    group: str
    repeat: int


class _Training:
    """The training of groups, network by network or several at once."""

    def __init__(self, groups: dict[str, Group], setup: Setup, folder: Path):
        self.groups = groups
        self.setup = setup
        self.folder = folder
        self.examples = examples(setup.data, setup.device)
        self.test_images = setup.test.images.to(setup.device)
        self.units = [_Unit(*unit) for unit in product(groups, range(setup.repeats))]

    def file(self, unit: _Unit) -> Path:
        """The file of a finished network."""
        return self.folder / f"{unit.group}-{unit.repeat:02}.safetensors"

    def run_missing(self) -> None:
        """Train the networks that have no file yet, or a damaged one."""
        missing = [number for number, unit in enumerate(self.units) if not is_whole(self.file(unit))]
        image = self.examples.images[:1]
        forward = max(group.network.operations(image) for group in self.groups.values())
        batch = min(self.setup.schedule.batch, len(self.examples.images))
        title = f"networks of {self.setup.title}"
        needed = max(bytes_of_network(group.network, image, batch) for group in self.groups.values())
        say_what_is_used(self.setup.schedule.precision, self.setup.device)
        run_units(self, missing, 3 * forward * batch, self.setup.device, title, needed)

    def on(self, device: torch.device) -> "_Training":
        """The same on another device."""
        groups = {}
        for name, group in self.groups.items():
            groups[name] = group._replace(network=group.network.to(device))
        return _Training(groups, self.setup._replace(device=device), self.folder)

    def run(self, numbers: list[int]) -> None:
        """Train the units of these numbers; those that are finished are left out."""
        units = [self.units[number] for number in numbers]
        missing = [unit for unit in units if not self.file(unit).exists()]
        for group in self.groups:
            repeats = [unit.repeat for unit in missing if unit.group == group]
            if repeats:
                self.train_group(group, repeats)

    def train_group(self, name: str, repeats: list[int]) -> None:
        """Train some repeats of a group side by side, and write each to its file."""
        network, loss, own = self.groups[name]
        rows = own or self.setup.rows
        keys = [(self.setup.seed, self.setup.purpose, repeat) for repeat in repeats]
        own_rows = [rows[repeat] for repeat in repeats] if rows else None
        data = self.examples._replace(rows=own_rows)
        checkpoint = self.folder / f"part-{name}-{repeats[0]}-{len(repeats)}.safetensors"
        weights = train(network, loss, data, self.setup.schedule, keys, checkpoint).theta
        if not bool(weights.isfinite().all()):
            lr = self.setup.schedule.lr
            problem = f"training with {name} at lr {lr:g} gave weights that are not finite"
            raise UserError(f"{self.setup.title}: {problem}; set a smaller runs.{self.setup.row}.lr")
        for repeat, theta in zip(repeats, weights):
            logits = predict(network, theta, self.test_images)
            write_tensors(self.file(_Unit(name, repeat)), {"theta": theta, "logits": logits})
        delete_checkpoint(checkpoint)
