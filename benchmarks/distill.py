"""One update of a distillation: the backbones of `stages/distillers` against the way of their public code.

    python -m benchmarks.distill [runs] [case ...]

The plain ways of MTT, DC and DSA are those of their public code (addresses in the backbones' files), written anew: a module, one
graph over all inner steps or over all classes' losses, one backward pass. For RTP it is the graph of all steps too, which its
public code does without, as ours does: `benchmarks.public` has that. They are given the same images, weights, draws and
augmentations, and have to give the same gradient (of five inner steps, where there are more): to 1 %, RTP to 5 %, with bfloat16
products to 10 %; `apart` says how nearly. Each way is a process of its own, as peak memory is a process's; Python and torch alone
take about 500 MiB of it. Images are random: their content changes no time.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmarks.measure import compared, device_of, in_process, measured, rates, report
from benchmarks.plain import plain_convnet, plain_pooling
from stages.distillers import dc, dsa, mtt, rtp
from stages.shared import gradient_matching, unroll
from stages.shared.augment import augment, draw
from stages.shared.convnet import ConvNet
from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages
from stages.shared.method import Problem
from stages.shared.randomness import generator
from stages.shared.sampling import chunks_of, class_rows, per_class


class Case(NamedTuple):
    backbone: str
    ipc: int
    settings: dict
    network: tuple[int, int, int, int]  # channels, size, width, depth
    compiled: bool  # as a run of the published length would be
    forward_passes: int  # of one image, that the update counts at least
    classes: int = 10
    apart: float = 0.01  # that the two gradients may be, relative


MATCHING = {"iterations": 1, "outer_loops": 1, "inner_loops": 1}
MTT = {"iterations": 1, "syn_steps": 30, "expert_epochs": 2, "max_start_epoch": 2, "lr_img": 100, "lr_lr": 1e-7, "lr_teacher": 0.01, "batch_syn": None}
CIFAR, DIGITS = (3, 32, 128, 3), (1, 8, 32, 2)
# An image's gradient takes 3 forward passes, and its product with a vector 8 more. DC's takes 9 together, as only images are learned.
CASES = {
    "mtt, CIFAR-10, IPC 10, 30 steps": Case("mtt", 10, MTT, CIFAR, True, 100 * 30 * 11),
    "mtt, digits, IPC 10, 20 steps": Case("mtt", 10, MTT | {"syn_steps": 20}, DIGITS, False, 100 * 20 * 11),
    "mtt, digits, IPC 10, 20 steps, compiled": Case("mtt", 10, MTT | {"syn_steps": 20}, DIGITS, True, 100 * 20 * 11),
    "dc, CIFAR-10, IPC 1": Case("dc", 1, MATCHING, CIFAR, True, 2560 * 3 + 10 * 9),
    "dc, CIFAR-10, IPC 10": Case("dc", 10, MATCHING, CIFAR, True, 2560 * 3 + 100 * 9),
    "dsa, CIFAR-10, IPC 1": Case("dsa", 1, MATCHING, CIFAR, True, 2560 * 3 + 10 * 9),
    "dsa, CIFAR-10, IPC 10": Case("dsa", 10, MATCHING, CIFAR, True, 2560 * 3 + 100 * 9),
    "dsa, CIFAR-10, IPC 1, bfloat16": Case("dsa", 1, MATCHING | {"precision": "bfloat16"}, CIFAR, True, 2560 * 3 + 10 * 9, apart=0.1),
    "rtp, CIFAR-10, IPC 1, 150 steps": Case("rtp", 1, {"iterations": 1, "syn_steps": 150, "batch_syn": None}, CIFAR, True, 10 * 150 * 11 + 640 * 3, apart=0.05),  # compiled: rounding; eager 3e-6
}


def problem(case: Case, folder: Path, device: torch.device = torch.device("cpu")) -> Problem:
    """Random images; for MTT one random trajectory in `folder`."""
    channels, size, width, depth = case.network
    draws, count = generator("benchmark"), case.classes * (case.settings.get("batch_real") or (256 if size == 32 else 90))
    network = FlatNetwork(ConvNet(channels, size, case.classes, width, depth).to(device))
    images, labels = torch.randn(count, channels, size, size, generator=draws), torch.arange(count) % case.classes
    real = LabelledImages(images.to(device), labels.to(device), case.classes)
    start = network.initial(draws)
    save_file({"snapshots": torch.stack([start + i * 0.01 * torch.randn(start.shape, generator=draws) for i in range(4)])[None]}, folder / "trajectories.safetensors")
    return Problem(real, network, case.ipc, 0, folder, seed=0)


def ours(case: Case, here: Problem) -> Callable[[], torch.Tensor]:
    backbone = {"mtt": mtt, "dc": dc, "dsa": dsa, "rtp": rtp}[case.backbone]
    with mock.patch.object(unroll, "worth_compiling", lambda *_: case.compiled), mock.patch.object(gradient_matching, "worth_compiling", lambda *_: case.compiled):
        method = backbone.start(here, backbone.Settings(**case.settings | ({"clip": 1e9} if case.backbone == "rtp" else {})))
    return lambda: next(method.steps(0))[1]["images"]


def plain(case: Case, here: Problem) -> Callable[[], torch.Tensor]:
    plain_pooling(here.network.module)
    return {"mtt": plain_mtt, "dc": plain_matching, "dsa": plain_matching, "rtp": plain_rtp}[case.backbone](case, here)


def unrolled(here: Problem, theta: torch.Tensor, batches, lr: float, momentum: float) -> torch.Tensor:
    """The last weights of a training whose graph is kept whole."""
    velocity = torch.zeros_like(theta)
    for x, y in batches:
        (gradient,) = torch.autograd.grad(F.cross_entropy(here.network(theta, x), y), theta, create_graph=True)
        velocity = momentum * velocity + gradient
        theta = theta - lr * velocity
    return theta


def plain_mtt(case: Case, here: Problem) -> Callable[[], torch.Tensor]:
    settings, rows = mtt.Settings(**case.settings), here.real_rows()
    labels, snapshots = here.real.labels[rows], load_file(here.reads / "trajectories.safetensors")["snapshots"].to(here.real.images)

    def update() -> torch.Tensor:
        draws, images = generator(here.seed, "mtt", 0), here.real.images[rows].requires_grad_()
        _, epoch = (int(torch.randint(n, (), generator=draws)) for n in (1, settings.max_start_epoch))
        begin, target = snapshots[0, epoch], snapshots[0, epoch + settings.expert_epochs]
        chunks = chunks_of(len(labels), settings.batch_syn or len(labels), settings.syn_steps, draws)
        augmentations = [draw(draws, len(chunk)) for chunk in chunks]
        theta = unrolled(here, begin.clone().requires_grad_(), ((augment(images[c], a), labels[c]) for c, a in zip(chunks, augmentations)), settings.lr_teacher, 0.0)
        return torch.autograd.grad(mtt.matching_loss(theta, begin, target), images)[0]

    return update


def plain_rtp(case: Case, here: Problem) -> Callable[[], torch.Tensor]:
    settings, classes = rtp.Settings(**case.settings), case.classes
    labels = torch.arange(classes, device=here.real.labels.device).repeat_interleave(case.ipc)
    initial = rtp.start(here, settings).variables["images"].value

    def update() -> torch.Tensor:
        draws, images = generator(here.seed, "rtp", 0), initial.clone().requires_grad_()
        begin = here.network.initial(draws).to(images)
        chunks = [per_class(labels, classes, lambda n: min(settings.batch_syn or n, n), draws) for _ in range(settings.syn_steps)]
        rows = per_class(here.real.labels, classes, lambda n: min(settings.batch_real, n), draws)
        theta = unrolled(here, begin.requires_grad_(), ((images[c], labels[c]) for c in chunks), settings.lr_net, settings.momentum_net)
        return torch.autograd.grad(F.cross_entropy(here.network(theta, here.real.images[rows]), here.real.labels[rows]), images)[0]

    return update


def plain_matching(case: Case, here: Problem) -> Callable[[], torch.Tensor]:
    backbone = {"dc": dc, "dsa": dsa}[case.backbone]
    settings = backbone.Settings(**case.settings)
    method = backbone.start(here, settings)
    initial, rows_of, own = method.images(), class_rows(here.real.labels, case.classes), class_rows(method.labels, case.classes)

    def update() -> torch.Tensor:
        images = initial.clone().requires_grad_()
        theta = here.network.initial(generator(here.seed, "matching", 0)).to(images.device).requires_grad_()
        loss = torch.zeros((), device=images.device)
        for k in range(case.classes):
            draws = generator(here.seed, "matching", 0, 0, k)
            rows = rows_of[k][torch.randperm(len(rows_of[k]), generator=draws)[: settings.batch_real]]
            drawn = draw(draws, 1) if case.backbone == "dsa" else None
            (theirs,) = torch.autograd.grad(F.cross_entropy(here.network(theta, view(here.real.images[rows], drawn)), here.real.labels[rows]), theta)
            (mine,) = torch.autograd.grad(F.cross_entropy(here.network(theta, view(images[own[k]], drawn)), method.labels[own[k]]), theta, create_graph=True)
            loss = loss + gradient_matching.matching_distance(here.network, mine, theirs)
        return torch.autograd.grad(loss, images)[0]

    return update


def view(images, drawn):
    return images if drawn is None else augment(images, drawn)


WAYS = {"plain": plain, "ours": ours}


def shortened(case: Case) -> Case:
    """The case with five inner steps, for the comparison: over more of them rounding grows in either way."""
    return case._replace(settings=case.settings | ({"syn_steps": 5} if "syn_steps" in case.settings else {}))


def measure(name: str, way: str, runs: int, file: str) -> None:
    """In a process of its own: print seconds of each run and the peak, and leave the gradient in `file`."""
    device = device_of(way)
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[name]
        gradient = WAYS[way](shortened(case), problem(case, Path(folder), device))()
        print(json.dumps(measured(gradient, WAYS[way](case, problem(case, Path(folder), device)), runs, file, device)))


def main(runs: int = 5, names: tuple[str, ...] = tuple(CASES)) -> None:
    limit, results = rates(device_of("ours")), []
    for name in names:
        found, gradients = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                found[way] = in_process("benchmarks.distill", name, way, runs, f"{folder}/{way}")
                gradients[way] = load_file(f"{folder}/{way}")["result"]
        apart = float((gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm())
        rounded = CASES[name].settings.get("precision") == "bfloat16"
        assert apart < CASES[name].apart, f"{name}: the two ways differ by {apart}"
        channels, size, width, depth = CASES[name].network
        operations = CASES[name].forward_passes * FlatNetwork(plain_convnet(channels, size, 10, width, depth)).operations(torch.zeros(1, channels, size, size))
        for way, values in compared(found).items():
            floor = operations / limit["bfloat16_operations" if rounded and way == "ours" else "float32_operations"]
            results.append({"case": name, "way": way, **values, "floor": floor, "apart": apart if way == "ours" else 0.0})
        report("distill", {"runs": runs, "unit": "seconds, MiB", "rates": limit}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main(*([int(sys.argv[1])] if sys.argv[1:] else []), *([tuple(sys.argv[2:])] if sys.argv[2:] else []))
