"""What bfloat16 products do to experts: their accuracy and ECE on the test images.

    python -m benchmarks.precision [experts]

The 128-wide ConvNet on 500 whitened CIFAR-10 training images a class (batches of 256, 4 epochs), tested on 500 of each class's
test images, from `data_root`; and 20 experts of the digits. Expert i has the same initial weights, orders and augmentations in both
precisions, so the differences are of pairs; the deviations tell how much another seed changes. Writes
reports/benchmarks/precision.json.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch.nn.functional as F

from benchmarks.buffer import DIGITS, DIGITS_NETWORK
from benchmarks.measure import device_of, report
from stages.losses import cross_entropy
from stages.metrics.ece import ece
from stages.prepare import prepare
from stages.shared import training
from stages.shared.archives import data_root
from stages.shared.convnet import NetworkSettings
from stages.shared.flat import flat_convnet, predict
from stages.shared.images import load_split
from stages.shared.settings import param
from stages.shared.sources import ImageSettings
from stages.shared.training import Schedule, train

SETTINGS = {
    "CIFAR-10, 5,000 images, ConvNet 128, 4 epochs": (ImageSettings(source="cifar10", whitening="zca", per_class=500), NetworkSettings(width=128, depth=3), Schedule(4, 0.01, 256)),
    "digits, 15 epochs": (ImageSettings(source="digits", whitening="zca"), DIGITS_NETWORK, Schedule(DIGITS.epochs, DIGITS.lr, DIGITS.batch)),
}  # fmt: skip


def scores(source: ImageSettings, network: NetworkSettings, schedule: Schedule, experts: int) -> dict[str, list[dict[str, float]]]:
    """Percent, of each expert, by precision."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(source, Path(folder), root=data_root(param("data_root")))
        data, test = (load_split(Path(folder), split) for split in ("train", "test"))
    device, found = device_of("ours"), {}
    flat, images, targets = flat_convnet(network, data, device), data.images.to(device), F.one_hot(data.labels, data.classes).float().to(device)
    for precision in ("float32", "bfloat16"):
        found[precision] = []
        for i in range(experts):
            with mock.patch.object(training, "worth_compiling", lambda *_: network.width == 128):  # as in a run of real length
                theta = train(flat, cross_entropy, None, images, targets, schedule._replace(precision=precision), [(0, "buffer", i)]).theta[0]
            logits = predict(flat, theta, test.images.to(device)).cpu()
            accuracy = 100 * float((logits.argmax(1) == test.labels).float().mean())
            found[precision].append({"accuracy": accuracy, "ece": 100 * ece(logits.softmax(1).numpy(), test.labels.numpy())})
    return found


def main(experts: int = 3) -> None:
    results = []
    for (setting, parts), count in zip(SETTINGS.items(), (experts, DIGITS.experts)):
        found = scores(*parts, count)
        for score in ("accuracy", "ece"):
            full, half = ([one[score] for one in found[precision]] for precision in ("float32", "bfloat16"))
            pairs = [b - a for a, b in zip(full, half)]
            means = {"float32": statistics.mean(full), "bfloat16": statistics.mean(half), "deviation_float32": statistics.stdev(full)}
            results.append({"setting": setting, "experts": count, "score": score, **means, "difference": statistics.mean(pairs), "standard_error": statistics.stdev(pairs) / count**0.5})
    report("precision", {"unit": "percent"}, results)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
