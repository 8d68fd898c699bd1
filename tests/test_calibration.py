"""Metrics by hand and temperatures that are known."""

import numpy as np
import pytest
import torch

from stages.calibrators.early_stopped import early_stopped, lbfgs_path, within
from stages.calibrators.optimum import optimum
from stages.calibrators.settings import CalibrateSettings
from stages.metrics.ece import ece, reliability
from stages.metrics.scores import accuracy, brier, confidence_gap, log_softmax, nll

BOUNDS = (0.05, 20.0)
SETTINGS = CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=list(BOUNDS))


def test_ece_by_hand():
    """Four bins' worth of answers, one of them with confidence exactly 1.0."""
    p = np.array([[0.55, 0.45], [0.55, 0.45], [0.3, 0.7], [1.0, 0.0], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 1, 1])
    by_hand = 2 / 5 * abs(0.5 - 0.55) + 1 / 5 * abs(1 - 0.7) + 2 / 5 * abs(0.5 - 0.975)
    assert ece(p, labels) == pytest.approx(by_hand)
    table = reliability(p, labels, 10)
    assert table["count"].tolist() == [0, 0, 0, 0, 0, 2, 0, 1, 0, 2], "1.0 is in the last bin, 0.7 in the eighth"


def test_ece_is_zero_where_confidence_is_accuracy_and_one_where_it_is_all_wrong():
    labels = np.array([0] * 8 + [1] * 2)
    assert ece(np.tile([0.8, 0.2], (10, 1)), labels) == pytest.approx(0)
    assert ece(np.tile([1.0, 0.0], (10, 1)), np.ones(10, int)) == pytest.approx(1)


def test_scores_by_hand():
    p, labels = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0])
    assert accuracy(p, labels) == 0.5
    assert confidence_gap(p, labels) == pytest.approx(0.7 - 0.5)
    assert nll(np.log(p), labels) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert brier(p, labels) == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)


def test_log_softmax_survives_large_logits():
    assert np.allclose(np.exp(log_softmax(np.array([[1000.0, 999.0]]))).sum(), 1)


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_recovered(planted):
    """Labels drawn from softmax(z / T): the optimum on many samples is T."""
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(50_000, 10))
    p = np.exp(log_softmax(z / planted))
    labels = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    fit = optimum(z, labels, BOUNDS)
    assert fit.temperature == pytest.approx(planted, rel=0.03) and not fit.bound_hit


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 3000.0])
def test_the_optimum_is_where_scipy_finds_it(scale):
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(0)
    for classes in (2, 10, 200):
        logits, labels = scale * rng.normal(size=(300, classes)), rng.integers(0, classes, 300)
        logits[np.arange(300), labels] += scale
        best = minimize_scalar(lambda t: nll(log_softmax(logits / np.exp(t)), labels), bounds=np.log([1e-6, 1e6]), method="bounded", options={"xatol": 1e-10})
        fit = optimum(logits, labels, (1e-6, 1e6))
        assert not fit.bound_hit and fit.temperature == pytest.approx(float(np.exp(best.x)), rel=1e-4)
        assert nll(log_softmax(logits / fit.temperature), labels) <= best.fun + 1e-12


def test_the_optimum_is_one():
    """No temperature nearby is better, to the precision of the search."""
    rng = np.random.default_rng(1)
    z = 5 * rng.normal(size=(500, 7))
    labels = np.where(rng.random(500) < 0.6, z.argmax(1), rng.integers(0, 7, 500))
    best = optimum(z, labels, BOUNDS).temperature
    assert BOUNDS[0] < best < BOUNDS[1]
    at = [nll(log_softmax(z / (best * factor)), labels) for factor in (0.999, 1, 1.001)]
    assert at[1] < at[0] and at[1] < at[2]


def test_bounds_are_kept_and_reported():
    z = torch.eye(10) * 5
    right, wrong = np.arange(10), (np.arange(10) + 1) % 10
    assert optimum(z.numpy(), right, BOUNDS) == (0.05, True), "all right: T runs to zero"
    assert optimum(z.numpy(), wrong, BOUNDS) == (20.0, True), "all wrong: T runs to infinity"


def test_the_early_stopped_run_stops_early_and_one_iteration_hardly_moves():
    rng = np.random.default_rng(2)
    z, labels = 8 * rng.normal(size=(400, 10)), rng.integers(0, 10, 400)
    best, early = optimum(z, labels, BOUNDS).temperature, early_stopped(z, labels, SETTINGS).temperature
    assert 1.5 < early < 0.9 * best
    one = early_stopped(z, labels, SETTINGS.model_copy(update={"max_iter": 1})).temperature
    assert abs(one - 1.5) <= 0.02 + 1e-6


def test_a_temperature_is_never_zero_or_less():
    """Steps large enough to jump over zero end on a bound, and say so."""
    logits, labels = np.eye(10) * 3, np.arange(10)
    fit = early_stopped(logits, labels, SETTINGS.model_copy(update={"lr": 100.0, "max_iter": 3}))
    assert fit.bound_hit and fit.temperature in BOUNDS


def torchs_lbfgs(logits: np.ndarray, labels: np.ndarray, start: float, lr: float, max_iter: int) -> float:
    z, targets = torch.tensor(logits), torch.tensor(labels)
    temperature = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([temperature], lr=lr, max_iter=max_iter)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(z / temperature, targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(temperature.detach())


@pytest.mark.parametrize("lr, max_iter", [(0.02, 50), (0.01, 50), (0.02, 20), (1.0, 1), (1.0, 2), (1.0, 3), (1.0, 7), (1.0, 100), (0.3, 200)])
@pytest.mark.parametrize("start", [1.0, 1.5, 3.0])
def test_the_short_run_is_pytorchs_lbfgs(start, lr, max_iter):
    """On logits that are all right, all wrong and of every kind between, with few images and with many."""
    rng = np.random.default_rng(3)
    for right in (0.0, 0.3, 0.7, 0.95, 1.0):
        for count, scale in ((5, 1.0), (300, 6.0)):
            z = scale * rng.normal(size=(count, 10))
            labels = np.where(rng.random(count) < right, z.argmax(1), rng.integers(0, 10, count))
            ours, theirs = lbfgs_path(z, labels, start, lr, max_iter)[-1], torchs_lbfgs(z, labels, start, lr, max_iter)
            assert within(ours, BOUNDS) == pytest.approx(within(theirs, BOUNDS), rel=1e-6), (right, count, ours, theirs)


def test_a_long_path_has_the_shorter_runs_in_it():
    rng = np.random.default_rng(4)
    z, labels = 8 * rng.normal(size=(50, 10)), rng.integers(0, 10, 50)
    path = lbfgs_path(z, labels, 1.5, 0.02, 200)
    assert path[0] == 1.5 and [path[k] for k in (20, 50)] == [lbfgs_path(z, labels, 1.5, 0.02, k)[-1] for k in (20, 50)]
