"""Intervals of calibration errors: how much an error depends on which networks were trained and on which test
images were drawn.

Two things vary, and both at once: another training gives another network, and another test set gives all
networks other images. The images are resampled: Bradley Efron, "Bootstrap Methods: Another Look at the
Jackknife", Annals of Statistics 7(1), 1979, https://doi.org/10.1214/aos/1176344552. Five networks are too few
to be resampled, as this makes intervals too narrow (Tim Hesterberg, "What Teachers Should Know About the
Bootstrap", 2015, https://doi.org/10.1080/00031305.2015.1089789); their variance is taken as it is, and the
interval is Student's, with the degrees of freedom of F. E. Satterthwaite, "An Approximate Distribution of
Estimates of Variance Components", Biometrics Bulletin 2(6), 1946, https://doi.org/10.2307/3002019.

An interval serves to say what an error is, or to compare two methods by the difference of their errors:

    w = weights(len(labels), 2000, seed)
    one = estimate(own_errors, resampled_errors)
    difference = estimate(own - other_own, resampled - other_resampled)

A calibration error is a sum of absolute values, which noise can only raise. A resample has its own noise on
top of the test set's, so what resampling adds to an error tells what the test set has added to it: the
estimate has that taken off. It is not enough where the true error is far below the noise of the test set:
`benchmarks/coverage.py` measures how often an interval contains the truth, on made-up networks. In
reports/benchmarks/coverage.json that is 91 to 97 times in 100 for an ECE of 3 % and more, but 59 to 78 times
for one of 0.4 %, and 78 to 100 times for a difference.
"""

from typing import NamedTuple

import numpy as np

from stages.metrics.ece import bin_of
from stages.metrics.smooth_ece import fixed_point, residuals

__all__ = ["Estimate", "ece_resampled", "estimate", "smooth_ece_resampled", "weights"]


class Estimate(NamedTuple):
    """A mean over networks without its bias, and the interval around it, which always contains it."""

    value: float
    low: float
    high: float


def weights(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each resample: `(resamples, count)` float32, each row of sum `count`.

    Row i depends on `seed`, `count` and i alone, so methods with the same test images are resampled alike.
    """
    draws = np.random.default_rng([seed, count])
    drawn = np.empty((resamples, count), np.float32)
    for row in drawn:
        row[:] = np.bincount(draws.integers(0, count, count), minlength=count)
    return drawn


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
    gaps_by_bin = np.where(is_in_bin, gaps, 0).astype(weights.dtype)
    sums = np.abs(weights @ gaps_by_bin).sum(1, dtype=np.float64)
    return sums / weights.sum(1, dtype=np.float64)


def smooth_ece_resampled(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The smECE of each resample, with a bandwidth of its own. Arguments and result are as above."""
    return fixed_point(residuals(confidence, right, weights))


def estimate(own: np.ndarray, resampled: np.ndarray, level: float = 0.95) -> Estimate:
    """The mean error of networks like these on images like these, in the unit of the errors.

    Of a single network, the interval is over test images alone.

    Args:
        own: `(S,)`, the error of each network on the test images.
        resampled: `(S, R)`, its error on each resample of the test images.
        level: the share of intervals that are to contain the truth.
    """
    from scipy.special import stdtrit  # late, as most callers of this module need no scipy

    mean_of_resample = resampled.mean(0)
    bias = mean_of_resample.mean() - own.mean()
    of_images = mean_of_resample.var(ddof=1)
    of_networks = own.var(ddof=1) / len(own) if len(own) > 1 else 0.0
    variance = of_images + of_networks
    freedom = np.inf
    if of_networks > 0:
        freedom = (len(own) - 1) * (variance / of_networks) ** 2
    half = float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance))
    value = float(own.mean() - bias)
    return Estimate(value, value - half, value + half)
