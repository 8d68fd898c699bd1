"""Operations, calls and bytes of the steps of training and distillation, counted and not measured.

Operations are those of the products with weights, by the layers' shapes (`FlatNetwork.operations`): a
gradient takes 3 forward passes, a Hessian product 8 more. Calls, bytes and memory are counted while the
project's own code runs on tensors that have shapes but no values (PyTorch's `meta` device), as eager code
would run on a GPU. Compiled code makes fewer calls and moves fewer bytes.
"""

import math
import weakref
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.distill import INNER_STEP, MATCHED, REAL
from stages.backbones import dc, mtt, rtp
from stages.distillation import back_propagation_through_time
from stages.distillation.back_propagation_through_time import AddressableMemory, PlainImages, at_most
from stages.distillation.backbone import Problem
from stages.distillation.gradient_distance import ByProducts
from stages.distillation.trajectory_matching import matching_loss
from stages.distillation.unroll import InnerLoss, InnerTraining, unrolled_gradient
from stages.images.augment import OPERATIONS, Draw, augment
from stages.images.prepared import LabelledImages
from stages.losses import cross_entropy
from stages.machine.engine import how_many_together, part_size
from stages.training import gradients
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule, State
from stages.training.objective import Loss, Objective

__all__ = [
    "CPU",
    "META",
    "NUMBER",
    "Load",
    "Subject",
    "Training",
    "forward",
    "matching",
    "mtt_load",
    "rtp_load",
    "seen",
    "training",
]

META = torch.device("meta")
CUDA = torch.device("cuda")
CPU = torch.device("cpu")
NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class Load:
    """What a piece of work takes."""

    operations: float = 0.0  # floating-point, of products
    calls: float = 0.0  # of PyTorch's operators, views left out
    bytes: float = 0.0  # that the calls read and write
    peak: float = 0.0  # bytes that are alive at once, of what the work itself makes

    def __add__(self, other: "Load") -> "Load":
        """One after the other."""
        return Load(
            self.operations + other.operations,
            self.calls + other.calls,
            self.bytes + other.bytes,
            max(self.peak, other.peak),
        )

    def times(self, count: float) -> "Load":
        """The same, so many times over."""
        return Load(self.operations * count, self.calls * count, self.bytes * count, self.peak)


class Subject(NamedTuple):
    """A network, and the images that it is for."""

    network: FlatNetwork  # on the `meta` device
    channels: int
    side: int  # pixels
    classes: int

    def images(self, *count: int) -> Tensor:
        """Images without values, `(*count, C, H, W)`."""
        return torch.empty(*count, self.channels, self.side, self.side, device=META)

    @property
    def forward(self) -> int:
        """Operations of the forward pass of an image."""
        return _forward(self)


@cache
def _forward(subject: Subject) -> int:
    return subject.network.operations(subject.images(1))


# Counting


class Seen(TorchDispatchMode):
    """Counts the calls of PyTorch's operators, and the bytes that they read, write and keep."""

    def __init__(self):
        super().__init__()
        self.operations = 0  # by PyTorch's own formulas, which are wrong for grouped convolutions
        self.calls = 0
        self.bytes = 0
        self.alive = 0
        self.peak = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        outputs = tensors_in(result)
        for output in outputs:
            self._keep(output)
        if not function.is_view:
            self.calls += 1
            read_and_written = tensors_in((args, kwargs)) + outputs
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in read_and_written)
        formula = flop_registry.get(function.overloadpacket)
        if formula:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self.storages:
            return
        size = storage.nbytes()
        self.storages.add(address)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self.storages.discard(address)
        self.alive -= size


def tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def without_autocast():
    """The `meta` device has no autocast, which changes no shape."""
    with mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext()):
        yield


def seen(work: Callable[[], object]) -> Seen:
    """What a function does on tensors of the `meta` device."""
    with without_autocast(), Seen() as counts:
        result = work()
        del result
    return counts


def load_of(work: Callable[[], object], operations: float) -> Load:
    counts = seen(work)
    return Load(operations, counts.calls, counts.bytes, counts.peak)


@cache
def augmentation(subject: Subject, count: int) -> Load:
    """A batch that is augmented, on average over the six operations of DSA."""
    mean = Load()
    for operation in OPERATIONS:
        drawn = Draw(operation, torch.empty(count, 3, device=META))
        mean = mean + load_of(partial(augment, subject.images(count), drawn), 0)
    return mean.times(1 / len(OPERATIONS))


def forward(subject: Subject, images: float) -> Load:
    """Forward passes of so many images; only their operations are counted."""
    return Load(subject.forward * images)


# Training


class Training(NamedTuple):
    """Networks that are trained side by side."""

    networks: int
    images: int  # that each of them has
    epochs: int
    batch: int
    augment: bool = True


def training(subject: Subject, work: Training, device: torch.device = CUDA) -> Load:
    """Networks that are trained as a group: gradients, steps and the augmentation of their batches.

    Args:
        device: a CPU takes one network at a time, and batches in parts.
    """
    batch = min(work.batch, work.images)
    together = work.networks if device.type == "cuda" else 1
    part = batch
    if device.type == "cpu":
        part = part_size(batch, subject.network.largest_layer(torch.zeros_like(subject.images(1))), CPU)
    step = training_step(subject, together, part)
    if work.augment:
        step = step + augmentation(subject, part).times(together)
    steps = work.epochs * math.ceil(work.images / batch) * work.networks / together
    calls = step.calls * steps * batch / part
    shown = work.epochs * work.images * work.networks  # images, over all networks
    operations = REAL * subject.forward * shown
    weights = together * subject.network.size * NUMBER
    return Load(operations, calls, step.bytes * shown / (together * part), step.peak + weights)


@cache
def training_step(subject: Subject, networks: int, batch: int) -> Load:
    """A step of networks side by side; its operations are left out."""
    objective = Objective(subject.network, Loss(cross_entropy))
    engine = gradients.choose_way(subject.network, networks, CUDA)(objective)
    theta = torch.empty(networks, subject.network.size, device=META)
    images = subject.images(networks, batch)
    targets = torch.empty(networks, batch, subject.classes, device=META)
    schedule = Schedule(1, 0.01, batch, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        state = State(0, theta, torch.zeros_like(theta), theta)
        gradient, *_ = engine(theta, images, targets)
        state.step(gradient, 0.01, schedule)

    return load_of(step, 0)


# Distillation


def by_steps(iteration: Callable[[int], Load], steps: int, kept: int) -> Load:
    """An iteration of so many inner steps, from one of one step and one of two: each adds the same.

    Args:
        kept: numbers that each step keeps until the way back.
    """
    one = iteration(1)
    if steps == 1:
        return one
    two = iteration(2)
    further = steps - 1
    return Load(
        one.operations + further * (two.operations - one.operations),
        one.calls + further * (two.calls - one.calls),
        one.bytes + further * (two.bytes - one.bytes),
        two.peak + (steps - 2) * kept * NUMBER,
    )


@cache
def mtt_load(subject: Subject, settings: mtt.Settings, images: int) -> Load:
    """A whole distillation by MTT.

    Args:
        images: of the set.
    """
    batch = min(settings.batch_syn or images, images)
    kept = 2 * subject.network.size  # weights and velocity
    iteration = by_steps(partial(_mtt, subject, images, batch), settings.syn_steps, kept)
    return iteration.times(settings.iterations)


def _mtt(subject: Subject, images: int, batch: int, steps: int) -> Load:
    theta = torch.empty(subject.network.size, device=META)
    rows = torch.empty(batch, dtype=torch.int64, device=META)

    def iteration() -> object:
        synthetic = subject.images(images).requires_grad_()

        def batch_of(step: int) -> tuple[Tensor, Tensor]:
            return synthetic[rows] * 1.0, rows  # the mask

        training = InnerTraining(theta, batch_of, steps, torch.empty((), device=META))
        return unrolled_gradient(
            InnerLoss(subject.network), training, [synthetic], lambda end: matching_loss(end, theta, theta)
        )

    augmented = augmentation(subject, batch).times(3 * steps)  # out, and back twice: values and gradients
    return load_of(iteration, INNER_STEP * subject.forward * batch * steps) + augmented


@cache
def rtp_load(subject: Subject, settings: rtp.Settings, ipc: int) -> Load:
    """A whole distillation by RTP, with plain images or with memory addressing."""
    classes = at_most(settings.classes)(subject.classes)
    memory = _memory(subject, settings, ipc)
    batch = classes * at_most(settings.batch_syn)(memory.images_per_class)
    real = classes * settings.batch_real
    iteration = partial(_rtp, subject, memory, batch, real)
    return by_steps(iteration, settings.syn_steps, subject.network.size).times(settings.iterations)


def _memory(subject: Subject, settings: rtp.Settings, ipc: int) -> PlainImages | AddressableMemory:
    labels = torch.empty(1, dtype=torch.int64, device=META)
    real = LabelledImages(subject.images(1), labels, subject.classes)
    problem = Problem(real, subject.network, ipc, mdt=0.0, reads=Path(), seed=0)
    draws = torch.Generator()
    with mock.patch.object(back_propagation_through_time, "xavier_noise", without_values):
        if settings.n_basis is None:
            return PlainImages(problem, settings, draws)
        return AddressableMemory(problem, settings, settings.n_basis, draws)


def without_values(shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """In place of noise."""
    return torch.empty(shape, device=META)


def _rtp(
    subject: Subject, memory: PlainImages | AddressableMemory, batch: int, real: int, steps: int
) -> Load:
    theta = torch.empty(subject.network.size, device=META)
    labels = torch.empty(batch, dtype=torch.int64, device=META)
    real_labels = torch.empty(real, dtype=torch.int64, device=META)
    inner = InnerLoss(subject.network)

    def iteration() -> object:
        values = {key: variable.value.detach().requires_grad_() for key, variable in memory.variables.items()}

        def batch_of(step: int) -> tuple[Tensor, Tensor]:
            return memory.images(values, labels) * 1.0, labels  # the mask

        training = InnerTraining(theta, batch_of, steps, torch.empty((), device=META), momentum=0.9)
        outer = partial(inner.whole_loss, images=subject.images(real), labels=real_labels)
        return unrolled_gradient(inner, training, list(values.values()), outer, learn_lr=False)

    shown = INNER_STEP * batch * steps + REAL * real
    return load_of(iteration, shown * subject.forward)


@cache
def matching(subject: Subject, settings: dc.Settings, ipc: int, siamese: bool) -> Load:
    """A whole distillation by DC or, with `siamese` augmentation, by DSA."""
    real_operations = REAL * subject.forward * settings.batch_real
    together = min(how_many_together(real_operations, CUDA), subject.classes)
    group = _matched(subject, together, ipc, settings.batch_real)
    group = group.times(subject.classes / together)
    update = Load(
        subject.forward * subject.classes * (REAL * settings.batch_real + MATCHED * ipc),
        group.calls,
        group.bytes,
        group.peak,
    )
    if siamese:
        update = update + augmentation(subject, settings.batch_real).times(subject.classes)
    images = ipc * subject.classes
    inner = Training(1, images, settings.inner_loops, settings.batch_train, siamese)
    trained = training(subject, inner).times(settings.outer_loops - 1)
    return (update.times(settings.outer_loops) + trained).times(settings.iterations)


@cache
def _matched(subject: Subject, classes: int, ipc: int, batch_real: int) -> Load:
    """A group of classes matched as on a GPU, by products; the operations are left out."""
    theta = torch.empty(subject.network.size, device=META)
    real_labels = torch.empty(classes, batch_real, dtype=torch.int64, device=META)
    labels = torch.empty(classes, ipc, dtype=torch.int64, device=META)
    loss = InnerLoss(subject.network)

    def group() -> object:
        targets = loss.stacked_gradients(theta, subject.images(classes, batch_real), real_labels)
        return ByProducts(loss, stacked=True)(theta, subject.images(classes, ipc), labels, targets)

    return load_of(group, 0)
