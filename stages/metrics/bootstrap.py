"""Bootstrap intervals of calibration errors: how much an error depends on which test images were drawn.

Bradley Efron: "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979,
https://doi.org/10.1214/aos/1176344552. The percentile interval is chapter 13 of Efron and Robert
Tibshirani, "An Introduction to the Bootstrap", 1993.

An interval serves to compare two methods on the same test images, by the difference of their errors:

    w = weights(len(labels), 1000, seed)
    low, high = interval(ece_resampled(*raw, w) - ece_resampled(*scaled, w))

It is no interval for the true ECE. A calibration error is a sum of absolute values, which noise can only
raise, and a resample has its own noise on top of the test set's. So resampled errors are above the test
set's own error, most of all for a well calibrated network, and their interval may miss it. In a difference
this cancels if both methods are about equally well calibrated; otherwise it pulls the difference towards
zero. In 100 simulated test sets of 10,000 images, the interval contained the true difference in 96 cases
where both methods had an ECE of 0.02, one over- and one under-confident, but in only 23 cases where one had
an ECE of 0 and the other 0.05; it had the right sign in all 100. It says nothing about training seeds;
repeats do.
"""

import numpy as np

from stages.metrics.ece import bin_of
from stages.metrics.smooth_ece import fixed_point, residuals

__all__ = ["ece_resampled", "interval", "smooth_ece_resampled", "weights"]


def weights(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each resample: `(resamples, count)` float64, each row of sum `count`.

    Row i depends on `seed`, `count` and i alone, so methods with the same test images are resampled alike.
    """
    draws = np.random.default_rng([seed, count])
    probabilities = np.full(count, 1 / count)
    return draws.multinomial(count, probabilities, resamples).astype(float)


def ece_resampled(
    confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = 10
) -> np.ndarray:
    """The ECE of each resample: `sum_b |sum over i in b of w_i (right_i - confidence_i)| / sum_i w_i`.

    Args:
        confidence: `(N,)`, of the top class.
        right: `(N,)`, 1 where the top class is the label.
        weights: `(R, N)`.
        bins: number of bins, which are those of `ece`.

    Returns:
        `(R,)`.
    """
    is_in_bin = bin_of(confidence, bins)[:, None] == np.arange(bins)
    gaps = (right - confidence)[:, None]
    gaps_by_bin = np.where(is_in_bin, gaps, 0)
    return np.abs(weights @ gaps_by_bin).sum(1) / weights.sum(1)


def smooth_ece_resampled(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The smECE of each resample, with a bandwidth of its own. Arguments and result are as above."""
    return fixed_point(residuals(confidence, right, weights))


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval: the ends of the middle `level` of the resampled values, in their unit."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
