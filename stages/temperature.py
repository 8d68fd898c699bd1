"""temperature: one temperature for each set, fitted on real training images -> a number that ships with it.

    python -m stages.temperature [<row> ...]

Whoever distils a set has the real training images, and a network that is trained on the set has never seen
them. So a few networks are trained on the finished set, and one temperature for all of them is fitted on real
training images. It travels with the set, as MTT's learned step size does. Whoever trains a network on the set
needs no further image, no label and no solver. No test image is read.

This assumes that the training images are a fair sample for the networks of the set. They are not for a
network that was trained on them. So the images in the sets of `random` and `kmeans` are left out. On the full
data, each network is trained without the images that it is fitted on, at most a tenth of each class.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.calibrators.optimum import optimum
from stages.images.distilled import DistilledSet, load_set
from stages.images.prepared import LabelledImages
from stages.images.real import Real, fitting_images, fitting_rows
from stages.losses import cross_entropy
from stages.metrics.scores import accuracy
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, write_result, write_tensors
from stages.runtime.randomness import generator
from stages.runtime.reuse import code_version, fingerprint, former_result, input_hash, is_made_from
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.settings.temperature import TemperatureSettings
from stages.settings.train import TrainKeys
from stages.tools.records import recorded
from stages.training.flat import flat_convnet
from stages.training.groups import Group, Setup, description, schedule_of, train_groups, train_settings
from stages.training.objective import Loss

__all__ = ["fit", "input_files", "setups", "temperature"]

HELD_OUT = 0.1  # of each class of the full data: at most what a network is trained without


def temperature(settings: TemperatureSettings, bounds: list[float], row: Row) -> None:
    """Write the temperature of a row's set to `row.shipped`.

    `{"temperature", "bound_hit", "own": [...], "accuracy": [...], "images": N, "set"}`: `own` has the best
    temperature of each network alone, and `accuracy` is that on its N images. `set` is the hash of the
    set's file. The logits are kept in `row.real_logits`. A set that came with a temperature keeps it: then
    `own` and `accuracy` are empty, N is 0, and there are no logits.

    Raises:
        UserError: `lr: learned` or `teacher`, but the set came without such a step size; a network has
            weights that are not finite; the sets have all training images.
    """
    hashes = [input_hash(path) for path in input_files(row)]
    trained_from = fingerprint(description_of(row, settings), hashes, code_version("temperature"))
    made_from = fingerprint(trained_from, bounds)
    if former_result(row.shipped).get("made_from") == made_from:
        return
    distilled = load_set(row.distilled, row.prepared)
    if distilled.temperature is not None:
        row.real_logits.unlink(missing_ok=True)
        result = as_it_came(distilled.temperature)
    else:
        if not is_made_from(row.real_logits, trained_from):
            write_real_logits(row, distilled, settings, trained_from)
        arrays = read_arrays(row.real_logits)
        result = fit(arrays["logits"], arrays["labels"], bounds)
    write_result(row.shipped, result | {"set": input_hash(row.distilled), "made_from": made_from})


def as_it_came(value: float) -> dict[str, Any]:
    """The result for a set that came with a temperature."""
    return {"temperature": value, "bound_hit": False, "own": [], "accuracy": [], "images": 0}


def fit(logits: np.ndarray, labels: np.ndarray, bounds: list[float]) -> dict[str, Any]:
    """The temperature that minimises the mean NLL of all networks together, and each network's own.

    Args:
        logits: `(networks, N, K)`.
        labels: `(networks, N)`.
    """
    _, images, classes = logits.shape
    together = optimum(logits.reshape(-1, classes), labels.flatten(), bounds)
    return {
        "temperature": together.temperature,
        "bound_hit": together.bound_hit,
        "own": [optimum(z, own, bounds).temperature for z, own in zip(logits, labels)],
        "accuracy": [accuracy(z, own) for z, own in zip(logits, labels)],
        "images": images,
    }


# The networks


def description_of(row: Row, settings: TemperatureSettings) -> list[dict]:
    """The settings that the networks depend on."""
    return [description(row, row.keys(TrainKeys), train_settings()), settings.model_dump()]


def input_files(row: Row) -> list[Path]:
    """The files that the networks and their logits depend on. The test images are not among them."""
    return [row.distilled, row.prepared / "train.safetensors", row.prepared / "transform.safetensors"]


def write_real_logits(
    row: Row, distilled: DistilledSet, settings: TemperatureSettings, trained_from: str
) -> None:
    """Train the networks, and write `logits` `(networks, N, K)` and `labels` `(networks, N)`."""
    network = flat_convnet(row.network, distilled.data, row.device)
    groups = {"cross_entropy": Group(network, Loss(cross_entropy))}
    logits = []
    labels = []
    with scratch(f"temperature-{row.name}", description_of(row, settings), input_files(row)) as folder:
        for number, setup in enumerate(setups(row, distilled, settings)):
            part = folder / str(number)
            part.mkdir(exist_ok=True)
            results = train_groups(groups, setup, part)
            logits.append(results.logits["cross_entropy"])
            labels.append(setup.test.labels.expand(setup.repeats, -1))
        tensors = {"logits": torch.cat(logits), "labels": torch.cat(labels)}
        write_tensors(row.real_logits, tensors, {"made_from": trained_from})


def setups(row: Row, distilled: DistilledSet, settings: TemperatureSettings) -> list[Setup]:
    """How networks are trained that no repeat of `train` equals; their test images are training images.

    All networks of a set are shown the same images. On the full data, each is shown the images that it is
    trained without, and has a setup of its own.

    Raises:
        UserError: `lr: learned` or `teacher`, but the set came without such a step size; the sets have all
            training images.
    """
    real = Real.load(row.prepared)
    common = Setup(
        row=row.name,
        title=f"{row.name} for its temperature",
        data=distilled.data,
        rows=distilled.rows_of(settings.networks),
        test=LabelledImages(real.images[:0], real.labels[:0], real.classes),
        schedule=schedule_of(row.keys(TrainKeys), train_settings(), distilled, row.name),
        repeats=settings.networks,
        seed=row.seed,
        device=row.device,
        purpose="temperature",
    )
    if distilled.is_whole:
        smallest = int(real.labels.bincount(minlength=real.classes).min())
        tenth = max(1, round(HELD_OUT * smallest))
        each = min(real.each(settings.images), tenth)
        return [held_out_setup(common, real, each, network) for network in range(settings.networks)]
    shown = fitting_images(real, distilled, settings.networks, settings.images, row.seed)
    return [common._replace(test=shown)]


def held_out_setup(common: Setup, real: Real, each: int, network: int) -> Setup:
    """One network on the full data, shown `each` images of every class that it is trained without."""
    draws = generator(common.seed, "temperature", "images", network)
    nothing = torch.tensor([], dtype=torch.int64)
    shown = fitting_rows(real, nothing, each, draws)
    is_left = torch.ones(len(real.labels), dtype=torch.bool)
    is_left[shown] = False
    return common._replace(
        rows=[is_left.nonzero().flatten()],
        test=real.at(shown),
        repeats=1,
        purpose=f"temperature {network}",
    )


def main(*names: str) -> None:
    settings = parse(TemperatureSettings, param("temperature"), "params.yaml: temperature")
    for row in finished_rows("temperature", names, lambda row: row.distilled):
        temperature(settings, param("calibrate.bounds"), row)


if __name__ == "__main__":
    run_stage(recorded(main))
