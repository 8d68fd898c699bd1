"""The temperature that minimises the negative log-likelihood, exactly."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

__all__ = ["Fit", "optimum"]

SOME = 2000  # images that many are begun with
CACHED = 2**20  # bytes of a part


class Fit(NamedTuple):
    temperature: float
    bound_hit: bool  # the fit wanted to go beyond the bounds


def optimum(logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float]) -> Fit:
    """Minimiser over T of the mean of `-log softmax(z / T)[label]` within `bounds`.

    The loss is convex in b = 1/T: its slope is `mean(E_p[z] - z[label])` and its curvature `mean(Var_p[z])`. The root of
    the slope is found by Newton's steps, or by halving a bracket (in its logarithm) where a step would leave it. Many
    images are begun where a few of them end. On logits that are all right the slope stays negative, and T runs down to
    the bound.

    Args:
        logits: `(N, K)`, any float type; exponentials in float64, or in float32 where the logits are no more precise (T is
            then good to about 1e-6), sums in float64.
        labels: `(N,)` integers.
        bounds: lowest and highest temperature, both > 0.
    """
    low, high = 1 / bounds[1], 1 / bounds[0]
    b, precision = math.sqrt(low * high), 1e-12 if logits.dtype == np.float64 else 1e-6
    if len(labels) > 2 * SOME:
        few = slice(None, None, len(labels) // SOME)
        b = 1 / optimum(logits[few], labels[few], bounds).temperature
    below, above = None, None  # where the slope is known to be negative, and positive
    for _ in range(200):  # about five are enough; halving alone would take fifty
        slope, curvature = _slope_and_curvature(logits, labels, b)
        falling = slope < 0 or slope == curvature == 0  # both vanish where all images are right by far
        below, above = (b, above) if falling else (below, b)
        if falling and b == high:
            return Fit(bounds[0], True)
        if not falling and b == low:
            return Fit(bounds[1], True)
        following = b - slope / curvature if curvature > 0 else (high if falling else low)
        following = min(max(following, low), high)
        if not (below or 0) < following < (above or math.inf):
            following = math.sqrt((below or low) * (above or high))
        if abs(following - b) <= precision * b:
            return Fit(1 / following, False)
        b = following
    return Fit(1 / b, False)


def _slope_and_curvature(logits: np.ndarray, labels: np.ndarray, b: float) -> tuple[float, float]:
    """Of the mean loss at b = 1/T, from parts that fit a core's cache, on all cores."""
    rows = max(1, CACHED // (logits.shape[1] * 8))

    def part(first: int) -> tuple[float, float]:
        z = logits[first : first + rows]
        z = z - z[np.arange(len(z)), labels[first : first + rows]][:, None]  # the slope is E_p[z], without cancellation
        p = z - z.max(1, keepdims=True)
        p *= z.dtype.type(b)
        np.exp(p, out=p)
        total = p.sum(1, dtype=np.float64)
        p *= z
        mean = p.sum(1, dtype=np.float64) / total
        p *= z
        square = p.sum(1, dtype=np.float64) / total
        return float(mean.sum()), float((square - mean**2).sum())

    starts = range(0, len(labels), rows)
    if len(starts) == 1:
        parts = [part(0)]
    else:
        with ThreadPoolExecutor() as pool:  # NumPy lets go of the interpreter while it works
            parts = list(pool.map(part, starts))
    slope, curvature = np.sum(parts, axis=0) / len(labels)
    return float(slope), float(curvature)
