"""What bfloat16 products do to experts: their accuracy and ECE on the test images.

    python -m benchmarks.precision [experts]

The 128-wide ConvNet on 500 whitened CIFAR-10 training images a class (batches of 256, 4 epochs), tested
on 500 of each class's test images, from `data_root`; and 20 experts of the digits. Expert i has the same
initial weights, orders and augmentations in both precisions, so the differences are of pairs; the
deviations tell how much another seed changes. Writes reports/benchmarks/precision.json.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.buffer import DIGITS, DIGITS_NETWORK
from benchmarks.measure import device_of, report
from stages.images.archives import data_root
from stages.images.prepared import LabelledImages, load_split
from stages.losses import cross_entropy
from stages.metrics.ece import ece
from stages.prepare import prepare_images
from stages.settings.images import ImageSettings
from stages.settings.network import NetworkSettings
from stages.settings.project import param
from stages.training import gradients
from stages.training.flat import flat_convnet, predict
from stages.training.loop import Schedule, examples, train
from stages.training.objective import Loss

Scores = dict[str, float]  # accuracy and ECE of an expert, in percent


class Setting(NamedTuple):
    images: ImageSettings
    network: NetworkSettings
    schedule: Schedule


CIFAR = "CIFAR-10, 5,000 images, ConvNet 128, 4 epochs"
SETTINGS = {
    CIFAR: Setting(
        ImageSettings(source="cifar10", whitening="zca", per_class=500),
        NetworkSettings(width=128, depth=3),
        Schedule(4, 0.01, 256),
    ),
    "digits, 15 epochs": Setting(
        ImageSettings(source="digits", whitening="zca"),
        NetworkSettings(**DIGITS_NETWORK),
        Schedule(DIGITS.epochs, DIGITS.lr, DIGITS.batch),
    ),
}


def expert_scores(setting: Setting, experts: int) -> dict[str, list[Scores]]:
    """The scores of each expert by precision."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_images(setting.images, Path(folder), root=data_root(param("data_root")))
        data = load_split(Path(folder), "train")
        test = load_split(Path(folder), "test")
    device = device_of("ours")
    network = flat_convnet(setting.network, data, device)
    training_images = examples(data, device)
    by_precision: dict[str, list[Scores]] = {"float32": [], "bfloat16": []}
    for precision, scores in by_precision.items():
        schedule = setting.schedule._replace(precision=precision)
        for expert in range(experts):
            with mock.patch.object(gradients, "worth_compiling", lambda *_: setting.network.width == 128):
                key = (0, "buffer", expert)
                trained = train(network, Loss(cross_entropy), training_images, schedule, [key])
            logits = predict(network, trained.theta[0], test.images.to(device))
            scores.append(scores_of(logits.cpu(), test))
    return by_precision


def scores_of(logits: Any, test: LabelledImages) -> Scores:
    """From `(N, K)` logits."""
    right = logits.argmax(1) == test.labels
    probabilities = logits.softmax(1).numpy()
    return {
        "accuracy": 100 * float(right.float().mean()),
        "ece": 100 * ece(probabilities, test.labels.numpy()),
    }


def results_of(name: str, experts: int) -> list[dict[str, Any]]:
    """Means and differences of a setting, for both scores."""
    by_precision = expert_scores(SETTINGS[name], experts)
    results = []
    for score in ("accuracy", "ece"):
        full = [scores[score] for scores in by_precision["float32"]]
        half = [scores[score] for scores in by_precision["bfloat16"]]
        differences = [b - a for a, b in zip(full, half)]
        results.append(
            {
                "setting": name,
                "experts": experts,
                "score": score,
                "float32": statistics.mean(full),
                "bfloat16": statistics.mean(half),
                "deviation_float32": statistics.stdev(full),
                "difference": statistics.mean(differences),
                "standard_error": statistics.stdev(differences) / experts**0.5,
            }
        )
    return results


def main(experts: str = "3") -> None:
    results = []
    for name in SETTINGS:
        results += results_of(name, int(experts) if name == CIFAR else DIGITS.experts)
    report("precision", {"unit": "percent"}, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
