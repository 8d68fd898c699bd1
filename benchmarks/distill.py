"""One update of a distillation: the backbones of `stages/backbones` against the way of their public code.

    python -m benchmarks.distill [runs] [case ...]

The plain ways of MTT, DC and DSA are those of their public code (addresses in the backbones' files),
written anew: a module, one graph over all inner steps or over all classes' losses, one backward pass. For
RTP the plain way is the graph of all steps too, which its public code does without, as ours does:
`benchmarks.public` has that code. All ways are given the same images, weights, draws and augmentations,
and have to give the same gradient (of five inner steps, where there are more): to 1 %, RTP to 5 %, with
bfloat16 products to 10 %; `apart` says how nearly. Each way runs in a process of its own, because peak
memory is a process's; Python and torch alone take about 500 MiB of it. Images are random: their content
changes no time.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.measure import (
    CPU,
    FOLDER,
    Prepared,
    compared,
    device_of,
    distance,
    each_way,
    main_or_measure,
    measured,
    rates,
    report,
)
from benchmarks.plain import plain_convnet, plain_pooling
from stages.backbones import dc, dsa, mtt, rtp
from stages.distillation import gradient_matching, unroll
from stages.distillation.backbone import Problem
from stages.distillation.gradient_distance import matching_distance
from stages.distillation.trajectory_matching import matching_loss
from stages.images.augment import Draw, augment, draw
from stages.images.prepared import LabelledImages
from stages.images.sampling import chunks_of, class_rows, per_class
from stages.networks.convnet import ConvNet
from stages.runtime.files import write_tensors
from stages.runtime.randomness import generator
from stages.runtime.reuse import read_json
from stages.training.flat import FlatNetwork

__all__ = ["CASES", "CIFAR", "MATCHING", "MTT", "WAYS", "Case", "Shape", "prepared", "problem"]

Update = Callable[[], torch.Tensor]  # one update; returns the gradient of the images
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Shape(NamedTuple):
    """Of the images and of their network."""

    channels: int
    side: int
    width: int
    depth: int


class Case(NamedTuple):
    backbone: str
    ipc: int
    settings: dict[str, Any]
    shape: Shape
    compiled: bool  # as a run of the published length would be
    forward_passes: int  # of one image, that the update counts at least
    classes: int = 10
    apart: float = 0.01  # that the two gradients may be, relative


BACKBONES: dict[str, ModuleType] = {"mtt": mtt, "dc": dc, "dsa": dsa, "rtp": rtp}
MATCHING = {"iterations": 1, "outer_loops": 1, "inner_loops": 1}
MTT = {
    "iterations": 1,
    "syn_steps": 30,
    "expert_epochs": 2,
    "max_start_epoch": 2,
    "lr_img": 100,
    "lr_lr": 1e-7,
    "lr_teacher": 0.01,
    "batch_syn": None,
}
RTP = {"iterations": 1, "syn_steps": 150, "batch_syn": None}
CIFAR = Shape(3, 32, 128, 3)
DIGITS = Shape(1, 8, 32, 2)
# Forward passes of an image that an update counts. An image's gradient takes 3, and its product with a vector
# 8 more. DC's takes 9 together, because only images are learned.
INNER_STEP = 11
MATCHED = 9
REAL = 3
CASES = {
    "mtt, CIFAR-10, IPC 10, 30 steps": Case("mtt", 10, MTT, CIFAR, True, 100 * 30 * INNER_STEP),
    "mtt, digits, IPC 10, 20 steps": Case(
        "mtt", 10, MTT | {"syn_steps": 20}, DIGITS, False, 100 * 20 * INNER_STEP
    ),
    "mtt, digits, IPC 10, 20 steps, compiled": Case(
        "mtt", 10, MTT | {"syn_steps": 20}, DIGITS, True, 100 * 20 * INNER_STEP
    ),
    "dc, CIFAR-10, IPC 1": Case("dc", 1, MATCHING, CIFAR, True, 2560 * REAL + 10 * MATCHED),
    "dc, CIFAR-10, IPC 10": Case("dc", 10, MATCHING, CIFAR, True, 2560 * REAL + 100 * MATCHED),
    "dsa, CIFAR-10, IPC 1": Case("dsa", 1, MATCHING, CIFAR, True, 2560 * REAL + 10 * MATCHED),
    "dsa, CIFAR-10, IPC 10": Case("dsa", 10, MATCHING, CIFAR, True, 2560 * REAL + 100 * MATCHED),
    "dsa, CIFAR-10, IPC 1, bfloat16": Case(
        "dsa", 1, MATCHING | {"precision": "bfloat16"}, CIFAR, True, 2560 * REAL + 10 * MATCHED, apart=0.1
    ),
    # Compiled code rounds differently; eager, the two gradients are 3e-6 apart.
    "rtp, CIFAR-10, IPC 1, 150 steps": Case(
        "rtp", 1, RTP, CIFAR, True, 10 * 150 * INNER_STEP + 640 * REAL, apart=0.05
    ),
}


def problem(case: Case, folder: Path, device: torch.device = CPU) -> Problem:
    """Random images; for MTT also a random trajectory in `folder`."""
    channels, side, width, depth = case.shape
    draws = generator("benchmark")
    of_a_class = case.settings.get("batch_real") or (256 if side == 32 else 90)
    count = case.classes * of_a_class
    network = FlatNetwork(ConvNet(channels, side, case.classes, width, depth).to(device))
    images = torch.randn(count, channels, side, side, generator=draws)
    labels = torch.arange(count) % case.classes
    real = LabelledImages(images.to(device), labels.to(device), case.classes)
    write_trajectory(network, draws, folder)
    return Problem(real, network, case.ipc, 0, folder, seed=0)


def write_trajectory(network: FlatNetwork, draws: torch.Generator, folder: Path) -> None:
    """One expert of three epochs, each further from the start than the last."""
    start = network.initial(draws)
    snapshots = []
    for epoch in range(4):
        noise = torch.randn(start.shape, generator=draws)
        snapshots.append(start + epoch * 0.01 * noise)
    write_tensors(folder / "trajectories.safetensors", {"snapshots": torch.stack(snapshots)[None]})


def ours(case: Case, problem: Problem) -> Update:
    module = BACKBONES[case.backbone]
    settings = dict(case.settings)
    if case.backbone == "rtp":
        settings["clip"] = 1e9  # none: the plain way does not clip
    with (
        mock.patch.object(unroll, "worth_compiling", lambda *_: case.compiled),
        mock.patch.object(gradient_matching, "worth_compiling", lambda *_: case.compiled),
    ):
        backbone = module.start(problem, module.Settings(**settings))

    def update() -> torch.Tensor:
        _, gradients = next(backbone.updates(0))
        return gradients["images"]

    return update


def plain(case: Case, problem: Problem) -> Update:
    assert isinstance(problem.network.module, ConvNet)
    plain_pooling(problem.network.module)
    makers = {"mtt": plain_mtt, "dc": plain_matching, "dsa": plain_matching, "rtp": plain_rtp}
    return makers[case.backbone](case, problem)


def unrolled(
    network: FlatNetwork, theta: torch.Tensor, batches: Batches, lr: float, momentum: float
) -> torch.Tensor:
    """The last weights of a training whose graph is kept whole."""
    velocity = torch.zeros_like(theta)
    for images, labels in batches:
        loss = F.cross_entropy(network(theta, images), labels)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        velocity = momentum * velocity + gradient
        theta = theta - lr * velocity
    return theta


def plain_mtt(case: Case, problem: Problem) -> Update:
    settings = mtt.Settings(**case.settings)
    real = problem.real.images[problem.real_rows()]
    labels = problem.real.labels[problem.real_rows()]
    (expert,) = load_file(problem.reads / "trajectories.safetensors")["snapshots"].to(real.device)

    def update() -> torch.Tensor:
        draws = generator(problem.seed, "mtt", 0)
        torch.randint(1, (), generator=draws)  # the expert
        epoch = int(torch.randint(settings.max_start_epoch, (), generator=draws))
        start = expert[epoch]
        target = expert[epoch + settings.expert_epochs]
        chunks = chunks_of(len(labels), settings.batch_syn or len(labels), settings.syn_steps, draws)
        augmentations = [draw(draws, len(rows)) for rows in chunks]
        images = real.clone().requires_grad_()
        batches = ((augment(images[rows], a), labels[rows]) for rows, a in zip(chunks, augmentations))
        theta = start.clone().requires_grad_()
        theta = unrolled(problem.network, theta, batches, settings.lr_teacher, 0.0)
        (gradient,) = torch.autograd.grad(matching_loss(theta, start, target), images)
        return gradient

    return update


def plain_rtp(case: Case, problem: Problem) -> Update:
    settings = rtp.Settings(**case.settings)
    real = problem.real
    network = problem.network
    labels = torch.arange(case.classes, device=real.labels.device).repeat_interleave(case.ipc)
    initial = rtp.start(problem, settings).variables["images"].value

    def chunk(draws: torch.Generator) -> torch.Tensor:
        return per_class(labels, case.classes, lambda size: min(settings.batch_syn or size, size), draws)

    def update() -> torch.Tensor:
        draws = generator(problem.seed, "rtp", 0)
        theta = network.initial(draws).to(initial)
        chunks = [chunk(draws) for _ in range(settings.syn_steps)]
        real_rows = per_class(real.labels, case.classes, lambda size: min(settings.batch_real, size), draws)
        images = initial.clone().requires_grad_()
        batches = ((images[rows], labels[rows]) for rows in chunks)
        theta = unrolled(network, theta.requires_grad_(), batches, settings.lr_net, settings.momentum_net)
        loss = F.cross_entropy(network(theta, real.images[real_rows]), real.labels[real_rows])
        (gradient,) = torch.autograd.grad(loss, images)
        return gradient

    return update


def plain_matching(case: Case, problem: Problem) -> Update:
    module = BACKBONES[case.backbone]
    settings = module.Settings(**case.settings)
    backbone = module.start(problem, settings)
    real = problem.real
    initial = backbone.images()
    real_rows = class_rows(real.labels, case.classes)
    own_rows = class_rows(backbone.labels, case.classes)

    def class_loss(theta: torch.Tensor, images: torch.Tensor, label: int) -> torch.Tensor:
        draws = generator(problem.seed, "matching", 0, 0, label)
        order = torch.randperm(len(real_rows[label]), generator=draws)
        rows = real_rows[label][order[: settings.batch_real]]
        drawn = draw(draws, 1) if case.backbone == "dsa" else None
        theirs = weight_gradient(problem, theta, view(real.images[rows], drawn), label)
        mine = weight_gradient(problem, theta, view(images[own_rows[label]], drawn), label)
        return matching_distance(problem.network, mine, theirs.detach())

    def update() -> torch.Tensor:
        images = initial.clone().requires_grad_()
        theta = problem.network.initial(generator(problem.seed, "matching", 0))
        theta = theta.to(images.device).requires_grad_()
        losses = [class_loss(theta, images, label) for label in range(case.classes)]
        (gradient,) = torch.autograd.grad(sum(losses, torch.zeros(())), images)
        return gradient

    return update


def weight_gradient(problem: Problem, theta: torch.Tensor, images: torch.Tensor, label: int) -> torch.Tensor:
    """Of the loss on images of one class, as a function of them where they are learned."""
    labels = torch.full((len(images),), label, device=images.device)
    loss = F.cross_entropy(problem.network(theta, images), labels)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=images.requires_grad)
    return gradient


def view(images: torch.Tensor, drawn: Draw | None) -> torch.Tensor:
    return images if drawn is None else augment(images, drawn)


WAYS = {"plain": plain, "ours": ours}


def shortened(case: Case) -> Case:
    """The case with five inner steps, for the comparison: over more of them rounding grows in either way."""
    if "syn_steps" not in case.settings:
        return case
    return case._replace(settings=case.settings | {"syn_steps": 5})


def prepared(case: Case, way: str, folder: Path) -> Prepared:
    """The update, and the gradient of the shortened case."""
    device = device_of(way)
    short = shortened(case)
    gradient = WAYS[way](short, problem(short, folder, device))()
    return Prepared(WAYS[way](case, problem(case, folder, device)), gradient)


def measure(name: str, way: str, runs: str, file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        measured(prepared(CASES[name], way, Path(folder)), int(runs), file, device_of(way))


def operations(case: Case) -> int:
    channels, side, width, depth = case.shape
    network = FlatNetwork(plain_convnet(channels, side, case.classes, width, depth))
    return case.forward_passes * network.operations(torch.zeros(1, channels, side, side))


def results_of(name: str, runs: int, limit: dict[str, float]) -> list[dict[str, Any]]:
    """Both ways of a case.

    Args:
        limit: what `rates` has found.
    """
    case = CASES[name]
    ways, gradients = each_way("benchmarks.distill", WAYS, runs, name)
    apart = {"plain": 0.0, "ours": distance(gradients["ours"], gradients["plain"])}
    assert apart["ours"] < case.apart, f"{name}: the two ways differ by {apart['ours']}"
    precision = {"plain": "float32", "ours": case.settings.get("precision", "float32")}
    results = []
    for way, numbers in compared(ways).items():
        floor = operations(case) / limit[f"{precision[way]}_operations"]
        results.append({"case": name, "way": way, **numbers, "floor": floor, "apart": apart[way]})
    return results


def main(runs: str = "5", *names: str) -> None:
    limit = rates(device_of("ours"))
    measured_now = names or tuple(CASES)
    former = read_json(FOLDER / "distill.json").get("results", [])
    kept = CASES.keys() - set(measured_now)
    results = [result for result in former if result["case"] in kept]
    for name in measured_now:
        results += results_of(name, int(runs), limit)
        report("distill", {"runs": int(runs), "unit": "seconds, MiB", "rates": limit}, results)


if __name__ == "__main__":
    main_or_measure(main, measure)
