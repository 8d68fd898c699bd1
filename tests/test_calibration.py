"""Metrics computed by hand, temperatures that are known, and the stages from networks to scores."""

import json
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from project import PARAMS, make_project, row, run, suite
from safetensors.numpy import load_file
from scipy.optimize import minimize_scalar

from stages.calibrators import mts, mts_holdout, ts
from stages.calibrators.early_stopped import early_stopped, lbfgs_path, within
from stages.calibrators.fitting import Fitting
from stages.calibrators.optimum import optimum
from stages.images.prepared import LabelledImages
from stages.metrics.ece import ece, reliability
from stages.metrics.scores import accuracy, brier, confidence_gap, log_softmax, nll
from stages.runtime.files import read_about
from stages.settings.calibrate import CalibrateSettings
from stages.settings.rows import Row

BOUNDS = (0.05, 20.0)
SETTINGS = CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=list(BOUNDS))


def settings_with(**values) -> CalibrateSettings:
    return SETTINGS.model_copy(update=values)


def random_predictions(count: int, scale: float, share_right: float, seed: int) -> tuple:
    """Logits of ten classes, and labels of which at least a share is the top class."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(count, 10))
    is_right = rng.random(count) < share_right
    labels = np.where(is_right, logits.argmax(1), rng.integers(0, 10, count))
    return logits, labels


# ---- metrics ----


def test_ece_by_hand():
    """Answers in three bins, one of them with a confidence of exactly 1."""
    p = np.array([[0.55, 0.45], [0.55, 0.45], [0.3, 0.7], [1.0, 0.0], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 1, 1])
    by_hand = 2 / 5 * abs(0.5 - 0.55) + 1 / 5 * abs(1 - 0.7) + 2 / 5 * abs(0.5 - 0.975)
    assert ece(p, labels) == pytest.approx(by_hand)
    counts = reliability(p, labels, 10)["count"].tolist()
    assert counts == [0, 0, 0, 0, 0, 2, 0, 1, 0, 2], "1.0 is in the last bin, 0.7 in the eighth"


def test_ece_is_zero_where_confidence_is_accuracy():
    labels = np.array([0] * 8 + [1] * 2)
    assert ece(np.tile([0.8, 0.2], (10, 1)), labels) == pytest.approx(0)


def test_ece_is_one_where_sure_answers_are_all_wrong():
    assert ece(np.tile([1.0, 0.0], (10, 1)), np.ones(10, int)) == pytest.approx(1)


def test_scores_by_hand():
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    labels = np.array([0, 0])
    assert accuracy(p, labels) == 0.5
    assert confidence_gap(p, labels) == pytest.approx(0.7 - 0.5)
    assert nll(np.log(p), labels) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert brier(p, labels) == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)


def test_log_softmax_survives_large_logits():
    log_p = log_softmax(np.array([[1000.0, 999.0]]))
    assert np.exp(log_p).sum() == pytest.approx(1)


# ---- the optimum ----


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_recovered(planted):
    """With labels drawn from softmax(z / T), the optimum on many samples is T."""
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(50_000, 10))
    p = np.exp(log_softmax(z / planted))
    labels = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    fit = optimum(z, labels, BOUNDS)
    assert fit.temperature == pytest.approx(planted, rel=0.03)
    assert not fit.bound_hit


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_optimum_is_where_scipy_finds_it(scale, classes):
    rng = np.random.default_rng(classes)
    logits = scale * rng.normal(size=(300, classes))
    labels = rng.integers(0, classes, 300)
    logits[np.arange(300), labels] += scale

    def loss(log_temperature: float) -> float:
        return nll(log_softmax(logits / np.exp(log_temperature)), labels)

    bounds = (1e-6, 1e6)
    best = minimize_scalar(loss, bounds=np.log(bounds), method="bounded", options={"xatol": 1e-10})
    fit = optimum(logits, labels, bounds)
    assert not fit.bound_hit
    assert fit.temperature == pytest.approx(float(np.exp(best.x)), rel=1e-4)
    assert loss(np.log(fit.temperature)) <= best.fun + 1e-12


def test_bounds_are_kept_and_reported():
    z = np.eye(10) * 5
    right = np.arange(10)
    wrong = (right + 1) % 10
    assert optimum(z, right, BOUNDS) == (0.05, True), "all right: T runs to zero"
    assert optimum(z, wrong, BOUNDS) == (20.0, True), "all wrong: T runs to infinity"


# ---- the early-stopped run ----


def test_the_early_stopped_run_stops_early():
    z, labels = random_predictions(400, scale=8, share_right=0, seed=2)
    best = optimum(z, labels, BOUNDS).temperature
    assert 1.5 < early_stopped(z, labels, SETTINGS).temperature < 0.9 * best


def test_one_iteration_moves_by_at_most_the_step_size():
    z, labels = random_predictions(400, scale=8, share_right=0, seed=2)
    fit = early_stopped(z, labels, settings_with(max_iter=1))
    assert abs(fit.temperature - 1.5) <= 0.02 + 1e-6


def test_a_temperature_is_never_zero_or_less():
    """Steps that are large enough to jump over zero end on a bound, and say so."""
    fit = early_stopped(np.eye(10) * 3, np.arange(10), settings_with(lr=100.0, max_iter=3))
    assert fit.bound_hit
    assert fit.temperature in BOUNDS


def torchs_lbfgs(logits: np.ndarray, labels: np.ndarray, start: float, lr: float, max_iter: int) -> float:
    z = torch.tensor(logits)
    targets = torch.tensor(labels)
    temperature = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([temperature], lr=lr, max_iter=max_iter)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(z / temperature, targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(temperature.detach())


@pytest.mark.parametrize(
    "lr, max_iter",
    [(0.02, 50), (0.01, 50), (0.02, 20), (1.0, 1), (1.0, 2), (1.0, 3), (1.0, 7), (1.0, 100), (0.3, 200)],
)
@pytest.mark.parametrize("start", [1.0, 1.5, 3.0])
def test_the_short_run_is_pytorchs_lbfgs(start, lr, max_iter):
    """On logits that are all right, all wrong and of every kind between, with few images and with many."""
    for share_right in (0.0, 0.3, 0.7, 0.95, 1.0):
        for count, scale in ((5, 1.0), (300, 6.0)):
            z, labels = random_predictions(count, scale, share_right, seed=3)
            ours = lbfgs_path(z, labels, start, lr, max_iter)[-1]
            theirs = torchs_lbfgs(z, labels, start, lr, max_iter)
            case = f"{share_right} of {count} right"
            assert within(ours, BOUNDS) == pytest.approx(within(theirs, BOUNDS), rel=1e-6), case


def test_a_long_path_contains_the_shorter_runs():
    z, labels = random_predictions(50, scale=8, share_right=0, seed=4)
    path = lbfgs_path(z, labels, 1.5, 0.02, 200)
    assert path[0] == 1.5
    for iterations in (20, 50):
        short = lbfgs_path(z, labels, 1.5, 0.02, iterations)
        assert path[iterations] == short[-1]


# ---- what is fitted on ----


def test_the_name_of_fitting_logits_is_short():
    assert Fitting("mts", 0.30000000000000004, 0.1).key == "mts/0.3/0.1"
    assert Fitting("ts", 0.0, 0.1).key == "ts/0/0.1"


def some_images() -> LabelledImages:
    """Four images of each of three classes; no pixel is zero."""
    images = 1 + torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return LabelledImages(images, torch.arange(3).repeat_interleave(4), 3)


def test_every_repeat_of_mts_has_images_and_masks_of_its_own():
    for share, module in ((0.5, mts), (1.0, mts), (0.5, mts_holdout)):
        drawn = [module.fitting_images(some_images(), share, 0.3, 0, repeat)[0] for repeat in (0, 1)]
        assert not torch.equal(*drawn)
        assert not torch.equal(*(images == 0 for images in drawn)), "the masks differ too"


def test_mts_held_out_masks_the_images_that_ts_holds_out():
    plain, labels = ts.fitting_images(some_images(), 0.5, 0.0, 0, 1)
    masked, masked_labels = mts_holdout.fitting_images(some_images(), 0.5, 0.5, 0, 1)
    assert torch.equal(labels, masked_labels)
    zero = masked == 0
    assert 0.3 < zero.float().mean() < 0.7
    assert torch.equal(masked[~zero], plain[~zero])
    again, _ = mts_holdout.fitting_images(some_images(), 0.5, 0.5, 0, 1)
    assert torch.equal(masked, again), "the mask is a function of the seed and the repeat"


def test_mts_held_out_is_ts_at_mask_ratio_zero():
    """Appendix B.3 of the paper."""
    for ours, theirs in zip(
        mts_holdout.fitting_images(some_images(), 0.5, 0.0, 0, 1),
        ts.fitting_images(some_images(), 0.5, 0.0, 0, 1),
    ):
        assert torch.equal(ours, theirs)


# ---- the stages ----


MADE = {
    "full": row(backbone="full", ipc=None, epochs=1, reads="nothing", distill={}, lr=0.05),
    "single": row(backbone="random", ipc=1, epochs=1, reads="nothing", distill={"sets": 3}, lr=0.05),
    "several": row(backbone="random", ipc=2, epochs=1, reads="nothing", distill={"sets": 1}, lr=0.02),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Three rows of real images with their temperatures and scores; `full` has a mask ratio of zero."""
    runs = MADE | {"full": MADE["full"] | {"mask_ratio": 0}}
    values = suite() | {"runs": runs, "architectures": {}, "svd": {}, "features": {}}
    train = PARAMS["train"] | {"losses": ["cross_entropy"]}
    params = PARAMS | {"train": train, "evaluate": {"bins": 10, "resamples": 2}}
    folder = make_project(tmp_path_factory.mktemp("calibrated"), params, {"shapes": values})
    with chdir(folder):
        run("prepare", "shapes")
        for stage in ("distill", "train"):
            for name in runs:
                run(stage, name)
        for stage in ("masked", "calibrate", "evaluate"):
            run(stage)
    return folder


@pytest.fixture
def here(built, monkeypatch) -> None:
    monkeypatch.chdir(built)


def results(name: str) -> dict:
    return json.loads(Row(name).results.read_text())


@pytest.mark.usefixtures("here")
def test_mts_is_also_fitted_on_held_out_images_where_ts_exists():
    for name in ("full", "several"):
        fits = json.loads(Row(name).temperatures.read_text())["methods"]
        assert list(fits) == ["ts", "mts", "mts_holdout"]
        assert fits["mts_holdout"]["networks"] == fits["ts"]["networks"] == "holdout"
    assert list(json.loads(Row("single").temperatures.read_text())["methods"]) == ["mts"]
    of_full = results("full")["methods"]
    assert of_full["mts_holdout"]["temperature"] == of_full["ts"]["temperature"], "the mask ratio is 0"
    assert of_full["mts_holdout"]["accuracy"] == of_full["ts"]["accuracy"]
    assert of_full["mts_holdout_converged"]["ece"] == of_full["ts_converged"]["ece"]
    of_several = results("several")["methods"]
    assert of_several["mts_holdout"]["temperature"] != of_several["ts"]["temperature"]
    metrics = json.loads(Row("several").metrics.read_text())
    assert metrics["ece_mts_holdout"] == pytest.approx(
        100 * np.mean(of_several["mts_holdout"]["ece"]), abs=1e-3
    )


@pytest.mark.usefixtures("here")
def test_held_out_images_are_masked_at_every_ratio_that_mts_is_tried_at():
    logits = load_file(Row("several").fitting_logits)
    for ratio in (0.0, 0.3, 0.8):
        assert {Fitting("mts", ratio, 0.1).key, Fitting("mts_holdout", ratio, 0.1).key} <= logits.keys()
    assert np.array_equal(logits["mts_holdout/0/0.1"], logits["ts/0/0.1"])


@pytest.mark.usefixtures("here")
def test_results_say_which_step_size_and_how_many_sets_their_networks_have():
    """There are two repeats, so of three sets two are used."""
    expected = {"full": (0.05, 1), "single": (0.05, 2), "several": (0.02, 1)}
    for name, pair in expected.items():
        of_row = results(name)
        assert (of_row["step_size"], of_row["sets"]) == pair
        about = read_about(Row(name).weights)
        assert (about["step_size"], about["sets"]) == pair
        assert about["row"]["lr"] == MADE[name]["lr"], "the settings are still there"
