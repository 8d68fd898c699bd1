"""The temperature that minimises the negative log-likelihood, exactly."""

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Fit", "optimum"]


class Fit(NamedTuple):
    temperature: float
    bound_hit: bool  # the fit wanted to go beyond the bounds


def optimum(logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float]) -> Fit:
    """Minimiser over T of the mean of `-log softmax(z / T)[label]` within `bounds`.

    The loss is convex in b = 1/T: its slope is `mean(E_p[z] - z[label])` and its curvature `mean(Var_p[z])`. The root of
    the slope is found by Newton's steps, or by halving the bracket (in its logarithm) where a step would leave it. On
    logits that are all right the slope stays negative, and T runs down to the bound.

    Args:
        logits: `(N, K)`, any float type; computed in float64.
        labels: `(N,)` integers.
        bounds: lowest and highest temperature, both > 0.
    """
    z = logits.astype(np.float64)
    z = z - z[np.arange(len(labels)), labels][:, None]  # relative to the label's logit: the slope is E_p[z]

    def slope_and_curvature(b: float) -> tuple[float, float]:
        p = np.exp(b * z - (b * z).max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        return float(mean.mean()), float(((p * z**2).sum(1) - mean**2).mean())

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope_and_curvature(low)[0] >= 0:
        return Fit(bounds[1], True)
    if slope_and_curvature(high)[0] <= 0:
        return Fit(bounds[0], True)
    b = math.sqrt(low * high)
    for _ in range(200):  # about ten are enough; halving alone would take fifty
        slope, curvature = slope_and_curvature(b)
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else low
        following = step if low < step < high else math.sqrt(low * high)
        done, b = abs(following - b) <= 1e-12 * b, following
        if done:
            break
    return Fit(1 / b, False)
