"""How far a shipped temperature goes: fits with a known answer, folds, shifts, and the stage on pictures."""

import json
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from project import PARAMS, copy_of, make_project, run, run_to_reach, suite, write_yaml
from safetensors.torch import load_file
from scipy.special import logit

from stages import check
from stages.calibrators.agreement import by_agreement, mean_agreement
from stages.calibrators.judge import Judge, log_mean, pooled
from stages.calibrators.maps import isotonic, vector_scaling
from stages.calibrators.objectives import OBJECTIVES, at_confidence
from stages.calibrators.optimum import Fit, optimum
from stages.images.distilled import DistilledSet, load_set
from stages.images.prepared import LabelledImages, load_transform
from stages.images.real import Real
from stages.images.shifts import Shift, shifted, shifts_of
from stages.metrics.scores import brier, log_softmax, nll, scores
from stages.reach import RealLogits, Tried, by_networks, load_case, setup_on_real_images
from stages.reporting.calibration_figures import reach_figures
from stages.reporting.cells import Results
from stages.reporting.gathered import Elsewhere, gather
from stages.reporting.reach_figure import reach_figure
from stages.reporting.shipped_table import shipped_table
from stages.reporting.without_images_table import without_images_table
from stages.runtime.errors import UserError
from stages.runtime.files import read_result, write_result, write_tensors
from stages.runtime.randomness import generator
from stages.settings.reach import ReachSettings, ShiftSettings
from stages.settings.rows import Row
from stages.settings.section import parse
from stages.settings.suite import Suite
from stages.settings.tables import TableKeys
from stages.settings.temperature import TemperatureSettings
from stages.training.folds import fold_setups, folds_of, split_in_folds
from stages.training.groups import GroupResults, Setup
from stages.training.loop import Schedule

BOUNDS = [0.05, 20.0]
NAME = "shapes-mtt-ipc2"
REAL = "shapes-random-ipc1"  # real images, one a class
PARAMETERS: dict[str, Any] = PARAMS


def planted(temperature: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of five classes, and labels drawn from them at a temperature."""
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=(count, 5))
    p = np.exp(log_softmax(z / temperature))
    labels = (p.cumsum(1) > rng.random((count, 1))).argmax(1)
    return z, labels


# ---- one temperature ----


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_planted_temperature_comes_back_by_every_objective(name, temperature):
    fit = OBJECTIVES[name](*planted(temperature, 40_000, 0), BOUNDS)
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert not fit.bound_hit


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_classes_of_one_confidence_are_solved_in_closed_form(name):
    """All logits are (2, 0), and 80 % of the labels are 0: sigmoid(2 / T) has to be 0.8."""
    z = np.tile([2.0, 0.0], (50, 1))
    labels = np.array([0] * 40 + [1] * 10)
    fit = OBJECTIVES[name](z, labels, BOUNDS)
    assert fit.temperature == pytest.approx(2 / logit(0.8), rel=1e-5)


def losses(z: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """What each objective minimises; for the confidence its distance to the accuracy."""
    log_p = log_softmax(z / temperature)
    p = np.exp(log_p)
    is_right = z.argmax(1) == labels
    return {
        "nll": nll(log_p, labels),
        "brier": brier(p, labels),
        "top_label_brier": float(((p.max(1) - is_right) ** 2).mean()),
        "confidence": abs(float((p.max(1) - is_right).mean())),
    }


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_fine_grid_is_better(name, seed):
    """The labels of a third of the images are drawn at another temperature: there is no true one."""
    z, labels = planted(0.3, 300, seed)
    _, others = planted(8, 300, seed + 10)
    labels[::3] = others[::3]
    fit = OBJECTIVES[name](z, labels, BOUNDS)
    grid = np.geomspace(*BOUNDS, 3000)
    best = min(losses(z, labels, float(temperature))[name] for temperature in grid)
    assert losses(z, labels, fit.temperature)[name] <= best + 1e-9


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_fit_that_wants_to_go_further_ends_on_a_bound(name):
    z, _ = planted(1, 200, 0)
    assert OBJECTIVES[name](z, z.argmax(1), BOUNDS) == Fit(BOUNDS[0], True), "all are right"
    assert OBJECTIVES[name](z, z.argmin(1), BOUNDS) == Fit(BOUNDS[1], True), "all are wrong"


def test_the_mean_confidence_is_brought_to_a_share():
    z, _ = planted(1, 500, 0)
    fit = at_confidence(z, 0.6, BOUNDS)
    assert np.exp(log_softmax(z / fit.temperature)).max(1).mean() == pytest.approx(0.6, abs=1e-6)


def test_agreement_is_a_mean_over_pairs():
    """Three networks on four images: they agree on 4, 2 and 2 of them."""
    top = np.array([[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 1, 1]])
    logits = np.eye(3)[top]
    assert mean_agreement(logits) == pytest.approx((1 + 0.5 + 0.5) / 3)
    fit = by_agreement(logits, BOUNDS)
    confidence = np.exp(log_softmax(logits.reshape(-1, 3) / fit.temperature)).max(1).mean()
    assert confidence == pytest.approx(2 / 3, abs=1e-6)


# ---- richer maps ----


def test_planted_scales_and_shifts_come_back():
    """One shift is left open by the softmax, so the shifts are compared without their mean."""
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(60_000, 3))
    scale, shift = np.array([0.5, 1.0, 1.5]), np.array([1.0, 0.0, -1.0])
    p = np.exp(log_softmax(z * scale + shift))
    labels = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    fitted = vector_scaling(z, labels)
    assert fitted.scale == pytest.approx(scale, abs=0.03)
    assert fitted.shift - fitted.shift.mean() == pytest.approx(shift, abs=0.03)


def test_vector_scaling_is_at_its_minimum():
    """No step to either side is better, and no temperature is."""
    z, labels = planted(2, 400, 0)
    fitted = vector_scaling(z, labels)
    least = nll(log_softmax(fitted(z)), labels)
    best = optimum(z, labels, BOUNDS).temperature
    assert least < nll(log_softmax(z / best), labels)
    for k in range(5):
        for step in (-1e-3, 1e-3):
            moved = np.eye(5)[k] * step
            assert nll(log_softmax(fitted._replace(scale=fitted.scale + moved)(z)), labels) > least
            assert nll(log_softmax(fitted._replace(shift=fitted.shift + moved)(z)), labels) > least


def test_isotonic_regression_by_hand():
    """The second and the third are not in order, so both get their mean. Beyond both ends it is level."""
    rising = isotonic(np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, True, False, True]))
    assert rising(np.array([0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9])).tolist() == [0, 0, 0.5, 0.5, 0.5, 1, 1]


# ---- what is judged ----


def test_the_scores_of_the_top_class_alone_are_those_of_all_classes():
    z, labels = planted(1, 200, 0)
    judge = Judge(labels, BOUNDS, 10)
    p = np.exp(log_softmax(z))
    top = judge.top_scores([p.max(1)], z[None])
    whole = scores(log_softmax(z), labels, 10)
    assert top == {name: [pytest.approx(whole[name])] for name in ("accuracy", "ece", "confidence_gap")}


def test_the_mean_of_probabilities_by_hand():
    logits = np.log([[[0.8, 0.2]], [[0.4, 0.6]]])
    assert np.exp(log_mean(logits)) == pytest.approx(np.array([[0.6, 0.4]]))


def test_networks_are_pooled_with_their_labels():
    logits = np.arange(12.0).reshape(2, 3, 2)
    z, labels = pooled(logits, np.array([0, 1, 0]))
    assert z.tolist() == [*logits[0].tolist(), *logits[1].tolist()]
    assert labels.tolist() == [0, 1, 0, 0, 1, 0]


def test_a_prefix_has_equally_many_images_of_each_class():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 4)
    real = RealLogits(labels, np.zeros((1, 12, 3)), np.zeros((1, 12, 3)))
    assert real.prefix(6).tolist() == [0, 1, 5, 6, 8, 9]
    assert real.prefix(1).tolist() == [0, 5, 8], "at least one of each class"
    assert len(real.prefix(100)) == 12, "all where there are no more"


# ---- folds ----


def test_folds_are_disjoint_and_cover_the_set_class_by_class():
    labels = torch.tensor([0, 1, 2] * 7)
    folds = split_in_folds(labels, 3, 5, generator(0))
    assert folds is not None
    assert torch.cat(folds).sort().values.tolist() == list(range(21))
    for fold in folds:
        counts = labels[fold].bincount(minlength=3)
        assert set(counts.tolist()) <= {1, 2}, "seven of a class in five folds"


def test_a_class_with_fewer_images_than_folds_has_none():
    assert split_in_folds(torch.tensor([0, 0, 0, 1, 1]), 2, 3, generator(0)) is None


def labelled_set(labels: list[int], number: list[int] | None = None) -> DistilledSet:
    data = LabelledImages(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels), 2)
    return DistilledSet(data, None, None, None if number is None else torch.tensor(number))


def test_each_network_is_trained_without_its_fold():
    distilled = labelled_set([0, 1] * 4)
    folds = folds_of(distilled, 2, generator(0))
    assert folds is not None
    for fold in folds:
        assert sorted(fold.kept.tolist() + fold.left_out.tolist()) == list(range(8))
    assert sorted(folds[0].left_out.tolist() + folds[1].left_out.tolist()) == list(range(8))


def test_the_folds_of_a_row_with_several_sets_stay_in_their_set():
    distilled = labelled_set([0, 1] * 6, [0] * 6 + [1] * 6)
    folds = folds_of(distilled, 3, generator(0))
    assert folds is not None
    for number, fold in enumerate(folds):
        own_set = range(6) if number % 2 == 0 else range(6, 12)
        assert sorted(fold.kept.tolist() + fold.left_out.tolist()) == list(own_set)


def test_networks_with_equally_many_images_are_trained_side_by_side():
    distilled = labelled_set([0] * 3 + [1] * 2)
    folds = folds_of(distilled, 2, generator(0))
    assert folds is not None
    common = Setup(
        "row", "row", distilled.data, None, distilled.data, Schedule(1, 0.1, 2), 5, 0, torch.device("cpu")
    )
    setups = fold_setups(common, folds)
    sizes = []
    for setup, of_setup in setups:
        assert setup.rows == [fold.kept for fold in of_setup] and setup.repeats == len(of_setup)
        sizes.append({len(rows) for rows in setup.rows})
    assert sorted(sizes, key=min) == [{2}, {3}]
    assert len({setup.purpose for setup, _ in setups}) == 2, "or two networks would have the same draws"


# ---- shifts ----

PIXELS = torch.rand(3, 3, 8, 8, generator=generator(1))


def after(kind: str, strength: float, pixels: torch.Tensor = PIXELS, seed: int = 0) -> torch.Tensor:
    return shifted(pixels, Shift(kind, strength), generator(seed))


def test_shifts_are_every_kind_at_every_strength():
    settings = ShiftSettings(rotation=[15, 30], noise=[0.1], blur=[0.1], contrast=[])
    assert [shift.name for shift in shifts_of(settings)] == [
        "rotation 15",
        "rotation 30",
        "noise 0.1",
        "blur 0.1",
    ]


def test_shifted_images_keep_their_shape_and_range():
    for kind, strength in (("rotation", 30), ("noise", 0.5), ("blur", 0.3), ("contrast", 0.5)):
        images = after(kind, strength)
        assert images.shape == PIXELS.shape
        assert images.min() >= 0 and images.max() <= 1
        assert not torch.allclose(images, PIXELS)


def test_a_quarter_turn_is_a_quarter_turn():
    assert torch.allclose(after("rotation", 90), PIXELS.rot90(1, (2, 3)), atol=1e-5)


def test_noise_has_its_deviation_and_its_seed():
    gray = torch.full((20, 1, 16, 16), 0.5)
    noise = after("noise", 0.05, gray) - gray
    assert noise.std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.equal(after("noise", 0.05, gray), after("noise", 0.05, gray))
    assert not torch.equal(after("noise", 0.05, gray), after("noise", 0.05, gray, seed=1))


def test_blur_spreads_a_point_by_a_share_of_the_side():
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    columns = after("blur", 0.1, point)[0, 0].sum(0)
    deviation = (columns * (torch.arange(41) - 20) ** 2).sum().sqrt()
    assert deviation.item() == pytest.approx(4.1, rel=0.05)


def test_contrast_is_the_distance_to_the_mean_of_the_image():
    gray = PIXELS[:, :1]
    mean = gray.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(after("contrast", 0.5, gray), 0.5 * gray + 0.5 * mean, atol=1e-6)


# ---- the stage ----


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The project up to `reach`."""
    folder = make_project(tmp_path_factory.mktemp("built"))
    with chdir(folder):
        run_to_reach([NAME, f"{NAME}-mdt", REAL])
    return folder


@pytest.fixture
def copied(built, tmp_path, monkeypatch) -> Path:
    """A copy of the project to change, as the working directory."""
    return copy_of(built, tmp_path, monkeypatch)


def entries(name: str) -> dict[tuple[str, str, str], dict]:
    found = json.loads(Row(name).reach.read_text())["entries"]
    by_name = {(entry["part"], entry["on"], entry["choice"]): entry for entry in found}
    assert len(by_name) == len(found), "every entry has a name of its own"
    return by_name


def test_every_choice_has_its_scores(copied):
    found = entries(NAME)
    expected = {("networks", "clean", str(count)) for count in (1, 2, 3)}
    expected |= {("images", "clean", str(count)) for count in (6, 30)}
    shifts = ("rotation 30", "noise 0.1", "blur 0.1", "contrast 0.5")
    beside = {"losses": ("mixup", "label_smoothing", "focal"), "shifts": shifts}
    beside |= {"reference": ("clean",), "ensemble": ("ensemble",)}
    for part, subjects in beside.items():
        for on in subjects:
            expected |= {(part, on, choice) for choice in ("raw", "shipped", "oracle")}
    expected |= {(part, "clean", name) for part in ("objectives", "own") for name in OBJECTIVES}
    expected |= {("ensemble", "ensemble", "fitted"), ("carried", "clean", f"{NAME}-mdt")}
    expected |= {("maps", "clean", choice) for choice in ("vector", "isotonic")}
    expected |= {("without_images", "clean", choice) for choice in ("folds", "augmented", "agreement")}
    assert found.keys() == expected
    for (part, on, choice), entry in found.items():
        repeats = 1 if on == "ensemble" else 2
        for score in ("accuracy", "ece", "confidence_gap"):
            assert len(entry[score]) == repeats, (part, on, choice)
        assert ("nll" in entry) == (choice != "isotonic")
        assert ("temperature" in entry) == (part != "maps")


def test_each_number_of_networks_has_its_own_temperature():
    z, labels = planted(1.0, 4000, 0)
    fresh = np.stack([z, 2 * z, 4 * z])  # their own optima are 1, 2 and 4
    settings = TemperatureSettings(**PARAMETERS["temperature"])
    reach = ReachSettings(**PARAMETERS["reach"] | {"networks": [1, 2, 3]})
    case = SimpleNamespace(
        tried=Tried(reach, settings, BOUNDS, 10), at=lambda name, fit: {"temperature": fit.temperature}
    )
    found = [entry["temperature"] for entry in by_networks(case, RealLogits(labels, fresh, fresh))]
    one, two, three = found
    assert one == pytest.approx(1, rel=0.1) and one < two < three


def test_as_many_networks_as_are_shipped_give_the_shipped_temperature(copied):
    shipped = json.loads(Row(NAME).shipped.read_text())["temperature"]
    found = entries(NAME)
    networks = str(PARAMETERS["temperature"]["networks"])
    same = [("networks", networks), ("images", "30"), ("objectives", "nll"), ("reference", "shipped")]
    for part, choice in same:
        assert found[part, "clean", choice]["temperature"] == pytest.approx([shipped] * 2, rel=1e-6)


def nll_of(log_p: torch.Tensor, labels: torch.Tensor) -> float:
    return float(F.nll_loss(log_p, labels))


def test_what_is_tried_is_judged_on_its_own_logits(copied):
    """Networks of other losses, shifted images, and the mean of the networks, each computed anew."""
    row, found, case = Row(NAME), entries(NAME), case_of(NAME)
    logits = load_file(row.logits)
    labels = logits["labels"]
    for loss in ("mixup", "label_smoothing", "focal"):
        expected = [nll_of(z.log_softmax(1), labels) for z in logits[loss]]
        assert found["losses", loss, "raw"]["nll"] == pytest.approx(expected, rel=1e-4)
    mean = logits["cross_entropy"].softmax(2).mean(0)
    assert found["ensemble", "ensemble", "raw"]["nll"] == pytest.approx(
        [nll_of(mean.log(), labels)], rel=1e-4
    )
    pixels = load_file(row.prepared / "test.safetensors")["images"] / 255
    for kind, strength in (("contrast", 0.5), ("blur", 0.1), ("rotation", 30)):
        changed = shifted(pixels, Shift(kind, strength), generator("not used"))
        of_changed = case.networks.logits(load_transform(row.prepared).forward(changed))
        expected = [nll_of(torch.from_numpy(z).log_softmax(1), labels) for z in of_changed]
        assert found["shifts", f"{kind} {strength}", "raw"]["nll"] == pytest.approx(expected, rel=1e-4)
        assert (
            found["shifts", f"{kind} {strength}", "raw"]["nll"] != found["reference", "clean", "raw"]["nll"]
        )


def test_a_networks_own_temperature_is_fitted_on_what_it_makes_of_the_real_images(copied):
    case = case_of(NAME)
    setup = setup_on_real_images(case)
    own = case.networks.logits(setup.test.images[:])
    expected = [optimum(z, setup.test.labels.numpy(), BOUNDS).temperature for z in own]
    assert entries(NAME)["own", "clean", "nll"]["temperature"] == pytest.approx(expected, rel=1e-4)


def left_out_by(marked, monkeypatch) -> dict[str, torch.Tensor]:
    """What `reach` writes where this takes the place of the training of its networks."""
    row = Row(NAME)
    row.reach_logits.unlink()
    row.reach.unlink()
    monkeypatch.setattr("stages.reach.train_groups", marked)
    run("reach", NAME)
    return load_file(row.reach_logits)


def test_a_distilled_image_is_judged_by_the_network_of_the_fold_that_leaves_it_out(copied, monkeypatch):
    def marked(groups, setup, folder) -> GroupResults:
        """Logits of 1 for the images that a network was trained on, and of 0 for others."""
        logits = torch.zeros(setup.repeats, len(setup.test.labels), setup.test.classes)
        if setup.purpose.startswith("folds"):
            for of_network, rows in zip(logits, setup.rows):
                of_network[rows] = 1
        return GroupResults({}, {"cross_entropy": logits})

    row = Row(NAME)
    tensors = left_out_by(marked, monkeypatch)
    labels = load_set(row.distilled, row.prepared).data.labels
    assert not tensors["left_out"].any()
    assert sorted(tensors["left_out_labels"].tolist()) == sorted(labels.tolist())


def test_what_a_network_makes_of_a_left_out_image_stands_beside_its_label(copied, monkeypatch):
    def marked(groups, setup, folder) -> GroupResults:
        """Logits whose top class is the image's own label."""
        of_labels = F.one_hot(setup.test.labels, setup.test.classes).float()
        return GroupResults({}, {"cross_entropy": of_labels.expand(setup.repeats, -1, -1)})

    tensors = left_out_by(marked, monkeypatch)
    assert torch.equal(tensors["left_out"].argmax(1), tensors["left_out_labels"])


def test_augmented_images_are_not_the_images_themselves(copied):
    row, case = Row(NAME), case_of(NAME)
    images = case.distilled.data.images[:]
    plain = [optimum(z, case.distilled.data.labels.numpy(), BOUNDS) for z in case.networks.logits(images)]
    fitted = entries(row.name)["without_images", "clean", "augmented"]["temperature"]
    assert fitted != pytest.approx([fit.temperature for fit in plain], rel=1e-3)


def test_what_does_not_exist_for_a_row_is_absent(copied):
    found = entries(REAL)
    assert ("without_images", "clean", "folds") not in found, "one image a class has no folds"
    assert not [name for name in found if name[0] == "carried"]


def case_of(name: str):
    row = Row(name)
    tried = Tried(
        ReachSettings(**PARAMETERS["reach"]),
        TemperatureSettings(**PARAMETERS["temperature"]),
        BOUNDS,
        bins=10,
    )
    return load_case(row, tried, Fit(1.0, False))


def test_no_real_image_is_in_a_set_of_a_network(copied):
    """Neither of those that a temperature is fitted with, nor of those that it is judged on."""
    row = Row(REAL)
    setup = setup_on_real_images(case_of(REAL))
    distilled = load_set(row.distilled, row.prepared)
    assert distilled.positions is not None and distilled.number is not None
    networks = max(*PARAMETERS["reach"]["networks"], PARAMETERS["train"]["repeats"])
    used = distilled.positions[distilled.number < networks]
    real = Real.load(row.prepared)
    in_sets = {tuple(image.flatten().tolist()) for image in real.images[used]}
    shown = [tuple(image.flatten().tolist()) for image in setup.test.images]
    assert shown and not in_sets.intersection(shown)


def test_a_second_call_keeps_the_results(copied):
    written = Row(NAME).reach.stat().st_mtime_ns
    run("reach")
    assert Row(NAME).reach.stat().st_mtime_ns == written


def test_another_temperature_of_a_carried_row_trains_no_network(copied, monkeypatch):
    monkeypatch.setattr("stages.reach.train_groups", None)
    other = Row(f"{NAME}-mdt").shipped
    write_result(other, read_result(other) | {"temperature": 3.0})
    run("reach", NAME)
    assert entries(NAME)["carried", "clean", f"{NAME}-mdt"]["temperature"] == [3.0, 3.0]
    other.unlink()
    run("reach", NAME)
    assert ("carried", "clean", f"{NAME}-mdt") not in entries(NAME)


def test_test_labels_only_judge(copied):
    """With other test labels, nothing that was fitted changes but the oracles."""
    row = Row(NAME)
    before = entries(NAME)
    for file, name in ((row.logits, "labels"), (row.prepared / "test.safetensors", "labels")):
        tensors = load_file(file)
        write_tensors(file, tensors | {name: tensors[name].flip(0)})
    run("reach", NAME)
    now = entries(NAME)
    assert now.keys() == before.keys()
    oracles = [name for name in now if name[2] == "oracle"]
    for name, entry in now.items():
        if name not in oracles:
            assert entry.get("temperature") == before[name].get("temperature"), name
    assert any(now[name]["temperature"] != before[name]["temperature"] for name in oracles)
    assert now["reference", "clean", "raw"]["accuracy"] != before["reference", "clean", "raw"]["accuracy"]


def test_checkpoints_are_gone_when_the_work_is_done(copied):
    assert not [path for path in Path("scratch").glob("reach-*")]


# ---- settings ----


def checked(folder: Path, **reach: dict) -> None:
    values = suite()
    named = {"suite": "shapes", "dataset": "shapes"}
    values["reach"] = {name: named | keys for name, keys in reach.items()}
    write_yaml(folder / "suites/shapes.yaml", values)
    check.check_reach(parse(Suite, values, "shapes"), Path("suites/shapes.yaml"))


def test_a_carried_row_is_another_row_of_the_suite(copied):
    checked(copied, **{NAME: {"carried": [REAL]}})
    for name in ("elsewhere", NAME):
        with pytest.raises(UserError, match=f"reach.{NAME}.carried: '{name}' is unknown; allowed: "):
            checked(copied, **{NAME: {"carried": [name]}})


def test_the_full_data_have_no_reach(copied):
    with pytest.raises(UserError, match="reach.shapes-full: a row with backbone 'full'"):
        checked(copied, **{"shapes-full": {}})


# ---- tables and figure ----


def lines(text: pd.DataFrame) -> list[list[str]]:
    return text.values.tolist()


def numbers(temperature: float, ece: float, networks: int = 2) -> dict:
    return {
        "temperature": [temperature] * networks,
        "bound_hit": [False] * networks,
        "accuracy": [0.9] * networks,
        "ece": [ece] * networks,
        "nll": [0.5] * networks,
        "confidence_gap": [0.0] * networks,
    }


def named(part: str, choice: str, on: str = "clean", **more) -> dict:
    return {"part": part, "choice": choice, "on": on, **more}


RESULT = {
    "entries": [
        named("reference", "raw") | numbers(1, 0.10),
        named("reference", "shipped") | numbers(1.4, 0.02),
        named("reference", "oracle") | numbers(1.5, 0.01),
        named("networks", "1", networks=1, images=40) | numbers(1.2, 0.03),
        named("images", "50", networks=2, images=40) | numbers(1.3, 0.04),
        named("images", "500", networks=2, images=40) | numbers(1.3, 0.04),
        named("shifts", "raw", "rotation 30") | numbers(1, 0.50),
        named("shifts", "shipped", "rotation 30") | numbers(1.4, 0.40),
        named("shifts", "oracle", "rotation 30") | numbers(20, 0.05) | {"bound_hit": [True, False]},
        named("ensemble", "raw", "ensemble") | numbers(1, 0.07, 1),
        named("ensemble", "fitted", "ensemble") | numbers(1.1, 0.06, 1),
        named("without_images", "agreement") | numbers(0.05, 0.12) | {"bound_hit": [True, False]},
    ]
}


def results(*names: str) -> Results:
    keys = TableKeys(suite="digits", dataset="digits", backbone="mtt", ipc=1, reads="nothing", mdt=0, lr=0.1)
    evaluated = {"a": {"methods": {"mts": numbers(1.2, 0.2), "fixed": numbers(1.5, 0.05)}}}
    return Results({name: keys for name in names}, evaluated, 1.5)


def test_the_shipped_table_has_a_line_a_choice_beside_its_own_references():
    table = shipped_table(["a", "b"], {"a": RESULT, "b": {}, "unknown": RESULT})
    assert lines(table.text) == [
        [
            "a",
            "T from other networks",
            "1 network",
            "1.20",
            "90.00 ± 0.00",
            "3.00 ± 0.00",
            "10.00",
            "2.00",
            "1.00",
        ],
        [
            "a",
            "T from real images",
            "40 images",
            "1.30",
            "90.00 ± 0.00",
            "4.00 ± 0.00",
            "10.00",
            "2.00",
            "1.00",
        ],
        [
            "a",
            "Test images",
            "rotated by 30°",
            "1.40",
            "90.00 ± 0.00",
            "40.00 ± 0.00",
            "50.00",
            "40.00",
            "5.00",
        ],
        ["a", "Mean of the probabilities", "one T for the mean", "1.10", "90.00", "6.00", "7.00", "-", "-"],
        ["b", *["missing"] * 8],
    ]
    assert len(table.numbers) == len(RESULT["entries"])


def test_the_table_without_images_has_a_column_a_method():
    table = without_images_table(results("a", "b"), {"a": RESULT, "b": {}, "unknown": RESULT})
    first, second, worse = table.text.to_dict("records")
    assert first == {
        "Row": "a",
        "Raw": "10.00 ± 0.00",
        "MTS": "20.00 ± 0.00",
        "T = 1.5": "5.00 ± 0.00",
        "K folds": "-",
        "Augmented": "-",
        "Ensemble, raw": "7.00",
        "Agreement": "12.00 ± 0.00†",
        "Shipped T": "2.00 ± 0.00",
        "Oracle T": "1.00 ± 0.00",
    }
    assert set(second.values()) == {"b", "missing"}
    assert (worse["Raw"], worse["MTS"], worse["T = 1.5"], worse["Agreement"]) == ("-", "1", "0", "1")


def test_the_figure_has_the_curves_and_the_levels_of_each_row():
    drawn = reach_figure({"a": RESULT, "c": RESULT})
    of_row = drawn.data[drawn.data["row"] == "a"]
    assert of_row["method"].tolist() == ["raw", "oracle", "shipped", "shipped", "shipped"]
    assert of_row["ece_mean_percent"].tolist() == pytest.approx([10, 1, 3, 4, 4])
    assert len(drawn.figure.axes) == 4


def test_rows_that_ran_elsewhere_are_shown_too(copied):
    others = {"made": Elsewhere(Row(NAME), {"reach": RESULT}, Path("reports/far"))}
    gathered = gather()._replace(elsewhere=others)
    reached = gathered.reached()
    assert reached["made"] == RESULT and reached[NAME]["row"] == NAME and reached[REAL]["row"] == REAL
    (drawn,) = reach_figures(gathered).items()
    assert drawn[0] == "figure_reach-shapes" and set(drawn[1].data["row"]) == {NAME, REAL, "made"}
