"""The temperature that minimises the negative log-likelihood, exactly."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

__all__ = ["Fit", "as_lists", "at_labels", "optimum"]

SUBSET = 2000  # images, roughly, of the subset that gives the start
CACHE = 2**20  # bytes of float64 logits that fit a core's cache
MAX_STEPS = 200  # about 5 are needed; halving the bracket alone would need 50


class Fit(NamedTuple):
    """The result of a fit."""

    temperature: float
    bound_hit: bool  # whether the fit wanted to go beyond the bounds


def as_lists(fits: Sequence[Fit]) -> dict[str, list]:
    """The fits of several networks, as results have them."""
    return {
        "temperature": [fit.temperature for fit in fits],
        "bound_hit": [fit.bound_hit for fit in fits],
    }


class Bracket:
    """Where the root of an increasing function is known to be, from the signs that have been seen."""

    def __init__(self, low: float, high: float):
        self.low = low  # the root is searched between low and high
        self.high = high
        self.below: float | None = None  # the latest point at which the function was negative
        self.above: float | None = None  # the latest point at which it was not

    def narrow(self, point: float, is_negative: bool) -> None:
        if is_negative:
            self.below = point
        else:
            self.above = point

    def contains(self, point: float) -> bool:
        return (self.below or 0) < point < (self.above or math.inf)

    def middle(self) -> float:
        """The geometric mean of the ends."""
        return math.sqrt((self.below or self.low) * (self.above or self.high))

    def clipped(self, point: float) -> float:
        return min(max(point, self.low), self.high)


def optimum(logits: np.ndarray, labels: np.ndarray, bounds: Sequence[float]) -> Fit:
    """The T within `bounds` that minimises the mean of `-log softmax(z / T)[label]`.

    The loss is convex in b = 1/T: its slope is `mean(E_p[z] - z[label])`, its curvature `mean(Var_p[z])`. The
    root of the slope is found by Newton's steps, or by halving a bracket where a step would leave it. With
    many images, the optimum on a subset of them is the start. Where all predictions are right, the slope
    stays negative and T runs down to its bound.

    With soft labels t, the loss is the mean of `-sum_k t_k log softmax(z / T)_k`, and `sum_k t_k z_k` takes
    the place of z[label].

    Args:
        logits: `(N, K)`, any float type. Exponentials have the type of the logits, sums are float64. From
            float32 logits, T is good to about 1e-6.
        labels: `(N,)` integers, or `(N, K)` probabilities.
        bounds: lowest and highest temperature, both > 0.
    """
    bracket = Bracket(1 / bounds[1], 1 / bounds[0])
    precision = 1e-12 if logits.dtype == np.float64 else 1e-6  # relative, of b
    b = bracket.middle()
    if len(labels) > 2 * SUBSET:
        every = len(labels) // SUBSET
        b = 1 / optimum(logits[::every], labels[::every], bounds).temperature
    for _ in range(MAX_STEPS):
        slope, curvature = _slope_and_curvature(logits, labels, b)
        is_falling = slope < 0 or slope == curvature == 0  # both vanish where all images are right by far
        if is_falling and b == bracket.high:
            return Fit(bounds[0], True)
        if not is_falling and b == bracket.low:
            return Fit(bounds[1], True)
        bracket.narrow(b, is_falling)
        if curvature > 0:
            following = bracket.clipped(b - slope / curvature)  # Newton's step
        else:
            following = bracket.high if is_falling else bracket.low
        if not bracket.contains(following):
            following = bracket.middle()
        if abs(following - b) <= precision * b:
            return Fit(1 / following, False)
        b = following
    return Fit(1 / b, False)


def at_labels(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logit of each image's class; with soft labels, the mean of its logits under their probabilities.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` integers, or `(N, K)` probabilities.

    Returns:
        `(N,)` of the type of the logits.
    """
    if labels.ndim == 1:
        return logits[np.arange(len(labels)), labels]
    means = np.einsum("nk,nk->n", logits, labels, dtype=np.float64)
    return means.astype(logits.dtype)


def _slope_and_curvature(logits: np.ndarray, labels: np.ndarray, b: float) -> tuple[float, float]:
    """Of the mean loss, by b = 1/T. The cores share the images, in parts that fit a core's cache."""
    rows = max(1, CACHE // (logits.shape[1] * 8))  # 8 bytes a float64
    starts = range(0, len(labels), rows)
    sums_of_part = partial(_sums, logits, labels, b, rows)
    if len(starts) == 1:
        sums = [sums_of_part(0)]
    else:
        with ThreadPoolExecutor() as pool:  # NumPy releases the interpreter's lock while it works
            sums = list(pool.map(sums_of_part, starts))
    slope, curvature = np.sum(sums, axis=0) / len(labels)
    return float(slope), float(curvature)


def _sums(logits: np.ndarray, labels: np.ndarray, b: float, rows: int, first: int) -> tuple[float, float]:
    """The sums of `E_p[z] - z[label]` and of `Var_p[z]` over `rows` images, beginning with image `first`."""
    z = logits[first : first + rows]
    at_label = at_labels(z, labels[first : first + rows])
    z = z - at_label[:, None]  # so that E_p[z] is the slope, without cancellation
    p = z - z.max(1, keepdims=True)
    p *= z.dtype.type(b)
    np.exp(p, out=p)
    total = p.sum(1, dtype=np.float64)
    p *= z
    mean = p.sum(1, dtype=np.float64) / total
    p *= z
    mean_square = p.sum(1, dtype=np.float64) / total
    variance = mean_square - mean**2
    return float(mean.sum()), float(variance.sum())
