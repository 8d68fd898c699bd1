"""Expert trajectories: `stages/buffer.py` against the way of MTT's public code.

    python -m benchmarks.buffer [runs]

The plain way is that of https://github.com/GeorgeCazenavette/mtt-distillation, written anew: a data loader that collates
sample by sample, one network after the other as a module with torch.optim.SGD, loss and accuracy fetched every batch. It is
given the same initial weights, orders and augmentations, and has to be at the same weights after an epoch (CIFAR: two
batches). Each way is a process of its own, as memory and its settings are a process's.

- digits: 20 experts of 15 epochs, whole stage against whole loop
- CIFAR-10 ConvNet, 128 wide: batches of 256 random images, in float32 and with bfloat16 products
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import in_process, in_turn, peak_mib, rates, report, spread
from stages.buffer import BufferSettings, buffer
from stages.losses import cross_entropy
from stages.prepare import prepare
from stages.shared import training
from stages.shared.augment import augment, draw
from stages.shared.convnet import ConvNet, NetworkSettings
from stages.shared.device import pick_device
from stages.shared.flat import FlatNetwork
from stages.shared.images import load_split
from stages.shared.randomness import generator
from stages.shared.sources import ImageSettings
from stages.shared.training import Schedule, train

CPU = torch.device("cpu")
DIGITS = BufferSettings(dataset="digits", experts=20, epochs=15, lr=0.05, batch=64)
DIGITS_NETWORK = NetworkSettings(width=32, depth=2)
BATCHES = 8  # of 256 CIFAR images


def plain(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, schedule: Schedule, key: tuple) -> list[list[torch.Tensor]]:
    """One expert: its weights before and after each epoch."""
    flat = FlatNetwork(module)
    for p, value in zip(module.parameters(), flat.split(flat.initial(generator(*key, "initial"))).values()):
        p.data = value.clone()
    optimiser = torch.optim.SGD(module.parameters(), lr=schedule.lr)
    data, timestamps = TensorDataset(images, labels), [[p.detach().clone() for p in module.parameters()]]
    for epoch in range(schedule.epochs):
        draws, total, right = generator(*key, epoch), 0.0, 0
        order = torch.randperm(len(labels), generator=draws).tolist()
        for x, y in DataLoader(data, batch_size=schedule.batch, sampler=order):
            logits = module(augment(x, draw(draws, len(x))))
            loss = F.cross_entropy(logits, y)
            right += int((logits.argmax(1) == y).sum())
            total += loss.item() * len(y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        timestamps.append([p.detach().clone() for p in module.parameters()])
    return timestamps


def as_vectors(timestamps: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([torch.cat([p.flatten() for p in snapshot]) for snapshot in timestamps])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of two `(epochs + 1, P)` trajectories, relative to how far they go."""
    return float((ours - theirs).norm() / (theirs - theirs[:1]).norm())


def digits(way: str, folder: Path):
    """20 experts of the digits; ours with forked processes and files, as a user meets them. The work, and its trajectories `(20, 16, P)`."""
    prepare(ImageSettings(source="digits", whitening="zca"), folder / "prepared")
    data = load_split(folder / "prepared", "train")
    schedule, keys = Schedule(DIGITS.epochs, DIGITS.lr, DIGITS.batch), [(0, "buffer", i) for i in range(DIGITS.experts)]

    def work() -> torch.Tensor:
        if way == "plain":
            return torch.stack([as_vectors(plain(ConvNet(1, 8, 10, 32, 2), data.images, data.labels, schedule, key)) for key in keys])
        buffer(DIGITS, DIGITS_NETWORK, folder / "prepared", folder / "out", 0, CPU, folder / "scratch")
        return load_file(folder / "out" / "trajectories.safetensors")["snapshots"]

    return work, work()


def cifar(way: str, folder: Path):
    """An epoch of random CIFAR images. The work, and a trajectory `(1, 2, P)` after two batches: later rounding grows."""
    draws = generator("benchmark")
    images, labels = torch.randn(256 * BATCHES, 3, 32, 32, generator=draws), torch.arange(256 * BATCHES) % 10
    flat, targets, key = FlatNetwork(ConvNet(3, 32, 10, 128, 3)), F.one_hot(labels, 10).float(), (0, "buffer", 0)

    def work(count: int = len(labels)) -> torch.Tensor:
        if way == "plain":
            return as_vectors(plain(ConvNet(3, 32, 10, 128, 3), images[:count], labels[:count], Schedule(1, 0.01, 256), key))[None]
        schedule = Schedule(1, 0.01, 256, precision=way.removeprefix("ours, "))
        with mock.patch.object(training, "worth_compiling", lambda *_: True):  # as in a run of real length
            return train(flat, cross_entropy, None, images[:count], targets[:count], schedule, [key], keep_snapshots=True).snapshots

    return work, work(512)


SETTINGS = {
    f"digits, {DIGITS.experts} experts x {DIGITS.epochs} epochs": (digits, ("plain", "ours, float32"), (1, 8, 32, 2), 898 * DIGITS.epochs * DIGITS.experts),
    f"CIFAR-10 ConvNet 128, {BATCHES} batches of 256": (cifar, ("plain", "ours, float32", "ours, bfloat16"), (3, 32, 128, 3), 256 * BATCHES),
}  # fmt: skip


def measure(setting: str, way: str, runs: int, file: str) -> None:
    """In a process of its own: print seconds of each run and the peak, and leave the trajectories in `file`."""
    if way != "plain":
        pick_device("cpu")  # as a stage does
    with tempfile.TemporaryDirectory() as folder:
        work, trajectories = SETTINGS[setting][0](way, Path(folder))
        save_file({"trajectories": trajectories.contiguous()}, file)
        print(json.dumps({"seconds": in_turn({way: work}, runs)[way], "peak_mib": peak_mib()}))


def main(runs: int = 5) -> None:
    limit, results = rates(), []
    for setting, (_, ways, (channels, size, width, depth), images) in SETTINGS.items():
        operations = 3 * images * FlatNetwork(ConvNet(channels, size, 10, width, depth)).operations(torch.zeros(1, channels, size, size))
        with tempfile.TemporaryDirectory() as folder:
            found = {way: in_process("benchmarks.buffer", setting, way, runs, f"{folder}/{way}") for way in ways}
            made = {way: load_file(f"{folder}/{way}")["trajectories"][:, :2] for way in ways}
        for way, values in found.items():
            apart = max(difference(ours, theirs) for ours, theirs in zip(made[way], made["plain"]))
            assert apart < (0.1 if "bfloat16" in way else 1e-3), f"{setting}: the two ways differ by {apart}"
            times = spread(found["plain"]["seconds"])["median"] / spread(values["seconds"])["median"]
            rate = limit["bfloat16_operations" if "bfloat16" in way else "float32_operations"]
            results.append({"setting": setting, "way": way, **spread(values["seconds"]), "times_plain": times, "peak_mib": values["peak_mib"], "floor": operations / rate, "apart": apart})  # fmt: skip
    report("buffer", {"runs": runs, "unit": "seconds, MiB", "rates": limit}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main(*(int(word) for word in sys.argv[1:]))
