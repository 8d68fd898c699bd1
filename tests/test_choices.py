"""The choices that the paper leaves open: losses, the order of mixing, the stage, its table and figure."""

import json
import re
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from project import PARAMS, copy_of, make_project, run, suite, write_arrays, write_yaml
from safetensors.numpy import load_file

from stages import choices
from stages.calibrators.early_stopped import lbfgs_path
from stages.calibrators.fitting import Fitting
from stages.losses import cross_entropy, focal, focal_detached
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax
from stages.reporting.calibration_figures import choices_figures
from stages.reporting.choices import choices_figure, choices_table, met_by, printed_ece
from stages.reporting.gathered import gather
from stages.runtime.randomness import generator
from stages.settings.rows import Row
from stages.settings.tables import TableKeys
from stages.settings.train import TrainSettings
from stages.training.loop import Examples, Schedule, batches
from stages.training.objective import Loss

NAME = "shapes-mtt-ipc2"
SETTINGS = TrainSettings(**PARAMS["train"])


# Losses, and the order of mixing


def some_logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of five images and four classes, in float64."""
    logits = torch.randn(5, 4, generator=generator("logits"), dtype=torch.float64)
    targets = F.one_hot(torch.tensor([0, 1, 2, 3, 1]), 4).double()
    return logits, targets


def focal_of_weights(logits: torch.Tensor, targets: torch.Tensor, weights_from: torch.Tensor) -> torch.Tensor:
    """Focal loss at gamma 2, written out, with the weights of other logits."""
    p = (weights_from.softmax(1) * targets).sum(1)
    log_p = (logits.softmax(1) * targets).sum(1).log()
    return (-((1 - p) ** 2) * log_p).mean()


@pytest.mark.parametrize("loss, held", [(focal_detached, True), (focal, False)])
def test_the_detached_form_holds_p_constant_and_the_other_does_not(loss, held):
    """The gradient against finite differences of the formula, with the weights held or moving."""
    settings = SETTINGS.model_copy(update={"focal_gamma": 2.0})
    logits, targets = some_logits()
    variable = logits.clone().requires_grad_()
    value = loss.loss(variable, targets, settings)
    (gradient,) = torch.autograd.grad(value, variable)
    assert torch.allclose(value, focal_of_weights(logits, targets, logits))
    step = 1e-6
    for i in np.ndindex(5, 4):
        moved = torch.zeros_like(logits)
        moved[i] = step
        above, below = logits + moved, logits - moved
        high = focal_of_weights(above, targets, logits if held else above)
        low = focal_of_weights(below, targets, logits if held else below)
        assert float(gradient[i]) == pytest.approx(float(high - low) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("loss", [focal, focal_detached])
def test_without_gamma_both_forms_are_cross_entropy(loss):
    settings = SETTINGS.model_copy(update={"focal_gamma": 0.0})
    logits, targets = some_logits()
    variable = logits.clone().requires_grad_()
    value = loss.loss(variable, targets, settings)
    expected = cross_entropy.loss(variable, targets, settings)
    assert torch.allclose(value, expected)
    (gradient,) = torch.autograd.grad(value, variable)
    (expected_gradient,) = torch.autograd.grad(expected, variable)
    assert torch.allclose(gradient, expected_gradient)


class Recording:
    """A loss whose `mix` notes the images that it is given, and gives zeros."""

    def __init__(self):
        self.given = torch.empty(0)

    def mix(self, images, targets, drawn, settings):
        self.given = images
        return torch.zeros_like(images), targets


@pytest.mark.parametrize("first", [True, False])
def test_images_are_mixed_before_or_after_they_are_augmented(first, monkeypatch):
    recording = Recording()
    augmented = []

    def note(images, draws):
        augmented.append(images)
        return images + 1

    monkeypatch.setattr("stages.training.loop.augment_each", note)
    images = torch.full((4, 1, 2, 2), 5.0)
    data = Examples(images, torch.eye(4))
    schedule = Schedule(epochs=1, lr=0.1, batch=4, mix_first=first)
    ((result, _),) = batches(data, Loss(recording), schedule, [generator(0)])
    given, shown = (5, 0) if first else (6, 5)
    assert bool((recording.given == given).all()) and bool((augmented[0] == shown).all())
    assert bool((result == (1 if first else 0)).all())


# The stage


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A project with the row's networks, and what `choices` makes of them."""
    folder = make_project(tmp_path_factory.mktemp("built"))
    with chdir(folder):
        run("prepare", "shapes")
        run("buffer", "shapes")
        for stage in ("distill", "train", "masked", "calibrate", "evaluate", "choices"):
            run(stage, NAME)
    return folder


@pytest.fixture
def project(built, tmp_path, monkeypatch) -> Path:
    return copy_of(built, tmp_path, monkeypatch)


def entries() -> list[dict]:
    return json.loads(Row(NAME).choices.read_text())["entries"]


def default_of(family: str) -> dict:
    (entry,) = [entry for entry in entries() if entry["family"] == family and entry["default"]]
    return entry


def test_every_family_has_its_choices_and_the_default_among_them(project):
    counts: dict[str, int] = {}
    for entry in entries():
        counts[entry["family"]] = counts.get(entry["family"], 0) + 1
        assert all(len(entry[name]) == 2 for name in ("accuracy", "ece", "confidence_gap"))
    own_and_teacher = 3
    assert counts == {
        "step_size": own_and_teacher,
        "focal": 4,
        "mixup": 4,
        "label_smoothing": 2,
        "mts": 4,
    }


def test_the_defaults_are_the_rows_own_results(project):
    methods = json.loads(Row(NAME).results.read_text())["methods"]
    compared = {"step_size": "raw"}
    for family in ("step_size", "focal", "mixup", "label_smoothing", "mts"):
        of_row = methods[compared.get(family, family)]
        for number in ("accuracy", "ece", "confidence_gap"):
            assert default_of(family)[number] == pytest.approx(of_row[number]), family
    assert default_of("mts")["temperature"] == methods["mts"]["temperature"]


def test_the_choices_make_a_difference(project):
    """No two choices have the same networks."""
    trained = [entry for entry in entries() if entry["family"] != "mts"]
    made_from = [entry["made_from"] for entry in trained]
    assert len(set(made_from)) == len(made_from)
    of_losses = [entry["ece"] for entry in trained if entry["family"] != "step_size"]
    assert len({tuple(ece) for ece in of_losses}) == len(of_losses) == 10


def test_mts_is_fitted_from_its_own_start_with_its_own_step_size_and_iterations(project):
    row = Row(NAME)
    fitting, test = load_file(row.fitting_logits), load_file(row.logits)
    key = Fitting("mts", 0.3, PARAMS["calibrate"]["share"]).key
    images = list(zip(fitting[key], fitting[f"{key}.labels"]))
    found = set()
    for entry in entries():
        if entry["family"] != "mts":
            continue
        words = re.fullmatch(r"start (.+), step size (.+), iterations (.+)", entry["choice"])
        start, lr, iterations = float(words[1]), float(words[2]), int(words[3])
        found.add((start, lr, iterations))
        last = [lbfgs_path(z, labels, start, lr, iterations)[-1] for z, labels in images]
        assert entry["temperature"] == pytest.approx(last, rel=1e-6), entry["choice"]
        raw = zip(test["cross_entropy"], last)
        expected = [ece(np.exp(log_softmax(z / t)), test["labels"]) for z, t in raw]
        assert entry["ece"] == pytest.approx(expected, abs=1e-6)
    assert found == {(start, 0.02, count) for start in (1.0, 1.5) for count in (1, 50)}


def test_another_alpha_trains_its_own_networks_alone(project, monkeypatch):
    groups: list[str] = []
    train_groups = choices.train_groups

    def noted(of_schedule, setup, folder):
        groups.extend(of_schedule)
        return train_groups(of_schedule, setup, folder)

    monkeypatch.setattr(choices, "train_groups", noted)
    before = entries()
    stamp = Row(NAME).choices.stat().st_mtime_ns
    run("choices", NAME)
    assert groups == [] and entries() == before
    assert Row(NAME).choices.stat().st_mtime_ns == stamp, "a file that stays as it is was written anew"
    more = PARAMS["choices"] | {"mixup_alpha": [0.4, 0.7, 1.0]}
    write_yaml(Path("params.yaml"), PARAMS | {"choices": more})
    run("choices", NAME)
    assert [name.split("-")[0] for name in groups] == ["mixup", "mixup"]
    kept = [entry for entry in entries() if "alpha 0.7" not in entry["choice"]]
    assert kept == before and len(entries()) == len(before) + 2


def test_changed_networks_are_not_reused(project):
    weights = load_file(Row(NAME).logits)
    weights["cross_entropy"][0] += np.arange(3)
    before = {entry["made_from"] for entry in entries() if entry["family"] == "mts"}
    write_arrays(Row(NAME).logits, weights)
    run("choices", NAME)
    assert not before & {entry["made_from"] for entry in entries()}


def test_a_row_without_augmentation_has_no_choices_of_it():
    tried = choices.Tried(
        choices.ChoicesSettings(**PARAMS["choices"]),
        SETTINGS,
        choices.CalibrateSettings(**PARAMS["calibrate"]),
        10,
    )
    listed = choices.training_choices(Schedule(epochs=1, lr=0.1, batch=4, augment=False), None, tried)
    families = [choice.family for choice in listed]
    assert families.count("mixup") == 2


# The table and the figure


def made_up(**keys) -> dict:
    entry = {"family": "mixup", "choice": "alpha 1", "default": True}
    return entry | {"accuracy": [0.5, 0.7], "ece": [0.1, 0.3], "confidence_gap": [-0.1, 0.1]} | keys


def keys_of(**changes) -> TableKeys:
    values = suite()["runs"][NAME] | {
        "suite": "cifar10",
        "ipc": 1,
        "budget": "reduced",
        "budget_note": "less",
    }
    names = TableKeys.model_fields.keys()
    return TableKeys(**{key: value for key, value in (values | changes).items() if key in names})


def test_the_table_has_the_papers_number_beside_ours():
    fit = made_up(
        family="mts", choice="start 2", default=False, temperature=[1.0, 3.0], bound_hit=[False, True]
    )
    tried = {"ours": {"entries": [made_up(), fit]}, "real": {"entries": [made_up()]}, "todo": {}, "quick": {}}
    rows = {"ours": keys_of(), "real": keys_of(backbone="random"), "todo": keys_of()}
    table = choices_table(rows, tried)
    first, second, third, fourth = table.text.to_dict("records")
    assert first["Choice of"] == "Mixup" and first["Default"] == "yes" and first["T"] == ""
    assert first["ECE"] == "20.00 ± 14.14" and first["Confidence - accuracy"] == "0.00 ± 14.14"
    assert first["The paper's ECE"] == "8.40 ± 1.10"
    assert second["T"] == "2.00†" and second["Default"] == "" and second["The paper's ECE"] == "1.81 ± 0.70"
    assert third["Row"] == "real" and third["The paper's ECE"] == ""
    assert fourth["Row"] == "todo" and fourth["ECE"] == "missing"
    assert table.numbers["paper_percent"].tolist()[:2] == [8.4, 1.81]
    assert table.numbers["ece_mean"].tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_the_papers_number_is_of_the_same_set():
    raw = [10.15, 1.2]
    assert printed_ece(keys_of())["raw"] == raw
    assert printed_ece(keys_of(backbone="file", made_by="mtt"))["raw"] == raw
    assert printed_ece(keys_of(ipc=50))["raw"] == [4.93, 0.2]
    for other in ({"ipc": 10}, {"mdt": 0.1}, {"budget": None}, {"suite": "digits"}):
        assert printed_ece(keys_of(**other)) == {}


def test_the_figure_has_a_panel_for_each_family():
    entries = [made_up(), made_up(default=False), made_up(family="focal")]
    drawn = choices_figure(entries, {"mixup": [8.4, 1.1]})
    assert drawn.data["paper_percent"].tolist()[:2] == [8.4, 8.4] and np.isnan(drawn.data["paper_percent"][2])
    assert [axis.get_title() for axis in drawn.figure.axes] == ["Mixup", "Focal loss"]


def test_figures_are_of_rows_with_results(project):
    assert list(choices_figures(gather())) == [f"figure_choices-{NAME}"]
    Row(NAME).choices.unlink()
    assert choices_figures(gather()) == {}


def test_a_choice_within_the_papers_deviation_is_named_and_no_other():
    row = keys_of()
    near = made_up(family="focal") | {"choice": "near", "ece": [0.02, 0.03]}
    far = made_up(family="focal") | {"choice": "far", "ece": [0.05, 0.06]}
    table = choices_table({"a": row}, {"a": {"entries": [near, far, made_up() | {"ece": [0.3, 0.4]}]}})
    sentence = met_by(table.numbers)["a"]
    assert "Focal loss (2.05 ± 0.90): near." in sentence and "far" not in sentence
    assert "Mixup (8.40 ± 1.10): none that was tried." in sentence
