"""Metrics beyond ECE against independent references: scikit-learn, the authors' package, closed forms, sums written out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from stages.metrics.adaptive_ece import adaptive_ece
from stages.metrics.bootstrap import ece_resampled, interval, smooth_ece_resampled, weights
from stages.metrics.classwise_ece import classwise_ece
from stages.metrics.ece import ece
from stages.metrics.ood import auroc, fpr95
from stages.metrics.smooth_ece import smooth_ece

# (kind, count, seed) of `drawn` -> relplot.smECE of relplot 1.0.3, numpy 2.4.6
RELPLOT = {
    ("calibrated", 50, 5): 0.04382,
    ("calibrated", 1000, 1): 0.02018,
    ("calibrated", 10_000, 2): 0.00898,
    ("over", 50, 0): 0.23065,
    ("over", 10_000, 3): 0.13938,
    ("mixed", 50, 4): 0.12582,
    ("mixed", 10_000, 4): 0.07323,
    ("right", 500, 5): 0.20987,
    ("sure", 500, 6): 0.30600,
}


def drawn(kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and whether each is right; `sure` has confidence 1.0 throughout, the others 0.3 to 0.99."""
    rng = np.random.default_rng(seed)
    c = 0.3 + 0.69 * rng.beta(5, 2, count)
    chance = {"calibrated": c, "over": c**2, "mixed": c + 0.15 * np.sin(12 * c), "right": np.ones(count), "sure": np.full(count, 0.7)}[kind]
    return (np.ones(count) if kind == "sure" else c), (rng.random(count) < chance).astype(float)


def predictions(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of an over-confident network."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), count)
    flat = 0.7 * p + 0.3 / classes
    return p, (flat.cumsum(1) > rng.random((count, 1))).argmax(1)


def top(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return p.max(1), p.argmax(1) == labels


def by_smooth_ece(p: np.ndarray, labels: np.ndarray) -> float:
    return smooth_ece(*top(p, labels))


# ---- every calibration error ----


@pytest.mark.parametrize("metric", [classwise_ece, adaptive_ece, by_smooth_ece])
def test_calibration_errors_ignore_order_and_copies_and_know_the_extremes(metric):
    p, labels = predictions(600, 4, 0)
    value, order = metric(p, labels), np.random.default_rng(1).permutation(600)
    assert 0 < value < 1
    assert metric(p[order], labels[order]) == pytest.approx(value)
    assert metric(np.repeat(p, 3, 0), np.repeat(labels, 3)) == pytest.approx(value, abs=1e-6), "a mean, not a sum"
    sure = np.eye(4)[labels]
    assert metric(sure, labels) == pytest.approx(0)
    assert metric(sure, (labels + 1) % 4) == pytest.approx(2 / 4 if metric is classwise_ece else 1)


# ---- classwise ----


@pytest.mark.parametrize("bins", [10, 15])
def test_classwise_ece_is_that_of_scikit_learns_curves(bins):
    p, labels = predictions(2000, 5, 2)
    each = []
    for k in range(5):
        share, mean = calibration_curve(labels == k, p[:, k], n_bins=bins)
        count = np.histogram(p[:, k], bins, (0, 1))[0]
        each.append(np.dot(count[count > 0], abs(share - mean)) / 2000)
    assert classwise_ece(p, labels, bins) == pytest.approx(np.mean(each))


def test_classwise_ece_on_bin_edges_by_hand():
    """Four bins: 0.5 is with 0.6, 0.25 is alone or with 0.3 and 0.4, 1.0 is with 0.8."""
    p = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.25, 0.25, 0.5]])
    labels = np.array([1, 0, 0, 1, 2])
    first = 0.25 + abs(0.5 + 0.6 - 1) + abs(1.0 + 0.8 - 1)
    second = abs(0.0 + 0.2 - 1) + abs(0.3 + 0.4 + 0.25 - 1)
    third = 0.2 + abs(0.5 - 1)
    assert classwise_ece(p, labels, 4) == pytest.approx((first + second + third) / 5 / 3)


# ---- adaptive ----


def test_adaptive_ece_is_that_of_scikit_learns_quantiles():
    p, labels = predictions(2000, 5, 3)
    confidence, right = top(p, labels)
    share, mean = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert adaptive_ece(p, labels, 10) == pytest.approx(abs(share - mean).mean())


def test_adaptive_ece_of_five_in_two_bins_and_of_ties_by_hand():
    """Sorted: 0.6, 0.7, 0.7 | 0.7, 0.9. Of the three at 0.7 the last is in the second bin, and it is wrong."""
    confidence, labels = np.array([0.9, 0.7, 0.7, 0.6, 0.7]), np.array([0, 0, 0, 1, 1])
    p = np.stack([confidence, 1 - confidence], 1)
    assert adaptive_ece(p, labels, 2) == pytest.approx((abs(2 - 2.0) + abs(1 - 1.6)) / 5)
    assert adaptive_ece(p, labels, 1) == pytest.approx(abs(3 - 3.6) / 5)
    assert adaptive_ece(p, labels, 50) == pytest.approx((0.1 + 0.3 + 0.3 + 0.6 + 0.7) / 5), "each alone, the other bins empty"


# ---- smooth ----


@pytest.mark.parametrize("kind, count, seed", RELPLOT)
def test_smooth_ece_is_the_authors(kind, count, seed):
    assert smooth_ece(*drawn(kind, count, seed)) == pytest.approx(RELPLOT[kind, count, seed], abs=1e-3)


@pytest.mark.parametrize("kind, count, seed", RELPLOT)
def test_smooth_ece_is_what_relplot_says_now(kind, count, seed):
    relplot = pytest.importorskip("relplot")
    confidence, right = drawn(kind, count, seed)
    assert relplot.smECE(confidence, right) == pytest.approx(RELPLOT[kind, count, seed], abs=1e-5)
    assert smooth_ece(confidence, right) == pytest.approx(relplot.smECE(confidence, right), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_ece_is_the_definition_written_out(seed):
    """Every sample's Gaussian with all its mirror images, on a fine mesh; confidences at 1.0 and wide bandwidths among them."""
    rng = np.random.default_rng(seed)
    confidence = np.concatenate([rng.random(20), [1.0, 1.0, 0.0]])
    right = rng.random(23) < (confidence if seed < 2 else 1 - confidence)
    mesh = (np.arange(4000) + 0.5) / 4000
    images = np.concatenate([2 * j + sign * confidence for j in range(-4, 5) for sign in (1, -1)])

    def at(sigma: float) -> float:
        kernel = np.exp(-(((mesh[:, None] - images) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
        return abs(kernel @ np.tile(right - confidence, 18)).mean() / 23

    assert smooth_ece(confidence, right) == pytest.approx(brentq(lambda s: at(s) - s, 0.01, 1), abs=5e-4)


@pytest.mark.parametrize("confidence", [0.0, 0.31, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("accuracy", [0.0, 0.4, 1.0])
def test_smooth_ece_of_one_confidence_is_its_distance_to_the_accuracy(confidence, accuracy):
    right = np.arange(50) < 50 * accuracy
    assert smooth_ece(np.full(50, confidence), right) == pytest.approx(abs(confidence - accuracy), abs=1e-4)


def test_smooth_ece_counts_samples_at_one_in_full():
    """Half sure and right in 80 %, half at 0.5 and right in half: 0.2 / 2, and never below the gap of the means."""
    confidence, right = np.repeat([1.0, 0.5], 100), np.concatenate([np.arange(100) < 80, np.arange(100) < 50])
    assert smooth_ece(confidence, right) == pytest.approx(0.1)


def test_smooth_ece_has_no_preferred_side_and_is_at_least_the_gap():
    for kind, count, seed in RELPLOT:
        confidence, right = drawn(kind, count, seed)
        value = smooth_ece(confidence, right)
        assert smooth_ece(1 - confidence, 1 - right) == pytest.approx(value, abs=1e-4)
        assert value >= abs(confidence.mean() - right.mean()) - 1e-6


def test_smooth_ece_of_a_calibrated_network_falls_with_the_cube_root_of_the_count():
    """Noise is 1 / sqrt(sigma N), and equal to sigma at the fixed point."""
    few, many = (np.mean([smooth_ece(*drawn("calibrated", count, seed)) for seed in range(8)]) for count in (3000, 192_000))
    assert few / many == pytest.approx(64 ** (1 / 3), rel=0.2)
    assert many < 0.005


# ---- bootstrap ----


def test_resamples_are_a_function_of_seed_and_count():
    once = weights(300, 5, 7)
    assert once.shape == (5, 300) and (once.sum(1) == 300).all()
    assert np.array_equal(once, weights(300, 5, 7)), "methods are paired"
    assert np.array_equal(once, weights(300, 9, 7)[:5]), "more resamples change none"
    assert len(np.unique(once, axis=0)) == 5
    assert not np.array_equal(once, weights(300, 5, 8))
    assert weights(50, 4000, 0).mean(0) == pytest.approx(np.ones(50), abs=0.08), "no image is preferred"


def test_a_resample_is_the_data_with_copies():
    p, labels = predictions(400, 3, 4)
    p[:3], p[3:6] = [1.0, 0.0, 0.0], [0.7, 0.2, 0.1]  # confidences on bin edges
    confidence, right = top(p, labels)
    drawn_often = weights(400, 6, 0)
    by_copies = [np.repeat(np.arange(400), row.astype(int)) for row in drawn_often]
    for bins in (10, 15):
        assert ece_resampled(confidence, right, drawn_often, bins) == pytest.approx([ece(p[i], labels[i], bins) for i in by_copies])
    assert smooth_ece_resampled(confidence, right, drawn_often) == pytest.approx([smooth_ece(confidence[i], right[i]) for i in by_copies])


def test_interval_is_the_middle():
    assert interval(np.random.default_rng(0).permutation(1001)) == pytest.approx((25, 975))
    assert interval(np.arange(1001), 0.5) == pytest.approx((250, 750))


@pytest.mark.parametrize("resampled", [ece_resampled, smooth_ece_resampled])
def test_the_interval_of_one_confidence_is_the_binomials(resampled):
    """Confidence 0.9 throughout and accuracy 0.7: the error is 0.9 - accuracy, whose spread is known."""
    right = np.arange(2000) < 1400
    low, high = interval(resampled(np.full(2000, 0.9), right, weights(2000, 2000, 0)))
    half = 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half), abs=0.1 * half)


@pytest.mark.parametrize("resampled", [ece_resampled, smooth_ece_resampled])
def test_pairing_narrows_a_difference(resampled):
    """Two over-confident versions of one network: what the draw of images adds is nearly the same in both."""
    confidence, right = drawn("over", 1000, 0)
    one, other, unpaired = weights(1000, 200, 0), weights(1000, 200, 0), weights(1000, 200, 1)

    def width(w: np.ndarray) -> float:
        low, high = interval(resampled(confidence, right, one) - resampled(confidence**0.9, right, w))
        return high - low

    assert width(other) < width(unpaired) / 5


def test_resampling_lifts_the_ece_of_a_calibrated_network():
    """The bias that bootstrap.py warns of: a resample has the noise of the test set and its own."""
    lift = []
    for seed in range(5):
        confidence, right = drawn("calibrated", 1000, seed)
        plain = ece_resampled(confidence, right, np.ones((1, 1000)))[0]
        lift.append(ece_resampled(confidence, right, weights(1000, 100, seed)).mean() / plain)
    assert 1.2 < np.mean(lift) < 1.8, "about sqrt(2): twice the variance"


# ---- out of distribution ----


@pytest.mark.parametrize("inside, outside", [(20, 30), (100, 100), (37, 500), (19, 7), (1, 3)])
@pytest.mark.parametrize("digits", [1, 9])
def test_ood_is_scikit_learns(inside, outside, digits):
    """With one digit most scores are tied."""
    rng = np.random.default_rng(inside)
    a, b = np.round(rng.beta(4, 2, inside), digits), np.round(rng.beta(3, 3, outside), digits)
    truth, score = np.repeat([1, 0], [inside, outside]), np.concatenate([a, b])
    assert auroc(a, b) == pytest.approx(roc_auc_score(truth, score))
    assert auroc(b, a) == pytest.approx(1 - auroc(a, b))
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    assert fpr95(a, b) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


def test_ood_extremes():
    low, high = np.linspace(0, 0.4, 40), np.linspace(0.5, 1, 40)
    assert (auroc(high, low), fpr95(high, low)) == (1, 0)
    assert (auroc(low, high), fpr95(low, high)) == (0, 1)
    assert (auroc(np.ones(5), np.ones(9)), fpr95(np.ones(5), np.ones(9))) == (0.5, 1), "no information"
    assert fpr95(np.arange(100.0), np.array([4.0, 5.0, 5.5, -1.0])) == 0.5, "the threshold is 5: 95 of 100 are at or above"


# ---- start ----


def test_metrics_start_without_torch_and_scipy():
    names = ", ".join(f"stages.metrics.{name}" for name in ("adaptive_ece", "bootstrap", "classwise_ece", "ood", "smooth_ece"))
    code = f"import sys, {names}; print(sorted({{'torch', 'scipy', 'sklearn', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
