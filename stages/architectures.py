"""architectures: other networks on a row's distilled set -> accuracy and calibration of each.

    python -m stages.architectures [<row> ...]

A set is distilled for one network; what another network makes of it is the field's cross-architecture
generalisation. Each network is also judged at the temperature that ships with the set, which was fitted to
the ConvNet, and at a temperature of its own, so that one sees how far the shipped one carries.
"""

import importlib
from typing import Any, NamedTuple

import numpy as np
import torch

from stages.calibrators.optimum import optimum
from stages.images.distilled import load_set
from stages.images.prepared import LabelledImages
from stages.images.real import Real, fitting_images
from stages.losses import cross_entropy
from stages.metrics.scores import log_softmax, scores_of_networks
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
from stages.training.flat import FlatNetwork, predict
from stages.training.groups import Group, description, train_groups, train_settings
from stages.training.objective import Loss
from stages.training.repeats import input_files, setup_of

__all__ = ["Measure", "architectures", "build", "own_temperatures"]


class Measure(NamedTuple):
    """What networks are judged on, and how."""

    labels: np.ndarray  # (N,), of the test images
    bins: int  # of ECE
    bounds: list[float]  # of temperatures

    def scores(self, logits: np.ndarray, temperatures: list[float]) -> dict[str, list[float]]:
        """Every score of `(repeats, N, K)` logits at a temperature for each repeat, one number a repeat."""
        log_p = [log_softmax(z / temperature) for z, temperature in zip(logits, temperatures)]
        return scores_of_networks(log_p, self.labels, self.bins)


def architectures(row: Row) -> None:
    """Write `{network: {"parameters": P, "accuracy" | "ece" | ...: [...]}}` of a row, one number a repeat.

    Every network is trained with cross-entropy on the row's own schedule, so that `convnet` is the row's Raw.
    Below `calibrated` of a network are the same scores at each of its `temperatures_of`. The logits are kept
    in `row.architecture_logits`, so that another temperature trains no network.

    Raises:
        UserError: the images are too small for a network; `lr: learned` without a learned step size; a
            network has weights that are not finite.
    """
    names = row.analysis("architectures", ArchitecturesKeys).networks
    shipped = read_result(row.shipped, {}).get("temperature")
    bins = param("evaluate.bins")
    bounds = param("calibrate.bounds")
    trained_from = fingerprint(
        description(row, row.keys(TrainKeys), train_settings()),
        [input_hash(path) for path in input_files(row)],
        [names, train_settings().repeats, param("temperature.images"), code_version("architectures")],
    )
    made_from = fingerprint(trained_from, shipped, bins, bounds)
    if former_result(row.architectures).get("made_from") == made_from:
        return
    file = row.architecture_logits
    if not is_made_from(file, trained_from):
        write_logits(row, names, trained_from)
    logits = read_arrays(file)
    parameters = read_about(file)["parameters"]
    measure = Measure(logits["labels"], bins, bounds)
    results: dict[str, Any] = {"made_from": made_from}
    for name in names:
        raw = measure.scores(logits[f"{name}/test"], [1.0] * len(logits[f"{name}/test"]))
        calibrated = calibrated_scores(logits, name, shipped, measure)
        results[name] = {"parameters": parameters[name], **raw, "calibrated": calibrated}
    write_result(row.architectures, results)


def calibrated_scores(
    logits: dict[str, np.ndarray], name: str, shipped: float | None, measure: Measure
) -> dict[str, dict[str, list[float]]]:
    """The temperature of each repeat and its scores, at each of the `temperatures_of` a network."""
    calibrated = {}
    for key, temperatures in temperatures_of(logits, name, shipped, measure).items():
        numbers = measure.scores(logits[f"{name}/test"], temperatures)
        calibrated[key] = {"temperature": temperatures, **numbers}
    return calibrated


def temperatures_of(
    logits: dict[str, np.ndarray], name: str, shipped: float | None, measure: Measure
) -> dict[str, list[float]]:
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
    temperatures = {}
    if shipped is not None:
        temperatures["shipped"] = [shipped] * len(test)
    if f"{name}/real" in logits and len(test) > 1:
        temperatures["own"] = own_temperatures(logits[f"{name}/real"], logits["real_labels"], measure.bounds)
    best = [optimum(of_repeat, measure.labels, measure.bounds) for of_repeat in test]
    temperatures["oracle"] = [fit.temperature for fit in best]
    return temperatures


def own_temperatures(logits: np.ndarray, labels: np.ndarray, bounds: list[float]) -> list[float]:
    """For each network, the temperature that fits all the others best.

    Args:
        logits: `(networks, M, K)`, of the same images for all networks; there are at least two networks.
        labels: `(M,)`.
    """
    networks, _, classes = logits.shape
    labels_of_others = np.tile(labels, networks - 1)
    temperatures = []
    for network in range(networks):
        others = np.delete(logits, network, axis=0).reshape(-1, classes)
        temperatures.append(optimum(others, labels_of_others, bounds).temperature)
    return temperatures


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
                tensors[f"{name}/real"] = all_logits(group.network, trained.weights[name], real, setup.device)
        parameters = {name: group.network.size for name, group in groups.items()}
        about = {"made_from": trained_from, "parameters": parameters}
        write_tensors(row.architecture_logits, tensors, about)


def real_images(row: Row, repeats: int) -> LabelledImages | None:
    """The training images that `temperature` draws, without those that any repeat is trained on."""
    distilled = load_set(row.distilled, row.prepared)
    if distilled.is_whole:
        return None
    return fitting_images(Real.load(row.prepared), distilled, repeats, param("temperature.images"), row.seed)


def all_logits(
    network: FlatNetwork, weights: torch.Tensor, data: LabelledImages, device: torch.device
) -> torch.Tensor:
    """`(repeats, N, K)` logits of every repeat, from its weights `(repeats, P)`."""
    images = data.images.to(device)
    return torch.stack([predict(network, theta.to(device), images).cpu() for theta in weights])


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
