"""Differences between networks, each with its 95 % interval: `(value, low, high)`.

The bounds are NaN where there are too few networks for them.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

__all__ = ["Interval", "apart", "interval", "paired"]

LEVEL = 0.975  # the upper end of a two-sided 95 % interval

Interval = tuple[float, float, float]


def paired(values: Sequence[float] | np.ndarray, beside: Sequence[float] | np.ndarray) -> Interval:
    """Mean difference of networks with the same number, and its interval by Student's t."""
    if len(values) != len(beside):
        return apart(values, beside)
    return interval(np.subtract(values, beside))


def apart(values: Sequence[float] | np.ndarray, beside: Sequence[float] | np.ndarray) -> Interval:
    """Difference of the means of networks that have nothing in common, and its interval by Welch's t."""
    difference = float(np.mean(values) - np.mean(beside))
    if min(len(values), len(beside)) < 2:
        return difference, np.nan, np.nan
    parts = np.array([np.var(numbers, ddof=1) / len(numbers) for numbers in (values, beside)])
    variance = parts.sum()
    if variance == 0:
        return difference, difference, difference
    freedom = variance**2 / (parts**2 / [len(values) - 1, len(beside) - 1]).sum()
    half = float(stdtrit(freedom, LEVEL) * np.sqrt(variance))
    return difference, difference - half, difference + half


def interval(values: np.ndarray, of_images: float = 0.0) -> Interval:
    """Mean of one number a network, and its interval by Student's t.

    Args:
        of_images: the variance of the mean over test images, which all networks share. One network has
            no other.
    """
    mean = float(values.mean())
    if len(values) < 2 and not of_images:
        return mean, np.nan, np.nan
    of_networks = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
    variance = of_networks + of_images
    freedom = np.inf
    if of_networks > 0:
        freedom = (len(values) - 1) * (variance / of_networks) ** 2
    half = float(stdtrit(freedom, LEVEL) * np.sqrt(variance))
    return mean, mean - half, mean + half
