"""The training loop of experts and of networks on distilled sets.

It is SGD on batches that may be augmented, for many networks at once.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tqdm import tqdm

from stages.images.augment import Draw, Draws, augment_each, draw, draws_of
from stages.images.prepared import LabelledImages, NormalisedImages
from stages.machine.precision import tf32_if_asked
from stages.machine.transfer import send
from stages.runtime.checksums import is_whole
from stages.runtime.files import read_about, read_tensors, write_tensors
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork
from stages.training.gradients import Workload, choose_gradients
from stages.training.objective import Loss, Objective
from stages.training.snapshots import are_whole, read_snapshots, write_snapshots

__all__ = ["Examples", "Schedule", "Trained", "examples", "train"]

CHECKPOINT_SECONDS = 30


class Schedule(NamedTuple):
    """How networks are trained, and what is kept of them."""

    epochs: int
    lr: float  # step size
    batch: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: bool = True  # whether every batch is augmented as DSA does
    drop: bool = False  # whether the second half has a tenth of the step size
    mix_first: bool = False  # whether the loss mixes the images before they are augmented, not after
    precision: str = "float32"  # of the products, as in `Precision` of stages/settings/section.py
    keep_snapshots: bool = False  # whether the weights after each epoch are kept

    @property
    def first_slow_epoch(self) -> int | None:
        """The epoch from which on the step size is a tenth and the velocity starts afresh; None: never."""
        return self.epochs // 2 + 2 if self.drop else None

    def lr_at(self, epoch: int) -> float:
        """The step size of an epoch."""
        first = self.first_slow_epoch
        slow = first is not None and epoch >= first
        return self.lr * 0.1 if slow else self.lr


class Examples(NamedTuple):
    """What networks are trained on."""

    images: torch.Tensor | NormalisedImages  # (N, C, H, W)
    targets: torch.Tensor  # (N, K): class probabilities
    rows: list[torch.Tensor] | None = None  # (M,) on the CPU for each network: its images; None: all of them

    @property
    def size(self) -> int:
        """The number of images that each network is trained on."""
        return len(self.images if self.rows is None else self.rows[0])

    def to(self, device: torch.device) -> "Examples":
        return self._replace(images=self.images.to(device), targets=self.targets.to(device))


def examples(data: LabelledImages, device: torch.device) -> Examples:
    """Labelled images on a device, with their soft labels as targets, or with one-hot ones."""
    targets = F.one_hot(data.labels, data.classes).float() if data.targets is None else data.targets
    return Examples(data.images.to(device), targets.to(device))


class Trained(NamedTuple):
    """S networks."""

    theta: torch.Tensor  # (S, P)
    snapshots: torch.Tensor | None  # (S, epochs + 1, P): at initialisation and after each epoch
    losses: torch.Tensor  # (S, epochs): mean training loss
    accuracies: torch.Tensor  # (S, epochs): on the (augmented) training batches


@dataclass
class State:
    """How far the training of S networks has come."""

    epoch: int  # the next one
    theta: torch.Tensor  # (S, P)
    velocity: torch.Tensor  # (S, P)
    curves: torch.Tensor  # (2, S, epochs): losses and accuracies
    snapshots: list[torch.Tensor] = field(default_factory=list)  # each (S, P)
    files: dict[str, str] = field(default_factory=dict)  # that have the first `written` of them, with digests
    written: int = 0

    @classmethod
    def first(
        cls, network: FlatNetwork, schedule: Schedule, keys: list[tuple], device: torch.device
    ) -> "State":
        """Initial weights, each from its network's key."""
        initial = [network.initial(generator(*key, "initial")) for key in keys]
        theta = torch.stack(initial).to(device)
        curves = torch.zeros(2, len(keys), schedule.epochs, device=device)
        snapshots = [theta] if schedule.keep_snapshots else []
        return cls(0, theta, torch.zeros_like(theta), curves, snapshots)

    @classmethod
    def load(cls, file: Path, device: torch.device) -> "State":
        """What `save` has left in a file."""
        tensors = {name: value.to(device) for name, value in read_tensors(file).items()}
        about = read_about(file)
        files = about["files"]
        snapshots = read_snapshots(file, files, device)
        return cls(about["epoch"], **tensors, snapshots=snapshots, files=files, written=len(snapshots))

    def save(self, file: Path, keys: list[tuple]) -> None:
        """Write the state of the networks with these keys, and the snapshots that no file has yet."""
        new = self.snapshots[self.written :]
        if new:  # before the state that names them, so that a kill in between leaves the former state
            self.files |= write_snapshots(file, self.written, new)
            self.written = len(self.snapshots)
        tensors = {"theta": self.theta, "velocity": self.velocity, "curves": self.curves}
        write_tensors(file, tensors, {"epoch": self.epoch, "keys": keys, "files": self.files})

    def of(self, networks: list[int]) -> "State":
        """The state of some of the networks, by their places; no file has snapshots of theirs alone."""
        snapshots = [snapshot[networks] for snapshot in self.snapshots]
        curves = self.curves[:, networks]
        return State(self.epoch, self.theta[networks], self.velocity[networks], curves, snapshots)

    def step(self, gradient: torch.Tensor, lr: float, schedule: Schedule) -> None:
        """A step of SGD with momentum and weight decay."""
        decay = schedule.weight_decay * self.theta
        self.velocity = schedule.momentum * self.velocity + gradient + decay
        self.theta = self.theta - lr * self.velocity

    def trained(self) -> Trained:
        snapshots = torch.stack(self.snapshots, 1) if self.snapshots else None
        losses, accuracies = self.curves
        return Trained(self.theta, snapshots, losses, accuracies)


def train(
    network: FlatNetwork,
    loss: Loss,
    data: Examples,
    schedule: Schedule,
    keys: list[tuple],
    checkpoint: Path | None = None,
) -> Trained:
    """Train `S = len(keys)` networks side by side.

    Network i is a function of `keys[i]`, not of how many networks are trained beside it.

    Args:
        keys: of the networks' random draws, e.g. `(seed, "train", repeat)`.
        checkpoint: a file to save to every half minute, `<what>-<first>-<number>.safetensors`, and to resume
            from unless it is damaged. Snapshots are in files beside it (`snapshots.py`).
    """
    device = data.images.device
    state = saved_state(checkpoint, keys, device) if checkpoint else None
    if state is None:
        state = State.first(network, schedule, keys, device)
    saved = time.monotonic()
    objective = Objective(network, loss, schedule.precision)
    work = Workload(len(keys), min(schedule.batch, data.size), data.size * schedule.epochs)
    gradients = choose_gradients(objective, data.images[:1], work)

    epochs = range(state.epoch, schedule.epochs)
    for epoch in tqdm(epochs, "epoch", initial=state.epoch, total=schedule.epochs, disable=None, leave=False):
        if epoch == schedule.first_slow_epoch:
            state.velocity = torch.zeros_like(state.velocity)
        lr = schedule.lr_at(epoch)
        draws = [generator(*key, epoch) for key in keys]
        for images, targets in batches(data, loss, schedule, draws):
            with tf32_if_asked(schedule.precision):
                gradient, loss_value, accuracy = gradients(state.theta, images, targets)
            state.step(gradient, lr, schedule)
            share = images.shape[1] / data.size
            state.curves[:, :, epoch] += share * torch.stack([loss_value, accuracy])
        state.epoch = epoch + 1
        if schedule.keep_snapshots:
            state.snapshots.append(state.theta)
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(checkpoint, keys)
            saved = time.monotonic()
    return state.trained()


def saved_state(checkpoint: Path, keys: list[tuple], device: torch.device) -> State | None:
    """The state that is saved in a file, or beside it in one for more networks; None without one.

    Networks that were trained together are trained in halves where the memory of a GPU was too small.
    """
    what = checkpoint.stem.rsplit("-", 2)[0]
    name = re.compile(rf"{re.escape(what)}-\d+-\d+\.safetensors")
    others = sorted(file for file in checkpoint.parent.glob("*.safetensors") if name.fullmatch(file.name))
    for file in [checkpoint, *others]:
        if not is_whole(file):
            continue
        about = read_about(file)
        saved = [tuple(key) for key in about["keys"]]
        if set(keys) <= set(saved) and are_whole(file, about["files"]):
            state = State.load(file, device)
            is_own = file == checkpoint and saved == keys
            return state if is_own else state.of([saved.index(key) for key in keys])
    return None


class Batch(NamedTuple):
    """What is drawn for a batch of S networks."""

    rows: torch.Tensor  # (S, B): which images
    augmentation: Draws | None
    mixing: dict[str, torch.Tensor]  # what the loss needs to mix them; (S, ...) each


def batches(
    data: Examples, loss: Loss, schedule: Schedule, draws: list[torch.Generator]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch: images `(S, B, C, H, W)` and targets `(S, B, K)`.

    Every network has an order and an augmentation of its own, from its own generator. All are drawn ahead.
    """
    by_network = [network_draws(data, loss, schedule, place, own) for place, own in enumerate(draws)]
    drawn = [together(of_batch) for of_batch in zip(*by_network)]
    for own in send(drawn, data.images.device):
        yield batch(data, loss, schedule, own)


class NetworkBatch(NamedTuple):
    """What is drawn for a batch of one network, on the CPU."""

    rows: torch.Tensor  # (B,)
    augmentation: Draw | None
    mixing: dict[str, torch.Tensor]


def network_draws(
    data: Examples, loss: Loss, schedule: Schedule, network: int, draws: torch.Generator
) -> list[NetworkBatch]:
    """What is drawn for an epoch of one network."""
    order = torch.randperm(data.size, generator=draws)
    if data.rows is not None:
        order = data.rows[network][order]
    drawn = []
    for rows in order.split(schedule.batch):
        mixing = loss.draw(len(rows), draws) if schedule.mix_first else {}
        augmentation = draw(draws, len(rows)) if schedule.augment else None
        if not schedule.mix_first:
            mixing = loss.draw(len(rows), draws)
        drawn.append(NetworkBatch(rows, augmentation, mixing))
    return drawn


def together(of_batch: Sequence[NetworkBatch]) -> Batch:
    """The draws of all networks for one batch."""
    rows = torch.stack([own.rows for own in of_batch])
    augmentations = [own.augmentation for own in of_batch if own.augmentation]
    mixing = {}
    for name in of_batch[0].mixing:
        mixing[name] = torch.stack([own.mixing[name] for own in of_batch])
    return Batch(rows, draws_of(augmentations) if augmentations else None, mixing)


def batch(data: Examples, loss: Loss, schedule: Schedule, drawn: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of S networks: images `(S, B, C, H, W)` and targets `(S, B, K)`."""
    rows = drawn.rows.flatten()
    images = data.images[rows].unflatten(0, drawn.rows.shape)
    targets = data.targets[rows].unflatten(0, drawn.rows.shape)
    if schedule.mix_first:
        images, targets = loss.mix(images, targets, drawn.mixing)
    if drawn.augmentation:
        images = augment_each(images, drawn.augmentation)
    if not schedule.mix_first:
        images, targets = loss.mix(images, targets, drawn.mixing)
    return images, targets
