"""reach: how far a shipped temperature goes, and what can be done without real images -> one file a row.

    python -m stages.reach [<row> ...]

All is judged on the networks of the row and on its test images, beside Raw, the shipped temperature and an
oracle. The oracle is the only fit that sees test labels, and `agreement` the only other one that sees test
images.

The real images are the training images that the stage `temperature` draws, and the networks that see them are
those of that stage and further ones. So as many networks as are trained there give the shipped temperature
again. The exception are rows whose sets are real images: here the images of more sets are left out, and the
draw is another one.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from stages.calibrators.agreement import by_agreement
from stages.calibrators.judge import RAW, Judge, Name, confidence_of, log_mean, pooled
from stages.calibrators.maps import isotonic, vector_scaling
from stages.calibrators.objectives import OBJECTIVES
from stages.calibrators.optimum import Fit, optimum
from stages.images.augment import augment, draw
from stages.images.distilled import DistilledSet, load_set
from stages.images.prepared import load_transform
from stages.images.shifts import Shift, shifted, shifts_of
from stages.losses import cross_entropy
from stages.metrics.scores import log_softmax
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import read_result, read_tensors, write_result, write_tensors
from stages.runtime.randomness import generator
from stages.runtime.reuse import code_version, fingerprint, former_result, input_hash, is_made_from
from stages.settings.project import param
from stages.settings.reach import ReachKeys, ReachSettings
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.settings.temperature import TemperatureSettings
from stages.settings.train import TrainKeys
from stages.temperature import input_files, setups
from stages.tools.records import recorded
from stages.training.flat import FlatNetwork, flat_convnet, predict, predict_each
from stages.training.folds import fold_setups, folds_of
from stages.training.groups import Group, Setup, description, train_groups, train_settings
from stages.training.loop import Schedule
from stages.training.objective import Loss

__all__ = ["RealLogits", "Tried", "load_case", "reach", "setup_on_real_images"]

SHIFTED_TOGETHER = 1000  # test images


class Tried(NamedTuple):
    """What is tried, and what all rows share."""

    reach: ReachSettings
    temperature: TemperatureSettings
    bounds: list[float]  # of every temperature
    bins: int  # of ECE


class Networks(NamedTuple):
    """The networks that are judged: those of the row that were trained with cross-entropy, one a repeat."""

    network: FlatNetwork
    weights: torch.Tensor  # (R, P), on the device that they run on

    def logits(self, images: torch.Tensor) -> np.ndarray:
        """`(R, N, K)`."""
        return predict_each(self.network, self.weights, images.to(self.weights.device)).numpy()


class RealLogits(NamedTuple):
    """What networks make of real training images that are in none of their sets."""

    labels: np.ndarray  # (M,), class by class
    fresh: np.ndarray  # (networks, M, K), of networks that no repeat of `train` equals
    own: np.ndarray  # (R, M, K), of the networks that are judged

    def prefix(self, images: int) -> np.ndarray:
        """The positions of about so many images: equally many of each class and at least one, or all."""
        classes = self.fresh.shape[2]
        each = max(1, images // classes)
        rows = [np.flatnonzero(self.labels == label)[:each] for label in range(classes)]
        return np.concatenate(rows)


class Case(NamedTuple):
    """A row with all that temperatures are fitted on and judged on."""

    row: Row
    tried: Tried
    distilled: DistilledSet
    networks: Networks
    test: dict[str, np.ndarray]  # (R, N, K) logits on test images, by loss
    judge: Judge
    shipped: Fit

    @property
    def logits(self) -> np.ndarray:
        """Of the networks that are judged."""
        return self.test["cross_entropy"]

    def at(self, name: Name, fit: Fit) -> dict[str, Any]:
        """The entry of one temperature for all networks."""
        return self.judge.entry(name, self.logits, [fit] * len(self.logits))


def reach(tried: Tried, row: Row) -> None:
    """Write `{"row", "entries": [...], "made_from"}` to `row.reach`.

    An entry has the `part`, `choice` and `on` of its `Name`, and lists of one number a repeat: `accuracy`,
    `ece`, `nll` and `confidence_gap`, and where there is a temperature, `temperature` and `bound_hit`. Where
    they are varied, `networks` and `images` say how many it was fitted with. A choice that does not exist for
    the row is absent. The logits of the networks that are trained for this are kept in `row.reach_logits`, so
    that another temperature trains no network.

    Raises:
        UserError: `lr: learned` or `teacher`, but the set came without such a step size; a network has
            weights that are not finite.
    """
    carried = carried_temperatures(row)
    shipped = read_result(row.shipped)
    trained_from = fingerprint(
        description_of(row, tried),
        [input_hash(path) for path in input_files(row)],
        code_version("reach"),
    )
    made_from = fingerprint(
        [trained_from, tried.reach.model_dump(), tried.temperature.model_dump(), tried.bounds, tried.bins],
        [input_hash(path) for path in (row.weights, row.logits, row.prepared / "test.safetensors")],
        [shipped["temperature"], carried],
    )
    if former_result(row.reach).get("made_from") == made_from:
        return
    case = load_case(row, tried, Fit(shipped["temperature"], shipped["bound_hit"]))
    setup = setup_on_real_images(case)
    if not is_made_from(row.reach_logits, trained_from):
        write_trained_logits(case, setup, trained_from)
    trained = {name: values.numpy() for name, values in read_tensors(row.reach_logits).items()}
    own = case.networks.logits(setup.test.images[:])
    real = RealLogits(setup.test.labels.numpy(), trained["real"], own)
    entries = case.judge.beside("reference", "clean", case.logits, case.shipped)
    entries += by_networks(case, real) + by_images(case, real)
    entries += on_other_losses(case) + carried_over(case, carried) + on_shifts(case)
    entries += by_objective(case, real) + on_ensemble(case, real) + by_map(case, real)
    entries += without_images(case, trained, setup.schedule)
    write_result(row.reach, {"row": row.name, "entries": entries, "made_from": made_from})


def load_case(row: Row, tried: Tried, shipped: Fit) -> Case:
    distilled = load_set(row.distilled, row.prepared)
    network = flat_convnet(row.network, distilled.data, row.device)
    weights = read_tensors(row.weights)["cross_entropy"].to(row.device)
    test = {name: values.numpy() for name, values in read_tensors(row.logits).items()}
    judge = Judge(test.pop("labels"), tried.bounds, tried.bins)
    return Case(row, tried, distilled, Networks(network, weights), test, judge, shipped)


def carried_temperatures(row: Row) -> dict[str, Fit]:
    """The temperatures of the other rows that the suite names, as far as they are there."""
    others = [Row(name) for name in row.analysis("reach", ReachKeys).carried]
    shipped = {other.name: read_result(other.shipped, {}) for other in others}
    return {name: Fit(read["temperature"], read["bound_hit"]) for name, read in shipped.items() if read}


# The networks that are trained for this


def description_of(row: Row, tried: Tried) -> list[Any]:
    """The settings that the networks and their logits depend on."""
    counts = [most_networks(tried), train_settings().repeats, tried.temperature.images, tried.reach.folds]
    return [description(row, row.keys(TrainKeys), train_settings()), counts]


def most_networks(tried: Tried) -> int:
    """As many networks on real images as any choice needs."""
    return max(*tried.reach.networks, tried.temperature.networks)


def write_trained_logits(case: Case, setup: Setup, trained_from: str) -> None:
    """Train networks on the row's set, and write what they make of images that they have not seen.

    - `real` `(networks, M, K)`: logits on the real images.
    - `left_out` `(N, K)` and `left_out_labels` `(N,)`: logits of distilled images, each of the network that
      was trained without its fold; absent where a class has fewer images than there are folds.

    Args:
        setup: of the networks on real images.
    """
    row = case.row
    groups = {"cross_entropy": Group(case.networks.network, Loss(cross_entropy))}
    folds = folds_of(case.distilled, case.tried.reach.folds, generator(row.seed, "reach", "folds"))
    logits = []
    labels = []
    with scratch(f"reach-{row.name}", description_of(row, case.tried), input_files(row)) as folder:
        tensors = {"real": train_groups(groups, setup, folder).logits["cross_entropy"]}
        for fold_setup, of_setup in fold_setups(setup, folds or []):
            part = folder / fold_setup.purpose.replace(" ", "-")
            part.mkdir(exist_ok=True)
            trained = train_groups(groups, fold_setup, part).logits["cross_entropy"]
            for of_network, fold in zip(trained, of_setup):
                logits.append(of_network[fold.left_out])
                labels.append(case.distilled.data.soft_or_hard[fold.left_out])
        if folds:
            tensors |= {"left_out": torch.cat(logits), "left_out_labels": torch.cat(labels)}
        write_tensors(row.reach_logits, tensors, {"made_from": trained_from})


def setup_on_real_images(case: Case) -> Setup:
    """How networks are trained, and real training images that are in no set of any network.

    The latter holds for those networks too that temperatures are judged on.
    """
    networks = most_networks(case.tried)
    with_sets = max(networks, len(case.logits))
    settings = case.tried.temperature.model_copy(update={"networks": with_sets})
    (setup,) = setups(case.row, case.distilled, settings)
    return setup._replace(repeats=networks, title=f"{case.row.name} for its reach")


# How far the shipped temperature goes


def by_networks(case: Case, real: RealLogits) -> list[dict[str, Any]]:
    """Temperatures of fewer and of more networks, on as many images as that which is shipped."""
    entries = []
    for networks in case.tried.reach.networks:
        fit = optimum(*pooled(real.fresh[:networks], real.labels), case.tried.bounds)
        entry = case.at(Name("networks", str(networks)), fit)
        entries.append(entry | {"networks": networks, "images": len(real.labels)})
    return entries


def by_images(case: Case, real: RealLogits) -> list[dict[str, Any]]:
    """Temperatures of fewer and of more real images, of as many networks as that which is shipped."""
    networks = case.tried.temperature.networks
    entries = []
    for images in case.tried.reach.images:
        rows = real.prefix(images)
        fit = optimum(*pooled(real.fresh[:networks, rows], real.labels[rows]), case.tried.bounds)
        entry = case.at(Name("images", str(images)), fit)
        entries.append(entry | {"networks": networks, "images": len(rows)})
    return entries


def on_other_losses(case: Case) -> list[dict[str, Any]]:
    """The shipped temperature on the row's networks that were trained with another loss."""
    entries = []
    for loss, logits in case.test.items():
        if loss not in ("cross_entropy", "holdout"):
            entries += case.judge.beside("losses", loss, logits, case.shipped)
    return entries


def carried_over(case: Case, carried: dict[str, Fit]) -> list[dict[str, Any]]:
    """The temperatures of other rows on the networks of this one."""
    return [case.at(Name("carried", name), fit) for name, fit in carried.items()]


def on_shifts(case: Case) -> list[dict[str, Any]]:
    """The shipped temperature on test images that are changed, which it was not fitted for."""
    entries = []
    for shift in shifts_of(case.tried.reach.shifts):
        logits = shifted_logits(case, shift)
        entries += case.judge.beside("shifts", shift.name, logits, case.shipped)
    return entries


def shifted_logits(case: Case, shift: Shift) -> np.ndarray:
    """`(R, N, K)` logits on the shifted test images, which are normalised like all others."""
    device = case.networks.weights.device
    transform = load_transform(case.row.prepared).to(device)
    pixels = read_tensors(case.row.prepared / "test.safetensors")["images"]
    parts = []
    for number, part in enumerate(pixels.split(SHIFTED_TOGETHER)):
        draws = generator(case.row.seed, "reach", shift.kind, shift.strength, number)
        images = transform.forward(shifted(part.to(device) / 255, shift, draws))
        parts.append(case.networks.logits(images))
    return np.concatenate(parts, 1)


def by_objective(case: Case, real: RealLogits) -> list[dict[str, Any]]:
    """Temperatures by what they minimise: one for all networks, and each network's own.

    The former come from as many other networks as that which is shipped, the latter from what the networks
    that are judged make of the same images.
    """
    fresh = pooled(real.fresh[: case.tried.temperature.networks], real.labels)
    entries = []
    for name, objective in OBJECTIVES.items():
        fit = objective(*fresh, case.tried.bounds)
        entries.append(case.at(Name("objectives", name), fit))
    for name, objective in OBJECTIVES.items():
        fits = [objective(z, real.labels, case.tried.bounds) for z in real.own]
        entries.append(case.judge.entry(Name("own", name), case.logits, fits))
    return entries


def on_ensemble(case: Case, real: RealLogits) -> list[dict[str, Any]]:
    """The mean of the probabilities of the networks that are judged.

    `fitted` has one temperature T for the mean p: `softmax(log p / T)`. T is fitted on real images, on the
    mean of as many other networks as are judged, or of all where there are fewer. First the mean and then the
    temperature is the order of Rahul Rahaman, Alexandre Thiery: "Uncertainty Quantification and Deep
    Ensembles", NeurIPS 2021, https://arxiv.org/abs/2007.08792. `shipped` is the mean of networks that each
    have the shipped temperature. Where repeats have sets of their own, all means are over several sets.
    """
    judge = case.judge
    fresh = real.fresh[: len(case.logits)]
    mean = log_mean(case.logits)[None]
    fitted = optimum(log_mean(fresh), real.labels, case.tried.bounds)
    at_shipped = log_mean(case.logits / case.shipped.temperature)
    shipped = Name("ensemble", "shipped", "ensemble")._asdict()
    shipped |= {"temperature": [case.shipped.temperature], "bound_hit": [case.shipped.bound_hit]}
    return [
        judge.entry(Name("ensemble", "raw", "ensemble"), mean, [RAW]),
        shipped | judge.scores([at_shipped]),
        judge.entry(Name("ensemble", "fitted", "ensemble"), mean, [fitted]) | {"networks": len(fresh)},
        judge.entry(Name("ensemble", "oracle", "ensemble"), mean, judge.oracle(mean)),
    ]


def by_map(case: Case, real: RealLogits) -> list[dict[str, Any]]:
    """Maps with more freedom than a temperature, of as many networks and images as that which is shipped.

    Isotonic regression changes the confidence of the top class alone, so there is no NLL.
    """
    z, labels = pooled(real.fresh[: case.tried.temperature.networks], real.labels)
    scaling = vector_scaling(z, labels)
    scaled = [log_softmax(scaling(of_network)) for of_network in case.logits]
    rising = isotonic(confidence_of(z), z.argmax(1) == labels)
    confidences = [rising(confidence_of(of_network)) for of_network in case.logits]
    return [
        Name("maps", "vector")._asdict() | case.judge.scores(scaled),
        Name("maps", "isotonic")._asdict() | case.judge.top_scores(confidences, case.logits),
    ]


# What needs no real image


def without_images(case: Case, trained: dict[str, np.ndarray], schedule: Schedule) -> list[dict[str, Any]]:
    """Exact temperatures of those who have the set alone; by agreement, of those who also have test images.

    Args:
        trained: what `write_trained_logits` has written.
        schedule: how networks are trained on the row's set.
    """
    bounds = case.tried.bounds
    entries = []
    if "left_out" in trained:
        fit = optimum(trained["left_out"], trained["left_out_labels"], bounds)
        entries.append(case.at(Name("without_images", "folds"), fit))
    if schedule.augment:
        fits = augmented_fits(case)
        entries.append(case.judge.entry(Name("without_images", "augmented"), case.logits, fits))
    if len(case.logits) > 1:
        fit = by_agreement(case.logits, bounds)
        entries.append(case.at(Name("without_images", "agreement"), fit))
    return entries


def augmented_fits(case: Case) -> list[Fit]:
    """The exact temperature of each network on the images that it was trained on, augmented several times."""
    device = case.networks.weights.device
    fits = []
    for repeat, theta in enumerate(case.networks.weights):
        data = case.distilled.of_repeat(repeat)
        images = data.images[:].to(device)
        logits = []
        for number in range(case.tried.reach.augmentations):
            draws = generator(case.row.seed, "reach", "augmented", repeat, number)
            augmented = augment(images, draw(draws, len(images)))
            logits.append(predict(case.networks.network, theta, augmented).cpu())
        labels = torch.cat([data.soft_or_hard] * len(logits))
        fits.append(optimum(torch.cat(logits).numpy(), labels.numpy(), case.tried.bounds))
    return fits


def main(*names: str) -> None:
    tried = Tried(
        parse(ReachSettings, param("reach"), "params.yaml: reach"),
        parse(TemperatureSettings, param("temperature"), "params.yaml: temperature"),
        param("calibrate.bounds"),
        param("evaluate.bins"),
    )
    for row in finished_rows("reach", names, lambda row: row.weights, kind="reach"):
        reach(tried, row)


if __name__ == "__main__":
    run_stage(recorded(main))
