"""Metrics beyond ECE against scikit-learn, the authors' package, closed forms and sums written out."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT
from scipy.optimize import brentq
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.coverage import World, coverage
from stages.metrics.adaptive_ece import adaptive_ece
from stages.metrics.bootstrap import ece_resampled, estimate, smooth_ece_resampled, weights
from stages.metrics.classwise_ece import classwise_ece
from stages.metrics.ece import ece
from stages.metrics.ood import auroc, fpr95
from stages.metrics.smooth_ece import CURVE, smooth_accuracy, smooth_ece

SAMPLES = [
    ("calibrated", 50, 5),
    ("calibrated", 1000, 1),
    ("calibrated", 10_000, 2),
    ("over", 50, 0),
    ("over", 10_000, 3),
    ("mixed", 50, 4),
    ("mixed", 10_000, 4),
    ("right", 500, 5),
    ("sure", 500, 6),
]  # kind, count and seed of `drawn`


def drawn(kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each is right. `sure` has the confidence 1 throughout, others 0.3 to 0.99."""
    rng = np.random.default_rng(seed)
    confidence = 0.3 + 0.69 * rng.beta(5, 2, count)
    chances = {
        "calibrated": confidence,
        "over": confidence**2,
        "mixed": confidence + 0.15 * np.sin(12 * confidence),
        "right": np.ones(count),
        "sure": np.full(count, 0.7),
    }
    right = (rng.random(count) < chances[kind]).astype(float)
    if kind == "sure":
        return np.ones(count), right
    return confidence, right


def predictions(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of an over-confident network."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), count)
    true_p = 0.7 * p + 0.3 / classes
    labels = (true_p.cumsum(1) > rng.random((count, 1))).argmax(1)
    return p, labels


def top(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The top-class confidence, and whether it is right."""
    return p.max(1), p.argmax(1) == labels


def smooth_ece_of(p: np.ndarray, labels: np.ndarray) -> float:
    return smooth_ece(*top(p, labels))


# ---- every calibration error ----


@pytest.mark.parametrize("metric", [classwise_ece, adaptive_ece, smooth_ece_of])
def test_calibration_errors_ignore_order_and_copies(metric):
    p, labels = predictions(600, 4, 0)
    value = metric(p, labels)
    assert 0 < value < 1
    order = np.random.default_rng(1).permutation(600)
    assert metric(p[order], labels[order]) == pytest.approx(value)
    copies = metric(np.repeat(p, 3, 0), np.repeat(labels, 3))
    assert copies == pytest.approx(value, abs=1e-6), "a mean, not a sum"


@pytest.mark.parametrize("metric, largest", [(classwise_ece, 2 / 4), (adaptive_ece, 1), (smooth_ece_of, 1)])
def test_calibration_errors_reach_their_extremes(metric, largest):
    _, labels = predictions(600, 4, 0)
    sure = np.eye(4)[labels]
    assert metric(sure, labels) == pytest.approx(0)
    assert metric(sure, (labels + 1) % 4) == pytest.approx(largest)


# ---- classwise ----


@pytest.mark.parametrize("bins", [10, 15])
def test_classwise_ece_is_that_of_scikit_learns_curves(bins):
    p, labels = predictions(2000, 5, 2)
    errors = []
    for k in range(5):
        share, mean = calibration_curve(labels == k, p[:, k], n_bins=bins)
        count, _ = np.histogram(p[:, k], bins, (0, 1))
        errors.append(np.dot(count[count > 0], abs(share - mean)) / 2000)
    assert classwise_ece(p, labels, bins) == pytest.approx(np.mean(errors))


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
    """Sorted: 0.6, 0.7, 0.7 | 0.7, 0.9. Of the three at 0.7, the last is in the second bin and is wrong."""
    confidence = np.array([0.9, 0.7, 0.7, 0.6, 0.7])
    labels = np.array([0, 0, 0, 1, 1])
    p = np.stack([confidence, 1 - confidence], 1)
    assert adaptive_ece(p, labels, 2) == pytest.approx((abs(2 - 2.0) + abs(1 - 1.6)) / 5)
    assert adaptive_ece(p, labels, 1) == pytest.approx(abs(3 - 3.6) / 5)
    alone = (0.1 + 0.3 + 0.3 + 0.6 + 0.7) / 5
    assert adaptive_ece(p, labels, 50) == pytest.approx(alone), "the other 45 bins are empty"


# ---- smooth ----


@pytest.mark.parametrize("kind, count, seed", SAMPLES)
def test_smooth_ece_is_the_authors(kind, count, seed):
    from relplot import smECE

    confidence, right = drawn(kind, count, seed)
    assert smooth_ece(confidence, right) == pytest.approx(smECE(confidence, right), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_ece_is_the_definition_written_out(seed):
    """On a fine mesh, with every sample's Gaussian and all its mirror images.

    Some confidences are exactly 0 or 1, and half of the seeds have a wide bandwidth.
    """
    rng = np.random.default_rng(seed)
    confidence = np.concatenate([rng.random(20), [1.0, 1.0, 0.0]])
    chance = confidence if seed < 2 else 1 - confidence
    right = rng.random(23) < chance
    mesh = (np.arange(4000) + 0.5) / 4000
    images = np.concatenate([2 * j + sign * confidence for j in range(-4, 5) for sign in (1, -1)])
    gaps = np.tile(right - confidence, 18)  # of the 18 images of each sample

    def error_at(sigma: float) -> float:
        kernel = np.exp(-(((mesh[:, None] - images) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
        return abs(kernel @ gaps).mean() / 23

    expected = brentq(lambda sigma: error_at(sigma) - sigma, 0.01, 1)
    assert smooth_ece(confidence, right) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("confidence", [0.0, 0.31, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("accuracy", [0.0, 0.4, 1.0])
def test_smooth_ece_of_one_confidence_is_its_distance_to_the_accuracy(confidence, accuracy):
    right = np.arange(50) < 50 * accuracy
    expected = abs(confidence - accuracy)
    assert smooth_ece(np.full(50, confidence), right) == pytest.approx(expected, abs=1e-4)


def test_smooth_ece_counts_samples_at_one_in_full():
    """Half have the confidence 1 and 80 % of them are right; half have 0.5 and half of them are right."""
    confidence = np.repeat([1.0, 0.5], 100)
    right = np.concatenate([np.arange(100) < 80, np.arange(100) < 50])
    assert smooth_ece(confidence, right) == pytest.approx(0.2 / 2)


@pytest.mark.parametrize("kind, count, seed", SAMPLES)
def test_smooth_ece_has_no_preferred_side_and_is_at_least_the_gap_of_the_means(kind, count, seed):
    confidence, right = drawn(kind, count, seed)
    value = smooth_ece(confidence, right)
    assert smooth_ece(1 - confidence, 1 - right) == pytest.approx(value, abs=1e-4)
    assert value >= abs(confidence.mean() - right.mean()) - 1e-6


def test_smooth_ece_of_a_calibrated_network_falls_with_the_cube_root_of_the_count():
    """Noise is 1 / sqrt(sigma N), and equal to sigma at the fixed point."""

    def mean_error(count: int) -> float:
        return np.mean([smooth_ece(*drawn("calibrated", count, seed)) for seed in range(8)])

    of_few = mean_error(3000)
    of_many = mean_error(192_000)
    assert of_few / of_many == pytest.approx(64 ** (1 / 3), rel=0.2)
    assert of_many < 0.005


def test_the_smooth_curve_is_the_mean_under_the_reflected_kernel():
    confidence, right = drawn("mixed", 10_000, 4)
    sigma = smooth_ece(confidence, right)
    curve = smooth_accuracy(confidence, right)
    shown = ~np.isnan(curve)
    expected = []
    for point in CURVE[shown]:
        mirrors = (confidence, -confidence, 2 - confidence)
        kernel = sum(np.exp(-(((point - mirror) / sigma) ** 2) / 2) for mirror in mirrors)
        expected.append((kernel * right).sum() / kernel.sum())
    assert curve[shown] == pytest.approx(np.array(expected), abs=0.01)
    assert shown[CURVE > 0.45].all() and not shown[CURVE < 0.1].any(), "there are no predictions below 0.3"


# ---- bootstrap ----


def test_resamples_are_a_function_of_seed_and_count():
    w = weights(300, 5, 7)
    assert w.shape == (5, 300)
    assert (w.sum(1) == 300).all()
    assert len(np.unique(w, axis=0)) == 5
    assert np.array_equal(w, weights(300, 5, 7)), "methods are paired"
    assert np.array_equal(w, weights(300, 9, 7)[:5]), "more resamples change none"
    assert not np.array_equal(w, weights(300, 5, 8))


def test_resamples_prefer_no_image():
    assert weights(50, 4000, 0).mean(0) == pytest.approx(np.ones(50), abs=0.08)


def test_a_resample_is_the_data_with_copies():
    p, labels = predictions(400, 3, 4)
    p[:3] = [1.0, 0.0, 0.0]  # confidences on the edges of bins
    p[3:6] = [0.7, 0.2, 0.1]
    confidence, right = top(p, labels)
    w = weights(400, 6, 0).astype(np.float64)
    copies = [np.repeat(np.arange(400), row.astype(int)) for row in w]
    for bins in (10, 15):
        expected = [ece(p[rows], labels[rows], bins) for rows in copies]
        assert ece_resampled(confidence, right, w, bins) == pytest.approx(expected)
    expected = [smooth_ece(confidence[rows], right[rows]) for rows in copies]
    assert smooth_ece_resampled(confidence, right, w) == pytest.approx(expected)


@pytest.mark.parametrize("resampled", [ece_resampled, smooth_ece_resampled])
def test_the_interval_of_one_confidence_is_the_binomials(resampled):
    """With the confidence 0.9 throughout, the error is 0.9 - accuracy, whose spread is known."""
    right = np.arange(2000) < 1400
    values = resampled(np.full(2000, 0.9), right, weights(2000, 2000, 0))
    value, low, high = estimate(np.array([0.2]), values[None])
    half = 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert value == pytest.approx(0.2, abs=0.1 * half)
    assert low == pytest.approx(0.2 - half, abs=0.1 * half)
    assert high == pytest.approx(0.2 + half, abs=0.1 * half)


def test_without_noise_of_images_the_interval_is_students():
    own = np.random.default_rng(0).normal(0.1, 0.02, 5)
    resampled = np.repeat(own[:, None], 10, 1)
    value, low, high = estimate(own, resampled)
    expected = scipy.stats.t.interval(0.95, 4, own.mean(), scipy.stats.sem(own))
    assert value == pytest.approx(own.mean())
    assert (low, high) == pytest.approx(expected)


def test_what_resampling_adds_to_an_error_is_taken_off():
    own = np.full(3, 0.05)
    resampled = 0.06 + np.random.default_rng(0).normal(0, 1e-4, (3, 5000))
    assert estimate(own, resampled).value == pytest.approx(0.04, abs=1e-5)


@pytest.mark.parametrize("resampled", [ece_resampled, smooth_ece_resampled])
def test_pairing_narrows_a_difference(resampled):
    """In two over-confident versions of a network, the draw of images adds nearly the same to both errors."""
    confidence, right = drawn("over", 1000, 0)
    w = weights(1000, 200, 0)

    def width(other_weights: np.ndarray) -> float:
        difference = resampled(confidence, right, w) - resampled(confidence**0.9, right, other_weights)
        _, low, high = estimate(np.array([0.0]), difference[None])
        return high - low

    assert width(w) < width(weights(1000, 200, 1)) / 5


def test_the_intervals_of_made_up_networks_contain_the_truth():
    """95 of 100 should, which in 300 trials are 91 to 99; of their differences to T, more do."""
    covered = coverage(World(images=450, slope=0.6, spread=0.1), trials=300, resamples=100)
    assert 0.91 <= covered["ece"]["coverage"] <= 0.99
    assert covered["difference"]["coverage"] >= 0.91


def test_resampling_raises_the_ece_of_a_calibrated_network():
    """The bias that bootstrap.py warns of: a resample has the noise of the test set and its own."""
    ratios = []
    for seed in range(5):
        confidence, right = drawn("calibrated", 1000, seed)
        (plain,) = ece_resampled(confidence, right, np.ones((1, 1000)))
        resampled = ece_resampled(confidence, right, weights(1000, 100, seed))
        ratios.append(resampled.mean() / plain)
    assert 1.2 < np.mean(ratios) < 1.8, "about sqrt(2): twice the variance"


# ---- out of distribution ----


@pytest.mark.parametrize("inside, outside", [(20, 30), (100, 100), (37, 500), (19, 7), (1, 3)])
@pytest.mark.parametrize("decimals", [1, 9])
def test_detection_is_scikit_learns(inside, outside, decimals):
    """With one decimal, most scores are tied."""
    rng = np.random.default_rng(inside)
    a = np.round(rng.beta(4, 2, inside), decimals)
    b = np.round(rng.beta(3, 3, outside), decimals)
    truth = np.repeat([1, 0], [inside, outside])
    score = np.concatenate([a, b])
    assert auroc(a, b) == pytest.approx(roc_auc_score(truth, score))
    assert auroc(b, a) == pytest.approx(1 - auroc(a, b))
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    assert fpr95(a, b) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


def test_detection_at_its_extremes():
    low = np.linspace(0, 0.4, 40)
    high = np.linspace(0.5, 1, 40)
    assert (auroc(high, low), fpr95(high, low)) == (1, 0)
    assert (auroc(low, high), fpr95(low, high)) == (0, 1)
    no_information = (np.ones(5), np.ones(9))
    assert (auroc(*no_information), fpr95(*no_information)) == (0.5, 1)


def test_the_threshold_keeps_at_least_95_percent():
    scores = np.arange(100.0)
    assert fpr95(scores, np.array([4.0, 5.0, 5.5, -1.0])) == 0.5, "the threshold is 5: 95 are at or above"


# ---- start ----


def test_metrics_start_without_torch_and_scipy():
    code = """
import sys
from stages.metrics import adaptive_ece, bootstrap, classwise_ece, ood, scores, smooth_ece
print(sorted({"torch", "scipy", "sklearn", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
