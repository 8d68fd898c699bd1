"""Networks on a distilled set: the work of the `train` stage against the way of the public code.

    python -m benchmarks.train [runs]

5 repeats of 4 losses on ten images a class of the digits, for 300 epochs. Ours has forked processes and
files, as a user meets it. The plain way (`benchmarks/plain.py`) trains one network after the other, as
`evaluate_synset` of the public code of MTT. Each way runs in a process of its own. Networks of
five epochs have to be the same, or nothing is written: over 300 epochs, rounding grows.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from benchmarks.measure import (
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
from benchmarks.plain import plain_convnet, plain_training
from stages.images.distilled import DistilledSet
from stages.images.prepared import LabelledImages, load_split
from stages.images.sampling import class_rows
from stages.losses import cross_entropy, focal, label_smoothing, mixup
from stages.networks.convnet import ConvNet
from stages.prepare import prepare_images
from stages.settings.images import ImageSettings
from stages.settings.train import OwnTraining, TrainKeys
from stages.training.flat import FlatNetwork
from stages.training.groups import Group, Setup, schedule_of, train_groups, train_settings
from stages.training.objective import Loss

__all__ = ["EPOCHS", "LOSSES", "LR", "REPEATS", "networks"]

LOSSES = {
    "cross_entropy": cross_entropy,
    "mixup": mixup,
    "label_smoothing": label_smoothing,
    "focal": focal,
}
REPEATS = 5
IPC = 10
EPOCHS = 300
LR = 0.05
DIGITS = (1, 8, 10, 32, 2)  # channels, pixels of a side, classes, width, depth


def setup(way: str, folder: Path, repeats: int, epochs: int) -> Setup:
    """Training on ten images a class of the digits, tested on all test images."""
    prepare_images(ImageSettings(source="digits", whitening="zca"), folder / "prepared")
    real = load_split(folder / "prepared", "train")
    rows = torch.cat([own[:IPC] for own in class_rows(real.labels, real.classes)])
    data = LabelledImages(real.images[rows], real.labels[rows], real.classes)
    keys = TrainKeys(epochs=epochs, lr=LR, augment=True, train=OwnTraining())
    return Setup(
        row="benchmark",
        title="benchmark",
        data=data,
        rows=None,
        test=load_split(folder / "prepared", "test"),
        schedule=schedule_of(keys, train_settings(), DistilledSet(data, None, None, None), "benchmark"),
        repeats=repeats,
        seed=0,
        device=device_of(way),
    )


def networks(way: str, folder: Path, repeats: int, epochs: int) -> Prepared:
    """The work, and weights `(4, P)` of networks of five epochs, one for each loss."""
    train = {"ours": train_ours, "plain": train_plain}[way]
    result = train(setup(way, folder, 1, 5))
    return Prepared(partial(train, setup(way, folder, repeats, epochs)), result)


def train_ours(setup: Setup) -> torch.Tensor:
    """Weights `(4 * repeats, P)`."""
    groups = {}
    for name, module in LOSSES.items():
        network = FlatNetwork(ConvNet(*DIGITS).to(setup.device))
        groups[name] = Group(network, Loss(module, train_settings()))
    with tempfile.TemporaryDirectory() as folder:
        weights = train_groups(groups, setup, Path(folder)).weights
    return torch.cat(list(weights.values())).cpu()


def train_plain(setup: Setup) -> torch.Tensor:
    """Weights `(4 * repeats, P)`."""
    targets = F.one_hot(setup.data.labels, setup.data.classes).float()
    data = TensorDataset(setup.data.images[:], targets)
    weights = []
    for module in LOSSES.values():
        loss = Loss(module, train_settings())
        for repeat in range(setup.repeats):
            network = plain_convnet(*DIGITS).to(setup.device)
            *_, last = plain_training(network, loss, data, setup.schedule, (setup.seed, "train", repeat))
            with torch.no_grad():
                network(setup.test.images[:].to(setup.device))
            weights.append(last)
    return torch.stack(weights)


def measure(way: str, runs: str, file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = networks(way, Path(folder), REPEATS, EPOCHS)
        measured(prepared, int(runs), file, device_of(way))


def operations() -> int:
    """Of all forward and backward passes."""
    one_image = FlatNetwork(plain_convnet(*DIGITS)).operations(torch.zeros(1, 1, 8, 8))
    images = 10 * IPC * EPOCHS * REPEATS * len(LOSSES)
    return 3 * one_image * images


def main(runs: str = "5") -> None:
    ways, weights = each_way("benchmarks.train", ("plain", "ours"), runs)
    apart = distance(weights["ours"], weights["plain"])
    assert apart < 1e-4, f"the two ways differ by {apart}"
    limit = rates(device_of("ours"))
    floor = operations() / limit["float32_operations"]
    results = []
    for way, numbers in compared(ways).items():
        results.append({"way": way, **numbers, "floor": floor, "apart": apart if way == "ours" else 0.0})
    setting = f"digits, {IPC} images a class, {EPOCHS} epochs, {REPEATS} repeats of {len(LOSSES)} losses"
    settings = {"runs": int(runs), "unit": "seconds, MiB", "setting": setting, "rates": limit}
    report("train", settings, results)


if __name__ == "__main__":
    main_or_measure(main, measure)
