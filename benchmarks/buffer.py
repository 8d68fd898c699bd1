"""Expert trajectories: `stages/buffer.py` against the way of MTT's public code.

    python -m benchmarks.buffer [runs]

The plain way is that of https://github.com/GeorgeCazenavette/mtt-distillation, written anew (`benchmarks/plain.py`): one
network after the other, and a copy of it after each epoch. It has to be at the same weights after an epoch (CIFAR: two
batches). Each way is a process of its own, as memory and its settings are a process's.

- digits: 20 experts of 15 epochs, whole stage against whole loop
- CIFAR-10 ConvNet, 128 wide: batches of 256 random images, in float32 and with bfloat16 products
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.measure import compared, device_of, in_process, measured, rates, report
from benchmarks.plain import plain_convnet, plain_training
from stages.buffer import BufferSettings, buffer
from stages.losses import cross_entropy
from stages.prepare import prepare
from stages.shared import training
from stages.shared.convnet import ConvNet, NetworkSettings
from stages.shared.flat import FlatNetwork
from stages.shared.images import load_split
from stages.shared.randomness import generator
from stages.shared.sources import ImageSettings
from stages.shared.training import Schedule, train

DIGITS = BufferSettings(dataset="digits", experts=20, epochs=15, lr=0.05, batch=64)
DIGITS_NETWORK = NetworkSettings(width=32, depth=2)
BATCHES = 8  # of 256 CIFAR images


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of two `(epochs + 1, P)` trajectories, relative to how far they go."""
    return float((ours - theirs).norm() / (theirs - theirs[:1]).norm())


def digits(way: str, folder: Path, experts: int = DIGITS.experts) -> tuple[Callable[[], torch.Tensor], torch.Tensor]:
    """Experts of the digits; ours with forked processes and files, as a user meets them. The work, and its trajectories `(experts, 16, P)`."""
    prepare(ImageSettings(source="digits", whitening="zca"), folder / "prepared")
    data, device = load_split(folder / "prepared", "train"), device_of(way)
    schedule, keys = Schedule(DIGITS.epochs, DIGITS.lr, DIGITS.batch), [(0, "buffer", i) for i in range(experts)]

    def work() -> torch.Tensor:
        if way == "plain":
            made = [list(plain_training(plain_convnet(1, 8, 10, 32, 2).to(device), cross_entropy, None, data.images, data.labels, schedule, key)) for key in keys]
            return torch.stack([torch.stack(snapshots) for snapshots in made])
        buffer(DIGITS.model_copy(update={"experts": experts}), DIGITS_NETWORK, folder / "prepared", folder / "out", 0, device, folder / "scratch")
        return load_file(folder / "out" / "trajectories.safetensors")["snapshots"]

    return work, work()


def random_images(way: str, size: int, depth: int, batch: int, batches: int, compiled: bool = True) -> tuple[Callable[[], torch.Tensor], torch.Tensor]:
    """An epoch of the 128-wide ConvNet. The work, and a trajectory `(1, 2, P)` after two batches: later rounding grows."""
    draws, count, device = generator("benchmark"), batch * batches, device_of(way)
    images, labels = torch.randn(count, 3, size, size, generator=draws), torch.arange(count) % 10
    flat, key = FlatNetwork((plain_convnet if way == "plain" else ConvNet)(3, size, 10, 128, depth).to(device)), (0, "buffer", 0)
    there, targets = images.to(device), F.one_hot(labels, 10).float().to(device)

    def work(count: int = count) -> torch.Tensor:
        if way == "plain":
            return torch.stack(list(plain_training(flat.module, cross_entropy, None, images[:count], labels[:count], Schedule(1, 0.01, batch), key)))[None]
        schedule = Schedule(1, 0.01, batch, precision=way.removeprefix("ours, "))
        with mock.patch.object(training, "worth_compiling", lambda *_: compiled):  # as in a run of real length
            return train(flat, cross_entropy, None, there[:count], targets[:count], schedule, [key], keep_snapshots=True).snapshots

    return work, work(2 * batch)


SETTINGS = {
    f"digits, {DIGITS.experts} experts x {DIGITS.epochs} epochs": (digits, ("plain", "ours, float32"), (1, 8, 32, 2), 898 * DIGITS.epochs * DIGITS.experts),
    f"CIFAR-10 ConvNet 128, {BATCHES} batches of 256": (lambda way, _: random_images(way, 32, 3, 256, BATCHES), ("plain", "ours, float32", "ours, bfloat16"), (3, 32, 128, 3), 256 * BATCHES),
}  # fmt: skip


def measure(setting: str, way: str, runs: int, file: str) -> None:
    """In a process of its own: print seconds of each run and the peak, and leave the trajectories in `file`."""
    with tempfile.TemporaryDirectory() as folder:
        work, trajectories = SETTINGS[setting][0](way, Path(folder))
        print(json.dumps(measured(trajectories, work, runs, file, device_of(way))))


def main(runs: int = 5) -> None:
    limit, results = rates(device_of("ours")), []
    for setting, (_, ways, (channels, size, width, depth), images) in SETTINGS.items():
        operations = 3 * images * FlatNetwork(plain_convnet(channels, size, 10, width, depth)).operations(torch.zeros(1, channels, size, size))
        with tempfile.TemporaryDirectory() as folder:
            found = {way: in_process("benchmarks.buffer", setting, way, runs, f"{folder}/{way}") for way in ways}
            made = {way: load_file(f"{folder}/{way}")["result"][:, :2] for way in ways}
        for way, values in compared(found).items():
            apart = max(difference(ours, theirs) for ours, theirs in zip(made[way], made["plain"]))
            assert apart < (0.1 if "bfloat16" in way else 1e-3), f"{setting}: the two ways differ by {apart}"
            rate = limit["bfloat16_operations" if "bfloat16" in way else "float32_operations"]
            results.append({"setting": setting, "way": way, **values, "floor": operations / rate, "apart": apart})
    report("buffer", {"runs": runs, "unit": "seconds, MiB", "rates": limit}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main(*(int(word) for word in sys.argv[1:]))
