"""Networks on a distilled set: the work of the `train` stage against the way of the public code.

    python -m benchmarks.train [runs]

5 repeats of 4 losses on ten images a class of the digits, 300 epochs; ours with forked processes and files, as a user meets
it. The plain way (`benchmarks/plain.py`): one network after the other (`evaluate_synset` of the public code of MTT). Each way
is a process of its own. Before anything is timed, networks of five epochs have to be the same: over 300, rounding grows.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.measure import compared, device_of, in_process, measured, rates, report
from benchmarks.plain import plain_convnet, plain_training
from stages.losses import cross_entropy, focal, label_smoothing, mixup
from stages.prepare import prepare
from stages.shared.convnet import ConvNet
from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages, load_split
from stages.shared.repeats import Group, train_groups
from stages.shared.sampling import class_rows
from stages.shared.settings import param
from stages.shared.sources import ImageSettings
from stages.train import TrainRow, TrainSettings, schedule_of

LOSSES = {"cross_entropy": cross_entropy, "mixup": mixup, "label_smoothing": label_smoothing, "focal": focal}
REPEATS, IPC, EPOCHS, LR = 5, 10, 300, 0.05


def networks(way: str, folder: Path, repeats: int, epochs: int) -> Callable[[], torch.Tensor]:
    """The work: weights `(4 * repeats, P)` of networks on ten images a class of the digits."""
    prepare(ImageSettings(source="digits", whitening="zca"), folder / "prepared")
    real, test = (load_split(folder / "prepared", split) for split in ("train", "test"))
    rows = torch.cat([own[:IPC] for own in class_rows(real.labels, real.classes)])
    device, data = device_of(way), LabelledImages(real.images[rows], real.labels[rows], real.classes)
    settings = TrainSettings.model_validate(param("train"))
    schedule = schedule_of(TrainRow(epochs=epochs, lr=LR, augment=True), settings, None, "benchmark")

    def ours() -> torch.Tensor:
        groups = {name: Group(FlatNetwork(ConvNet(1, 8, 10, 32, 2).to(device)), loss) for name, loss in LOSSES.items()}
        with tempfile.TemporaryDirectory(dir=folder) as here:
            theta, _ = train_groups(groups, repeats, settings, data, test.images, schedule, 0, "benchmark", Path(here), device)
        return torch.cat(list(theta.values())).cpu()

    def plain() -> torch.Tensor:
        found, targets = [], F.one_hot(data.labels, data.classes).float()
        for loss in LOSSES.values():
            for repeat in range(repeats):
                module = plain_convnet(1, 8, 10, 32, 2).to(device)
                *_, theta = plain_training(module, loss, settings, data.images, targets, schedule, (0, "train", repeat))
                with torch.no_grad():
                    module(test.images.to(device))
                found.append(theta)
        return torch.stack(found)

    return {"ours": ours, "plain": plain}[way]


def measure(way: str, runs: int, file: str) -> None:
    """In a process of its own; see `measured`."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(networks(way, Path(folder), 1, 5)(), networks(way, Path(folder), REPEATS, EPOCHS), runs, file, device_of(way))))


def main(runs: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {way: in_process("benchmarks.train", way, runs, f"{folder}/{way}") for way in ("plain", "ours")}
        made = {way: load_file(f"{folder}/{way}")["result"] for way in found}
    apart = float((made["ours"] - made["plain"]).norm() / made["plain"].norm())
    assert apart < 1e-4, f"the two ways differ by {apart}"
    limit = rates(device_of("ours"))
    operations = 3 * FlatNetwork(plain_convnet(1, 8, 10, 32, 2)).operations(torch.zeros(1, 1, 8, 8)) * 10 * IPC * EPOCHS * REPEATS * len(LOSSES)
    floor = operations / limit["float32_operations"]
    results = [{"way": way, **values, "floor": floor, "apart": apart if way == "ours" else 0.0} for way, values in compared(found).items()]
    setting = f"digits, {IPC} images a class, {EPOCHS} epochs, {REPEATS} repeats of {len(LOSSES)} losses"
    report("train", {"runs": runs, "unit": "seconds, MiB", "setting": setting, "rates": limit}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main(*(int(word) for word in sys.argv[1:]))
