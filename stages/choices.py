"""choices: what the choices that the paper leaves open do -> accuracy and calibration, one file a row.

    python -m stages.choices [<row> ...]

Every choice is tried by itself; all else is as params.yaml and the row have it. Nothing is chosen here: the
defaults are those of the methods' sources, whatever comes out on the test images.
"""

from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.fitting import NETWORKS, Fitting
from stages.calibrators.optimum import as_lists
from stages.images.distilled import load_set
from stages.losses import cross_entropy, focal, focal_detached, label_smoothing, mixup
from stages.metrics.scores import scores_at
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, write_result
from stages.runtime.reuse import code_version, fingerprint, former_result, input_hash
from stages.settings.calibrate import CalibrateKeys, CalibrateSettings
from stages.settings.choices import ChoicesSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.settings.train import TrainKeys, TrainSettings
from stages.tools.records import recorded
from stages.training.flat import flat_convnet
from stages.training.groups import Group, description, own_settings, schedule_of, train_groups, train_settings
from stages.training.loop import Schedule
from stages.training.objective import Loss
from stages.training.repeats import input_files, setup_of

__all__ = ["Choice", "Training", "Tried", "choices", "training_choices"]

LOSSES: dict[str, ModuleType] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "focal_detached": focal_detached,
    "mixup": mixup,
    "label_smoothing": label_smoothing,
}
# The key of `train` in params.yaml that a loss reads.
AMOUNTS = {
    "focal": "focal_gamma",
    "focal_detached": "focal_gamma",
    "mixup": "mixup_alpha",
    "label_smoothing": "label_smoothing",
}
# Of an entry, as far as it has them.
NUMBERS = ("accuracy", "ece", "confidence_gap", "temperature", "bound_hit")


class Tried(NamedTuple):
    """What is tried, and the settings that it is tried in place of."""

    choices: ChoicesSettings
    train: TrainSettings
    calibrate: CalibrateSettings
    bins: int  # of ECE


class Training(NamedTuple):
    """How networks are trained on the set of the row."""

    loss: str  # a key of LOSSES
    amount: float | None  # the value of the key that the loss reads
    schedule: Schedule


class Choice(NamedTuple):
    """A way to train networks that the paper leaves open."""

    family: str  # what is chosen
    words: str
    default: bool  # whether it is what params.yaml and the row have
    training: Training


def choices(tried: Tried, row: Row) -> None:
    """Write `{"row", "entries": [...]}` to `row.choices`, one entry for each choice.

    An entry has the `family` and the words of the `choice`, whether it is the `default`, and lists
    `accuracy`, `ece` and `confidence_gap` with one number a repeat; those of MTS also have `temperature` and
    `bound_hit`. Entries with the same inputs, settings and code as a former one have its numbers. Choices of
    losses that need a class for each image are absent where the labels of the set are soft.

    Raises:
        UserError: `lr: learned` or `teacher`, but the set came without such a step size; a network has
            weights that are not finite.
    """
    former_results = former_result(row.choices)
    former = {entry["made_from"]: entry for entry in former_results.get("entries", [])}
    about = description(row, row.keys(TrainKeys), tried.train)
    with scratch(f"choices-{row.name}", about, input_files(row)) as folder:
        entries = training_entries(tried, row, former, folder)
        entries += mts_entries(tried, row, former)
        results = {"row": row.name, "entries": entries}
        if results != former_results:  # an untouched file keeps the record of the run that made it
            write_result(row.choices, results)


# Choices that need networks of their own


def training_entries(tried: Tried, row: Row, former: dict[str, dict], folder: Path) -> list[dict[str, Any]]:
    """The entries of all choices of a training. Networks that the row has already are not trained again.

    Args:
        former: entries by `made_from`.
        folder: of the networks that are trained.
    """
    keys = row.keys(TrainKeys)
    distilled = load_set(row.distilled, row.prepared)
    schedule = schedule_of(keys, tried.train, distilled, row.name)
    teacher = None if keys.lr == "teacher" else distilled.teacher_step_size
    listed = training_choices(schedule, teacher, tried)
    if distilled.data.is_soft:
        listed = [choice for choice in listed if not Loss(LOSSES[choice.training.loss]).needs_classes]

    arrays = read_arrays(row.logits)
    labels = arrays.pop("labels")
    own = own_networks(arrays, schedule, tried.train)
    repeats = own_settings(keys, tried.train).repeats
    common = fingerprint(
        [input_hash(path) for path in sorted(input_files(row))],
        [row.network.model_dump(), row.seed, repeats, tried.bins, code_version("choices")],
    )
    trainings = dict.fromkeys(choice.training for choice in listed)
    made_from = {}
    for training in trainings:
        own_logits = [own[training]] if training in own else []
        made_from[training] = fingerprint(common, training, *own_logits)
    missing = {}
    for training, key in made_from.items():
        if training not in own and key not in former:
            missing[training] = f"{training.loss}-{key}"
    logits = own | trained(tried, row, missing, folder)
    entries = []
    for choice in listed:
        key = made_from[choice.training]
        numbers = former.get(key)
        if numbers is None:
            of_choice = logits[choice.training]
            numbers = scores_at(of_choice, [1.0] * len(of_choice), labels, tried.bins)
        words = (choice.family, choice.words, choice.default)
        entries.append(entry_of(words, numbers, key))
    return entries


def training_choices(schedule: Schedule, teacher: float | None, tried: Tried) -> list[Choice]:
    """Every choice of a training: of the step size and of the losses.

    Args:
        schedule: of the row.
        teacher: the step size that the learned one started from; None: there is none beside the row's own.
    """
    return [
        *step_sizes(schedule, teacher, tried),
        *focal_losses(schedule, tried),
        *mixups(schedule, tried),
        *smoothings(schedule, tried),
    ]


def step_sizes(schedule: Schedule, teacher: float | None, tried: Tried) -> list[Choice]:
    listed = []
    for factor in sorted({1.0, *tried.choices.step_size}):
        lr = factor * schedule.lr
        training = Training("cross_entropy", None, schedule._replace(lr=lr))
        words = f"{lr:.3g}, the row's own" if factor == 1 else f"{lr:.3g}, {factor:g} times the row's"
        listed.append(Choice("step_size", words, factor == 1, training))
    if teacher is not None:
        training = Training("cross_entropy", None, schedule._replace(lr=teacher))
        listed.append(Choice("step_size", f"{teacher:.3g}, the teacher's", False, training))
    return listed


def focal_losses(schedule: Schedule, tried: Tried) -> list[Choice]:
    settings = tried.train
    gammas = sorted({settings.focal_gamma, *tried.choices.focal_gamma})
    forms = {"focal": "full gradient", "focal_detached": "p detached"}
    listed = []
    for (loss, words), gamma in product(forms.items(), gammas):
        default = loss in settings.losses and gamma == settings.focal_gamma
        training = Training(loss, gamma, schedule)
        listed.append(Choice("focal", f"{words}, gamma {gamma:g}", default, training))
    return listed


def mixups(schedule: Schedule, tried: Tried) -> list[Choice]:
    """Mixup in both orders; the order makes no difference without augmentation."""
    settings = tried.train
    orders = {False: "augmented, then mixed", True: "mixed, then augmented"}
    if not schedule.augment:
        orders = {schedule.mix_first: "not augmented"}
    alphas = sorted({settings.mixup_alpha, *tried.choices.mixup_alpha})
    listed = []
    for (first, words), alpha in product(orders.items(), alphas):
        default = first == schedule.mix_first and alpha == settings.mixup_alpha
        training = Training("mixup", alpha, schedule._replace(mix_first=first))
        listed.append(Choice("mixup", f"{words}, alpha {alpha:g}", default, training))
    return listed


def smoothings(schedule: Schedule, tried: Tried) -> list[Choice]:
    own = tried.train.label_smoothing
    listed = []
    for amount in sorted({own, *tried.choices.label_smoothing}):
        training = Training("label_smoothing", amount, schedule)
        listed.append(Choice("label_smoothing", f"amount {amount:g}", amount == own, training))
    return listed


def own_networks(
    logits: dict[str, np.ndarray], schedule: Schedule, settings: TrainSettings
) -> dict[Training, np.ndarray]:
    """The test logits of the networks that the row has, by how these were trained.

    Args:
        logits: `(repeats, N, K)` of each group of networks.
    """
    values = settings.model_dump()
    own = {}
    for loss in LOSSES:
        if loss in logits:
            amount = values[AMOUNTS[loss]] if loss in AMOUNTS else None
            own[Training(loss, amount, schedule)] = logits[loss]
    return own


def trained(tried: Tried, row: Row, missing: dict[Training, str], folder: Path) -> dict[Training, np.ndarray]:
    """Train networks, all of one schedule together, and return their `(repeats, N, K)` test logits.

    Args:
        missing: the names of the groups of networks.
        folder: where finished networks are kept until all are.
    """
    if not missing:
        return {}
    setup = setup_of(row, row.keys(TrainKeys), tried.train)
    network = flat_convnet(row.network, setup.data, setup.device)
    groups: dict[Schedule, dict[str, Group]] = {}
    for training, name in missing.items():
        settings = tried.train
        if training.loss in AMOUNTS:
            settings = settings.model_copy(update={AMOUNTS[training.loss]: training.amount})
        group = Group(network, Loss(LOSSES[training.loss], settings))
        groups.setdefault(training.schedule, {})[name] = group
    logits: dict[str, torch.Tensor] = {}
    for schedule, of_schedule in groups.items():
        results = train_groups(of_schedule, setup._replace(schedule=schedule), folder)
        logits |= results.logits
    return {training: logits[name].numpy() for training, name in missing.items()}


# Choices of MTS, which need only the row's own networks


def mts_entries(tried: Tried, row: Row, former: dict[str, dict]) -> list[dict[str, Any]]:
    """The entries of MTS at every start, step size and number of LBFGS iterations."""
    own = tried.calibrate
    test_logits = read_arrays(row.logits)
    raw = test_logits[NETWORKS["mts"]]
    fitting = Fitting("mts", row.keys(CalibrateKeys).mask_ratio, own.share)
    fitting_logits = read_arrays(row.fitting_logits)
    z = fitting_logits[fitting.key]
    labels = fitting_logits[f"{fitting.key}.labels"]
    common = fingerprint(raw, test_logits["labels"], z, labels, tried.bins, code_version("choices"))
    starts = sorted({own.start, *tried.choices.starts})
    sizes = sorted({own.lr, *tried.choices.lbfgs_lr})
    counts = sorted({own.max_iter, *tried.choices.lbfgs_steps})
    entries = []
    for start, lr, max_iter in product(starts, sizes, counts):
        settings = own.model_copy(update={"start": start, "lr": lr, "max_iter": max_iter})
        key = fingerprint(common, settings.model_dump())
        numbers = former.get(key)
        if numbers is None:
            fits = [early_stopped(*of_repeat, settings) for of_repeat in zip(z, labels)]
            temperatures = [fit.temperature for fit in fits]
            numbers = scores_at(raw, temperatures, test_logits["labels"], tried.bins) | as_lists(fits)
        words = f"start {start:g}, step size {lr:g}, iterations {max_iter}"
        entries.append(entry_of(("mts", words, settings == own), numbers, key))
    return entries


def entry_of(choice: tuple[str, str, bool], numbers: dict[str, Any], made_from: str) -> dict[str, Any]:
    """One entry of the result.

    Args:
        choice: its family, its words, and whether it is the default.
        numbers: measured now, or a former entry of the same `made_from`.
    """
    family, words, default = choice
    entry = {"family": family, "choice": words, "default": default}
    entry |= {name: numbers[name] for name in NUMBERS if name in numbers}
    return entry | {"made_from": made_from}


def main(*names: str) -> None:
    tried = Tried(
        parse(ChoicesSettings, param("choices"), "params.yaml: choices"),
        train_settings(),
        parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate"),
        param("evaluate.bins"),
    )
    for row in finished_rows("choices", names, lambda row: row.fitting_logits, kind="choices"):
        choices(tried, row)


if __name__ == "__main__":
    run_stage(recorded(main))
