"""architectures: other networks on a row's distilled set -> accuracy and calibration of each.

    python -m stages.architectures [<row> ...]

A set is distilled for one network; what another network makes of it is the field's cross-architecture
generalisation. Each network is also judged at the temperature that ships with the set, which was fitted to
the ConvNet, and at a temperature of its own, so that one sees how far the shipped one carries.
"""

import importlib
from typing import Any

import numpy as np
import torch

from stages.calibrators.judge import Judge, pooled
from stages.calibrators.optimum import Fit, as_lists, optimum
from stages.images.distilled import load_set
from stages.images.prepared import LabelledImages
from stages.images.real import Real, fitting_images
from stages.losses import cross_entropy
from stages.metrics.scores import scores_at
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_about, read_arrays, read_result, write_result, write_tensors
from stages.runtime.reuse import code_version, fingerprint, former_result, input_hash, is_made_from
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.network import NetworkSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.train import TrainKeys
from stages.tools.records import recorded
from stages.training.flat import FlatNetwork, predict_each
from stages.training.groups import Group, description, train_groups, train_settings
from stages.training.objective import Loss
from stages.training.repeats import input_files, setup_of

__all__ = ["architectures", "build", "own_temperatures"]


def architectures(row: Row) -> None:
    """Write `{network: {"parameters": P, "accuracy" | "ece" | ...: [...]}}` of a row, one number a repeat.

    Every network is trained with cross-entropy on the row's own schedule, so that `convnet` is the row's Raw.
    Below `calibrated` of a network are its temperatures by `fits_of`, and the same scores at these. The
    logits are kept in `row.architecture_logits`, so that another temperature trains no network.

    Raises:
        UserError: the images are too small for a network; `lr: learned` without a learned step size; a
            network has weights that are not finite.
    """
    names = row.analysis("architectures", ArchitecturesKeys).networks
    shipped = read_result(row.shipped, {})
    shipped_fit = Fit(shipped["temperature"], shipped["bound_hit"]) if shipped else None
    bins = param("evaluate.bins")
    bounds = param("calibrate.bounds")
    trained_from = fingerprint(
        description(row, row.keys(TrainKeys), train_settings()),
        [input_hash(path) for path in input_files(row)],
        [names, train_settings().repeats, param("temperature.images"), code_version("architectures")],
    )
    made_from = fingerprint(trained_from, shipped_fit, bins, bounds)
    if former_result(row.architectures).get("made_from") == made_from:
        return
    file = row.architecture_logits
    if not is_made_from(file, trained_from):
        write_logits(row, names, trained_from)
    logits = read_arrays(file)
    parameters = read_about(file)["parameters"]
    judge = Judge(logits["labels"], bounds, bins)
    results: dict[str, Any] = {"made_from": made_from}
    for name in names:
        test = logits[f"{name}/test"]
        raw = scores_at(test, [1.0] * len(test), judge.labels, bins)
        calibrated = {}
        for key, fits in fits_of(logits, name, shipped_fit, judge).items():
            numbers = scores_at(test, [fit.temperature for fit in fits], judge.labels, bins)
            calibrated[key] = as_lists(fits) | numbers
        results[name] = {"parameters": parameters[name], **raw, "calibrated": calibrated}
    write_result(row.architectures, results)


def fits_of(
    logits: dict[str, np.ndarray], name: str, shipped: Fit | None, judge: Judge
) -> dict[str, list[Fit]]:
    """The temperatures that a network is judged at, one a repeat.

    - `shipped`: the one that ships with the set; absent where there is none.
    - `own`: fitted on real training images, to the other repeats of the network; absent where there is a
      single repeat, and where the set is the whole training split.
    - `oracle`: fitted on the test labels, for reference.

    Args:
        logits: what `write_logits` has written.
        name: of the network.
        shipped: None: no temperature ships with the set.
    """
    test = logits[f"{name}/test"]
    fits = {}
    if shipped is not None:
        fits["shipped"] = [shipped] * len(test)
    if f"{name}/real" in logits and len(test) > 1:
        fits["own"] = own_temperatures(logits[f"{name}/real"], logits["real_labels"], judge.bounds)
    return fits | {"oracle": judge.oracle(test)}


def own_temperatures(logits: np.ndarray, labels: np.ndarray, bounds: list[float]) -> list[Fit]:
    """For each network, the temperature that fits all the others best.

    Args:
        logits: `(networks, M, K)`, of the same images for all networks; there are at least two networks.
        labels: `(M,)`.
    """
    others = [np.delete(logits, network, axis=0) for network in range(len(logits))]
    return [optimum(*pooled(of_others, labels), bounds) for of_others in others]


def write_logits(row: Row, names: list[str], trained_from: str) -> None:
    """Train every network, and write its logits on test images and on real training images.

    `<network>/test` `(repeats, N, K)`, `labels` `(N,)`, `<network>/real` `(repeats, M, K)` and `real_labels`
    `(M,)`. On the whole training split there is no real image that the networks have not seen, so there are
    neither `real` nor `real_labels`.
    """
    keys = row.keys(TrainKeys)
    settings = train_settings()
    setup = setup_of(row, keys, settings)
    groups = {}
    for name in names:
        where = f"architectures.{row.name}.networks"
        network = build(name, setup.data, row.network, where, setup.device)
        groups[name] = Group(network, Loss(cross_entropy))
    with scratch(f"architectures-{row.name}", description(row, keys, settings), input_files(row)) as folder:
        trained = train_groups(groups, setup, folder)
        tensors = {"labels": setup.test.labels}
        tensors |= {f"{name}/test": logits for name, logits in trained.logits.items()}
        real = real_images(row, setup.repeats)
        if real is not None:
            tensors["real_labels"] = real.labels
            for name, group in groups.items():
                images = real.images.to(setup.device)
                tensors[f"{name}/real"] = predict_each(group.network, trained.weights[name], images)
        parameters = {name: group.network.size for name, group in groups.items()}
        about = {"made_from": trained_from, "parameters": parameters}
        write_tensors(row.architecture_logits, tensors, about)


def real_images(row: Row, repeats: int) -> LabelledImages | None:
    """The training images that `temperature` draws, without those that any repeat is trained on."""
    distilled = load_set(row.distilled, row.prepared)
    if distilled.is_whole:
        return None
    return fitting_images(Real.load(row.prepared), distilled, repeats, param("temperature.images"), row.seed)


def build(
    name: str, data: LabelledImages, settings: NetworkSettings, where: str, device: torch.device
) -> FlatNetwork:
    """A network of `stages/networks` for the channels, the size and the classes of a data set's images.

    Args:
        where: the key of the settings that names the network, for messages.

    Raises:
        UserError: the images are too small for the network.
    """
    _, channels, size, _ = data.images.shape
    module = importlib.import_module(f"stages.networks.{name}")
    try:
        network = module.build(channels, size, data.classes, settings)
    except ValueError as problem:
        raise UserError(f"{where}: {problem}") from None
    return FlatNetwork(network.to(device))


def main(*names: str) -> None:
    for row in finished_rows("architectures", names, lambda row: row.distilled, kind="architectures"):
        architectures(row)


if __name__ == "__main__":
    run_stage(recorded(main))
