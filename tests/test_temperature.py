"""The temperature that ships with a set: what it is fitted on, and that nothing else is seen or run again."""

import json
import shutil
from pathlib import Path

import numpy as np
import project
import pytest
import torch
import yaml
from project import PARAMS, kill_at_the_second_training, make_project, run, write_yaml
from safetensors.torch import load_file

from stages.calibrators.optimum import optimum
from stages.images.distilled import load_set
from stages.images.prepared import load_split
from stages.images.real import Real, fitting_images, fitting_rows, seen_rows
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax, scores
from stages.reporting import further_tables
from stages.runtime.errors import UserError
from stages.runtime.files import write_result, write_tensors
from stages.runtime.randomness import generator
from stages.settings.rows import Row
from stages.settings.temperature import TemperatureSettings
from stages.temperature import fit, setups
from stages.training import groups as training_groups

BOUNDS = [0.05, 20.0]
LEARNED = "shapes-dsa-ipc1"
RANDOM = "shapes-random-ipc2"
KMEANS = "shapes-kmeans-ipc2"
FULL = "shapes-full"
ROWS = [LEARNED, RANDOM, KMEANS, FULL]


@pytest.fixture(scope="module")
def distilled_project(tmp_path_factory) -> Path:
    """Three classes of 20 training images, a learned set, two rows of several sets, and the full data."""
    common = {"reads": "nothing", "lr": 0.05, "augment": False, "epochs": 3}
    loops = {"iterations": 1, "outer_loops": 1, "inner_loops": 1}
    suite = project.suite()
    suite["runs"] = {
        LEARNED: project.row(backbone="dsa", ipc=1, distill=loops, **common),
        RANDOM: project.row(backbone="random", ipc=2, distill={"sets": 3}, **common),
        KMEANS: project.row(backbone="kmeans", ipc=2, distill={"sets": 3}, **common),
        FULL: project.row(backbone="full", ipc=None, distill={}, **common),
    }
    named = {"suite": "shapes", "dataset": "shapes"}
    suite["architectures"] = {
        name: named | {"networks": ["convnet", "mlp"]} for name in (LEARNED, RANDOM, FULL)
    }
    suite |= {"svd": {}, "features": {}, "choices": {}}
    params = PARAMS | {"train": PARAMS["train"] | {"losses": ["cross_entropy"]}}
    folder = make_project(tmp_path_factory.mktemp("distilled"), params, {"shapes": suite})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("prepare", "shapes")
        for name in ROWS:
            run("distill", name)
        run("temperature")
    return folder


@pytest.fixture(autouse=True)
def shapes(distilled_project, tmp_path, monkeypatch) -> Path:
    """A copy of that project, which is the working directory of the test."""
    folder = tmp_path / "project"
    shutil.copytree(distilled_project, folder)
    monkeypatch.chdir(folder)
    return folder


def shipped(name: str) -> dict:
    return json.loads(Row(name).shipped.read_text())


def set_of(name: str):
    return load_set(Row(name).distilled, Row(name).prepared)


def settings(networks: int = 2, images: int = 30) -> TemperatureSettings:
    return TemperatureSettings(networks=networks, images=images)


def setups_of(name: str, networks: int = 2, images: int = 30) -> list:
    return setups(Row(name), set_of(name), settings(networks, images))


def change_params(**changes) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in changes.items():
        values[key] |= value
    write_yaml(Path("params.yaml"), values)


def forbid_training(monkeypatch, stage: str) -> None:
    monkeypatch.setattr(f"stages.{stage}.train_groups", lambda *arguments: pytest.fail("trained"))


# A planted temperature


def planted_sample(temperature: float, images: int, draws: np.random.Generator) -> tuple:
    """Logits of three networks that are right about their probabilities at that temperature, and labels.

    `(3, images, 10)` and `(3, images)`.
    """
    scaled = draws.normal(size=(3, images, 10)) * draws.uniform(0.5, 3, size=(3, images, 1))
    noise = draws.gumbel(size=scaled.shape)
    labels = (scaled + noise).argmax(2)  # a draw from the softmax
    return temperature * scaled, labels


def standard_error(logits: np.ndarray, temperature: float) -> float:
    """Of the fitted temperature, from the curvature of the NLL, which is Var_p[z] for each image, by 1/T."""
    p = np.exp(log_softmax((logits / temperature).reshape(-1, logits.shape[-1])))
    z = logits.reshape(p.shape)
    variance = (p * z**2).sum(1) - (p * z).sum(1) ** 2
    return temperature**2 / np.sqrt(variance.sum())


@pytest.mark.parametrize("planted", [0.6, 1.0, 2.5])
def test_a_planted_temperature_comes_back(planted):
    """Over 40 samples the errors are as large as the standard errors say, and have no bias."""
    draws = np.random.default_rng(0)
    deviations = []
    for _ in range(40):
        logits, labels = planted_sample(planted, 300, draws)
        fitted = fit(logits, labels, BOUNDS)["temperature"]
        deviations.append((fitted - planted) / standard_error(logits, planted))
    assert abs(np.mean(deviations)) < 3 / np.sqrt(40)
    assert 0.7 < np.std(deviations) < 1.4


def test_a_temperature_suits_another_sample():
    """It equals the temperature fitted there, within both standard errors."""
    draws = np.random.default_rng(1)
    logits, labels = planted_sample(1.8, 2000, draws)
    other_logits, other_labels = planted_sample(1.8, 2000, draws)
    ours = fit(logits, labels, BOUNDS)["temperature"]
    theirs = fit(other_logits, other_labels, BOUNDS)["temperature"]
    errors = [standard_error(logits, ours), standard_error(other_logits, theirs)]
    assert abs(ours - theirs) < 3 * np.hypot(*errors) < 0.15


def test_the_fit_has_each_networks_own_temperature_and_accuracy():
    draws = np.random.default_rng(2)
    parts = [planted_sample(planted, 500, draws) for planted in (0.8, 2.0)]
    logits = np.concatenate([z for z, _ in parts])
    labels = np.concatenate([y for _, y in parts])
    result = fit(logits, labels, BOUNDS)
    for z, y, own, accuracy in zip(logits, labels, result["own"], result["accuracy"]):
        assert own == optimum(z, y, BOUNDS).temperature
        assert accuracy == (z.argmax(1) == y).mean()
    assert min(result["own"]) < result["temperature"] < max(result["own"])
    assert result["images"] == 500 and not result["bound_hit"]


# The networks


@pytest.mark.parametrize("name", ROWS)
def test_its_networks_are_none_of_those_that_are_judged(name, monkeypatch):
    """Neither their random keys nor their weights are those of a repeat of `train`."""
    used = [(setup.purpose, repeat) for setup in setups_of(name) for repeat in range(setup.repeats)]
    assert len(set(used)) == 2
    assert not [purpose for purpose, _ in used if purpose == "train"]

    weights = []

    def recorded(*arguments):
        results = training_groups.train_groups(*arguments)
        weights.extend(results.weights["cross_entropy"])
        return results

    monkeypatch.setattr("stages.temperature.train_groups", recorded)
    Row(name).shipped.unlink()
    Row(name).real_logits.unlink()
    run("temperature", name)
    run("train", name)
    judged = load_file(Row(name).weights)["cross_entropy"]
    assert len(weights) == len(judged) == 2
    every = [*weights, *judged]
    for i, first in enumerate(every):
        for second in every[:i]:
            assert not torch.allclose(first, second, atol=1e-3)


def test_its_networks_have_the_rows_schedule_and_sets():
    (setup,) = setups_of(RANDOM, networks=4)
    distilled = set_of(RANDOM)
    assert (setup.schedule.lr, setup.schedule.epochs) == (0.05, 3)
    for network, rows in enumerate(setup.rows):
        assert torch.equal(rows, distilled.rows(network))


@pytest.mark.parametrize("name", [LEARNED, FULL])
def test_a_single_network_is_enough(name):
    change_params(temperature={"networks": 1})
    run("temperature", name)
    result = shipped(name)
    assert result["own"] == [result["temperature"]]
    assert load_file(Row(name).real_logits)["logits"].shape[0] == 1


def test_a_killed_run_goes_on(monkeypatch):
    """The network that was finished is not trained again, and the result is the same up to rounding."""
    row = Row(LEARNED)
    before = shipped(LEARNED)
    trained = kill_at_the_second_training(monkeypatch, training_groups)
    for file in (row.shipped, row.real_logits):
        file.unlink()
    with pytest.raises(KeyboardInterrupt):
        run("temperature", LEARNED)
    assert not row.shipped.exists() and not row.real_logits.exists()
    run("temperature", LEARNED)
    assert len(trained) == 3, "one network was left to train"
    assert shipped(LEARNED)["temperature"] == pytest.approx(before["temperature"], rel=1e-4)
    assert shipped(LEARNED)["own"] == pytest.approx(before["own"], rel=1e-4)
    assert not list(Path("scratch").glob("temperature-*"))


@pytest.mark.parametrize("name", [LEARNED, FULL])
def test_other_bounds_train_no_network(name, monkeypatch):
    forbid_training(monkeypatch, "temperature")
    bounds = [shipped(name)["temperature"] * 1.1, 20.0]
    change_params(calibrate={"bounds": bounds})
    run("temperature", name)
    assert shipped(name)["temperature"] == bounds[0] and shipped(name)["bound_hit"]


def test_what_has_not_changed_is_not_computed_again(monkeypatch):
    forbid_training(monkeypatch, "temperature")
    monkeypatch.setattr("stages.temperature.fit", lambda *arguments: pytest.fail("fitted"))
    run("temperature")
    change_params(temperature={"images": 12})
    with pytest.raises(pytest.fail.Exception):
        run("temperature", LEARNED)


# The images


def test_the_file_says_what_it_was_fitted_on():
    for name in ROWS:
        tensors = load_file(Row(name).real_logits)
        networks, images, classes = tensors["logits"].shape
        assert tensors["labels"].shape == (networks, images)
        assert (networks, classes) == (2, 3)
        result = shipped(name)
        assert result["images"] == images
        again = fit(tensors["logits"].numpy(), tensors["labels"].numpy(), BOUNDS)
        assert again == {key: result[key] for key in again}


@pytest.mark.parametrize("name", ROWS)
def test_its_images_are_training_images_and_no_test_images(name):
    prepared = Row(name).prepared
    real = load_split(prepared, "train")
    test = load_split(prepared, "test")
    for setup in setups_of(name):
        assert len(setup.test.images) > 0
        for image, label in zip(setup.test.images, setup.test.labels):
            rows = positions_of(image, real.images[:])
            assert len(rows) == 1 and real.labels[rows[0]] == label
            assert len(positions_of(image, test.images[:])) == 0


def positions_of(image: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The positions of an image among images, up to rounding."""
    differences = (images - image).flatten(1).abs().amax(1)
    return (differences < 1e-4).nonzero().flatten()


@pytest.mark.parametrize("name", ROWS)
def test_no_test_image_is_read(name):
    """With noise in place of the test split, or no such file, the files come out equal byte for byte."""
    row = Row(name)
    before = [file.read_bytes() for file in (row.shipped, row.real_logits)]
    test_file = row.prepared / "test.safetensors"
    test = load_file(test_file)
    noise = torch.randint(0, 256, test["images"].shape, dtype=torch.uint8)
    write_tensors(test_file, {"images": noise, "labels": torch.zeros_like(test["labels"])})
    for file in (row.shipped, row.real_logits):
        file.unlink()
    run("temperature", name)
    assert [file.read_bytes() for file in (row.shipped, row.real_logits)] == before
    test_file.unlink()
    row.shipped.unlink()
    row.real_logits.unlink()
    run("temperature", name)
    assert [file.read_bytes() for file in (row.shipped, row.real_logits)] == before


@pytest.mark.parametrize("name", [RANDOM, KMEANS])
def test_images_in_the_sets_of_its_networks_are_left_out(name):
    """Of three sets two are used by two networks. With all other images asked for, only these are missing."""
    distilled = set_of(name)
    real = Real.load(Row(name).prepared)
    for networks in (1, 2, 3, 5):
        of_networks = [distilled.rows(network) for network in range(networks)]
        seen = set(distilled.positions[torch.cat(of_networks)].tolist())
        assert set(seen_rows(distilled, networks).tolist()) == seen
        (setup,) = setups_of(name, networks=networks, images=1000)
        assert len(setup.test.images) == len(real.labels) - len(seen)
        shown = set()
        for image in setup.test.images:
            shown |= set(positions_of(image, load_split(Row(name).prepared, "train").images[:]).tolist())
        assert not shown & seen


def test_on_the_full_data_each_network_is_shown_images_that_it_is_trained_without():
    every = list(range(60))
    real = load_split(Row(FULL).prepared, "train").images[:]
    shown_to = []
    for setup in setups_of(FULL):
        (trained_on,) = setup.rows
        shown = [int(positions_of(image, real)) for image in setup.test.images]
        assert sorted([*trained_on.tolist(), *shown]) == every
        assert setup.test.labels.bincount().tolist() == [2, 2, 2], "a tenth of each class"
        shown_to.append(set(shown))
    assert shown_to[0] != shown_to[1]


def test_the_draw_is_balanced_and_a_function_of_the_seed():
    real = Real.load(Row(LEARNED).prepared)
    distilled = set_of(LEARNED)
    draws = [fitting_images(real, distilled, 2, 30, seed) for seed in (0, 0, 1)]
    for draw in draws:
        assert draw.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(draws[0].images, draws[1].images)
    assert not torch.equal(draws[0].images, draws[2].images)
    (setup,) = setups_of(LEARNED)
    assert torch.equal(setup.test.images, draws[0].images)


@pytest.mark.parametrize("images, expected", [(2, 1), (30, 10), (1000, 20)])
def test_as_many_images_are_taken_as_there_are(images, expected):
    """But at least one of each class."""
    (setup,) = setups_of(LEARNED, images=images)
    assert setup.test.labels.bincount().tolist() == [expected] * 3


def test_a_class_with_fewer_images_gives_all_of_them():
    real = Real(images=None, labels=torch.tensor([0] * 3 + [1] * 10 + [2] * 6), classes=3)
    seen = torch.tensor([0, 13, 14])
    rows = fitting_rows(real, seen, 4, generator("draw"))
    assert real.labels[rows].bincount().tolist() == [2, 4, 4]
    assert not set(rows.tolist()) & set(seen.tolist())
    assert len(rows.unique()) == 10


def test_sets_of_all_training_images_leave_none_to_fit_on():
    real = Real.load(Row(RANDOM).prepared)
    everything = set_of(RANDOM)._replace(positions=torch.arange(60), number=None)
    with pytest.raises(UserError, match="all 60 training images, and none is left to fit a temperature on"):
        fitting_images(real, everything, 2, 30, seed=0)


# Other networks


def tried(name: str) -> dict:
    return json.loads(Row(name).architectures.read_text())


def test_other_networks_are_judged_at_the_shipped_temperature_and_at_their_own():
    run("architectures", LEARNED)
    logits = load_file(Row(LEARNED).architecture_logits)
    labels, real_labels = logits["labels"].numpy(), logits["real_labels"].numpy()
    for network in ("convnet", "mlp"):
        test, real = logits[f"{network}/test"].numpy(), logits[f"{network}/real"].numpy()
        calibrated = tried(LEARNED)[network]["calibrated"]
        assert calibrated["shipped"]["temperature"] == [shipped(LEARNED)["temperature"]] * 2
        crossed = [optimum(real[other], real_labels, BOUNDS).temperature for other in (1, 0)]
        assert calibrated["own"]["temperature"] == crossed
        best = [optimum(z, labels, BOUNDS).temperature for z in test]
        assert calibrated["oracle"]["temperature"] == best
        for numbers in calibrated.values():
            for repeat, temperature in enumerate(numbers["temperature"]):
                expected = scores(log_softmax(test[repeat] / temperature), labels, 10)
                assert {key: numbers[key][repeat] for key in expected} == expected
        raw = [ece(np.exp(log_softmax(z)), labels, 10) for z in test]
        assert tried(LEARNED)[network]["ece"] == raw


def test_other_networks_are_fitted_on_images_that_no_repeat_has_seen():
    run("architectures", RANDOM)
    images = load_split(Row(RANDOM).prepared, "train").images[:]
    distilled = set_of(RANDOM)
    real = fitting_images(Real.load(Row(RANDOM).prepared), distilled, 2, 30, seed=0)
    shown = [int(positions_of(image, images)) for image in real.images]
    assert not set(shown) & set(seen_rows(distilled, 2).tolist())
    logits = load_file(Row(RANDOM).architecture_logits)
    assert torch.equal(logits["real_labels"], real.labels)
    assert logits["mlp/real"].shape == (2, 30, 3)


def test_another_temperature_trains_no_other_network(monkeypatch):
    run("architectures", LEARNED)
    before = tried(LEARNED)
    forbid_training(monkeypatch, "architectures")
    result = shipped(LEARNED)
    write_result(Row(LEARNED).shipped, result | {"temperature": 3.0})
    run("architectures", LEARNED)
    after = tried(LEARNED)
    assert after["mlp"]["calibrated"]["shipped"]["temperature"] == [3.0, 3.0]
    assert after["mlp"]["calibrated"]["own"] == before["mlp"]["calibrated"]["own"]
    assert after["mlp"]["ece"] == before["mlp"]["ece"]


def test_temperatures_of_other_networks_may_be_absent():
    """On the full data there is none of their own, and none is shipped before it has been fitted."""
    Row(FULL).shipped.unlink()
    run("architectures", FULL)
    assert tried(FULL)["mlp"]["calibrated"].keys() == {"oracle"}
    change_params(train={"repeats": 1})
    run("architectures", LEARNED)
    assert tried(LEARNED)["mlp"]["calibrated"].keys() == {"shipped", "oracle"}
    table = further_tables.architectures({FULL: ["mlp"], LEARNED: ["mlp"]}, {FULL: tried(FULL)})
    full, learned = table.text.to_dict("records")
    assert (full["ECE at shipped T"], full["ECE at own T"]) == ("-", "-")
    assert full["ECE at oracle T"] not in ("-", "missing")
    assert learned["ECE at shipped T"] == "missing"


def test_the_table_of_architectures_has_each_temperature():
    run("architectures", LEARNED)
    table = further_tables.architectures({LEARNED: ["convnet", "mlp"]}, {LEARNED: tried(LEARNED)})
    for line, numbers in zip(table.text.to_dict("records"), table.numbers.to_dict("records")):
        calibrated = tried(LEARNED)[line["Network"]]["calibrated"]
        for key in ("shipped", "own", "oracle"):
            mean = np.mean(calibrated[key]["ece"])
            assert line[f"ECE at {key} T"].startswith(f"{100 * mean:.2f} ± ")
            assert numbers[f"{key}_ece_mean"] == pytest.approx(mean)
            temperature = np.mean(calibrated[key]["temperature"])
            assert numbers[f"{key}_temperature_mean"] == pytest.approx(temperature)
