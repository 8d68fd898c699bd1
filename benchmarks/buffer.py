"""Expert trajectories: `stages/buffer.py` against the way of MTT's public code.

    python -m benchmarks.buffer [runs]

The plain way is that of https://github.com/GeorgeCazenavette/mtt-distillation, written anew in
`benchmarks/plain.py`: one network after the other, and a copy of it after each epoch. It has to be at the
same weights after an epoch (CIFAR: two batches). Each way runs in a process of its own, because memory
and its settings belong to a process.

- digits: 20 experts of 15 epochs, the whole stage against the whole loop
- CIFAR-10 ConvNet, 128 wide: batches of 256 random images, in float32 and with bfloat16 products
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

from benchmarks.measure import (
    Prepared,
    compared,
    device_of,
    each_way,
    main_or_measure,
    measured,
    rates,
    report,
)
from benchmarks.plain import plain_convnet, plain_training
from benchmarks.projects import project
from stages.buffer import buffer
from stages.images.prepared import load_split
from stages.losses import cross_entropy
from stages.networks.convnet import ConvNet
from stages.prepare import prepare
from stages.runtime.randomness import generator
from stages.settings.buffer import BufferSettings
from stages.settings.rows import Buffer, Dataset
from stages.training import gradients
from stages.training.flat import FlatNetwork
from stages.training.loop import Examples, Schedule, train
from stages.training.objective import Loss

__all__ = ["BATCHES", "DIGITS", "DIGITS_NETWORK", "SETTINGS", "Batches", "digits", "random_images"]

DIGITS = BufferSettings(dataset="digits", experts=20, epochs=15, lr=0.05, batch=64)
DIGITS_IMAGES = 898
DIGITS_NETWORK = {"width": 32, "depth": 2}
BATCHES = 8  # of 256 CIFAR images
CLASSES = 10


def digits(way: str, folder: Path, experts: int = DIGITS.experts) -> Prepared:
    """Experts of the digits, and their trajectories `(experts, 16, P)`.

    Ours is the stage with forked processes and files, as a user meets it.
    """
    settings = DIGITS.model_copy(update={"experts": experts})
    suite = {
        "datasets": {
            "digits": {"images": {"source": "digits", "whitening": "zca"}, "network": DIGITS_NETWORK}
        },
        "buffers": {"digits": settings.model_dump()},
    }
    with project(folder, suite):
        prepare(Dataset("digits"))
    if way == "plain":
        data = load_split(folder / "data/prepare/digits", "train")
        work = partial(plain_digits, TensorDataset(data.images[:], data.labels), experts, device_of(way))
    else:
        work = partial(our_digits, folder, suite)
    return Prepared(work, work())


def our_digits(folder: Path, suite: dict[str, Any]) -> torch.Tensor:
    with project(folder, suite):
        experts = Buffer("digits")
        buffer(experts)
        return load_file(experts.folder / "trajectories.safetensors")["snapshots"]


def plain_digits(data: TensorDataset, experts: int, device: torch.device) -> torch.Tensor:
    schedule = Schedule(DIGITS.epochs, DIGITS.lr, DIGITS.batch)
    trajectories = []
    for expert in range(experts):
        module = plain_convnet(1, 8, CLASSES, **DIGITS_NETWORK).to(device)
        snapshots = plain_training(module, Loss(cross_entropy), data, schedule, (0, "buffer", expert))
        trajectories.append(torch.stack(list(snapshots)))
    return torch.stack(trajectories)


class Batches(NamedTuple):
    """An epoch of random images, for the 128-wide ConvNet."""

    side: int  # pixels
    depth: int  # of the network
    batch: int
    batches: int
    compiled: bool = True  # as in a run of real length


def random_images(way: str, epoch: Batches) -> Prepared:
    """An epoch, and a trajectory `(1, 2, P)` after two batches: later rounding grows.

    Args:
        way: "plain", "ours, float32" or "ours, bfloat16".
    """
    draws = generator("benchmark")
    count = epoch.batch * epoch.batches
    images = torch.randn(count, 3, epoch.side, epoch.side, generator=draws)
    labels = torch.arange(count) % CLASSES
    schedule = Schedule(1, 0.01, epoch.batch, keep_snapshots=True)
    device = device_of(way)
    loss = Loss(cross_entropy)
    key = (0, "buffer", 0)

    def plain(count: int) -> torch.Tensor:
        module = plain_convnet(3, epoch.side, CLASSES, 128, epoch.depth).to(device)
        data = TensorDataset(images[:count], labels[:count])
        return torch.stack(list(plain_training(module, loss, data, schedule, key)))[None]

    network = FlatNetwork(ConvNet(3, epoch.side, CLASSES, 128, epoch.depth).to(device))
    data = Examples(images.to(device), F.one_hot(labels, CLASSES).float().to(device))
    ours_schedule = schedule._replace(precision=way.removeprefix("ours, "))

    def ours(count: int) -> torch.Tensor:
        part = Examples(data.images[:count], data.targets[:count])
        with mock.patch.object(gradients, "worth_compiling", lambda *_: epoch.compiled):
            snapshots = train(network, loss, part, ours_schedule, [key]).snapshots
        assert snapshots is not None
        return snapshots

    work = plain if way == "plain" else ours
    return Prepared(partial(work, count), work(2 * epoch.batch))


class Setting(NamedTuple):
    prepare: Callable[[str, Path], Prepared]  # of a way, in an empty folder
    ways: tuple[str, ...]
    image: tuple[int, int, int]
    width: int
    depth: int
    images: int  # that all networks together are trained on


SETTINGS = {
    f"digits, {DIGITS.experts} experts x {DIGITS.epochs} epochs": Setting(
        digits,
        ("plain", "ours, float32"),
        (1, 8, 8),
        **DIGITS_NETWORK,
        images=DIGITS_IMAGES * DIGITS.epochs * DIGITS.experts,
    ),
    f"CIFAR-10 ConvNet 128, {BATCHES} batches of 256": Setting(
        lambda way, _: random_images(way, Batches(32, 3, 256, BATCHES)),
        ("plain", "ours, float32", "ours, bfloat16"),
        (3, 32, 32),
        width=128,
        depth=3,
        images=256 * BATCHES,
    ),
}


def operations(setting: Setting) -> int:
    """Of all forward and backward passes."""
    channels, side, _ = setting.image
    network = FlatNetwork(plain_convnet(channels, side, CLASSES, setting.width, setting.depth))
    return 3 * setting.images * network.operations(torch.zeros(1, *setting.image))


def difference(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """Of two `(epochs + 1, P)` trajectories, relative to how far they go."""
    return float((ours - plain).norm() / (plain - plain[:1]).norm())


def measure(setting: str, way: str, runs: str, file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = SETTINGS[setting].prepare(way, Path(folder))
        measured(prepared, int(runs), file, device_of(way))


def results_of(name: str, runs: int, limit: dict[str, float]) -> list[dict[str, Any]]:
    """Every way of a setting.

    Args:
        limit: what `rates` has found.
    """
    setting = SETTINGS[name]
    ways, snapshots = each_way("benchmarks.buffer", setting.ways, runs, name)
    first_epoch = {way: of_way[:, :2] for way, of_way in snapshots.items()}
    results = []
    for way, numbers in compared(ways).items():
        pairs = zip(first_epoch[way], first_epoch["plain"])
        apart = max(difference(ours, plain) for ours, plain in pairs)
        precision = "bfloat16" if "bfloat16" in way else "float32"
        allowed = 0.1 if precision == "bfloat16" else 1e-3
        assert apart < allowed, f"{name}: the two ways differ by {apart}"
        floor = operations(setting) / limit[f"{precision}_operations"]
        results.append({"setting": name, "way": way, **numbers, "floor": floor, "apart": apart})
    return results


def main(runs: str = "5") -> None:
    limit = rates(device_of("ours"))
    results = []
    for name in SETTINGS:
        results += results_of(name, int(runs), limit)
    report("buffer", {"runs": int(runs), "unit": "seconds, MiB", "rates": limit}, results)


if __name__ == "__main__":
    main_or_measure(main, measure)
