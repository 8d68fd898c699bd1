"""Lines of the training of experts: a step of networks side by side, every way and precision."""

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks import counted
from benchmarks.card.lines import Line, Options, close, measured, precisions
from benchmarks.counted import Load, Subject
from benchmarks.distill import REAL, Shape
from benchmarks.measure import distance
from stages.losses import cross_entropy
from stages.machine.precision import tf32_if_asked
from stages.networks.convnet import ConvNet
from stages.runtime.randomness import generator
from stages.training import gradients
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule, State
from stages.training.objective import Loss, Objective

__all__ = ["CLASSES", "forget_compiled", "lines", "subject_of", "uncompiled_if_small"]

CLASSES = 10
# At most, of gradients. Rounding decides on which side of a ReLU's zero some values fall, so the distance
# grows with the root of the rounding: bfloat16, with 7 bits, is 0.05 apart in `buffer.json`; TF32 has 10.
APART = {"float32": 5e-3, "tf32": 0.05, "bfloat16": 0.2}

Way = Callable[[Objective, int], gradients.Engine]  # of an objective and a number of networks


def plain(objective: Objective, networks: int, compiled: bool = False) -> gradients.Engine:
    """`vmap` over several networks; one runs as a module."""
    way = gradients.stacked_gradients if networks > 1 else gradients.alone_gradients
    return way(objective, compiled=compiled)


def by_hand(objective: Objective, networks: int, compiled: bool = False) -> gradients.Engine:
    """Stacked without `vmap`."""
    return gradients.side_by_side_gradients(objective, compiled=compiled)


WAYS: dict[str, Way] = {
    "eager": plain,
    "compiled": partial(plain, compiled=True),
    "by hand": by_hand,
    "by hand, compiled": partial(by_hand, compiled=True),
}


def lines(options: Options) -> list[Line]:
    made = []
    for networks in (1, 2) if options.small else (1, 5, 25):
        for precision in precisions(options, "float32", "tf32", "bfloat16"):
            for way in list(WAYS)[: 2 if networks == 1 else None]:  # one network is not stacked
                name = f"step of {networks} expert{'s' * (networks > 1)}, {way}, {precision}"
                made.append(Line(name, partial(step_line, networks, way, precision, options)))
    return made


def step_line(networks: int, way: str, precision: str, options: Options) -> dict[str, Any]:
    """A step of SGD on random images, and how far its gradients are from `one_by_one`."""
    device = options.device
    channels, side, width, depth = options.shape
    batch = 8 if options.small else 256
    draws = generator("card")
    network = FlatNetwork(ConvNet(channels, side, CLASSES, width, depth).to(device))
    images = torch.randn(networks, batch, channels, side, side, generator=draws).to(device)
    targets = F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float().expand(networks, -1, -1).to(device)
    theta = torch.stack([network.initial(draws) for _ in range(networks)]).to(device)
    state = State(0, theta, torch.zeros_like(theta), theta)
    schedule = Schedule(1, 0.01, batch, momentum=0.9, weight_decay=5e-4)

    with uncompiled_if_small(options), tf32_if_asked(precision):
        engine = WAYS[way](Objective(network, Loss(cross_entropy), precision), networks)

        def step() -> None:
            gradient, *_ = engine(state.theta, images, targets)
            state.step(gradient, schedule.lr, schedule)

        numbers = measured(step, load_of(networks, batch, options), precision, options)
        ours = engine(theta, images, targets)[0]
    forget_compiled()
    return close(numbers, distance(ours, one_by_one(network, theta, images, targets)), APART[precision])


def one_by_one(
    network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The gradients of each network alone, eager and in float32."""
    engine = gradients.alone_gradients(Objective(network, Loss(cross_entropy)))
    batches = zip(theta.split(1), images.split(1), targets.split(1))
    with tf32_if_asked("float32"):
        return torch.cat([engine(*own)[0] for own in batches])


def uncompiled_if_small(options: Options) -> Any:
    """Small networks run as they would be compiled, without the compiler."""
    compile = (lambda function, **_: function) if options.small else torch.compile
    return mock.patch.object(torch, "compile", compile)


def forget_compiled() -> None:
    """Dynamo runs a function eager once it has compiled it a few times, and lines share functions."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@cache
def subject_of(shape: Shape) -> Subject:
    """The network without values, of which `counted` counts the work."""
    channels, side, width, depth = shape
    with torch.device(counted.META):
        module = ConvNet(channels, side, CLASSES, width, depth)
    return Subject(FlatNetwork(module), channels, side, CLASSES)


def load_of(networks: int, batch: int, options: Options) -> Load:
    subject = subject_of(options.shape)
    operations = REAL * subject.forward * networks * batch
    return Load(operations, bytes=counted.training_step(subject, networks, batch).bytes)
