"""The temperature that minimises the negative log-likelihood, exactly."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

__all__ = ["Fit", "optimum"]


class Fit(NamedTuple):
    temperature: float
    bound_hit: bool  # the fit wanted to go beyond the bounds


def optimum(logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float]) -> Fit:
    """Minimiser over T of the mean of `-log softmax(z / T)[label]` within `bounds`.

    The loss is convex in b = 1/T with slope `mean(E_p[z] - z[label])`, which rises with b; the minimum is its root.
    On logits that are all right the slope stays negative, and T runs down to the bound.

    Args:
        logits: `(N, K)`, any float type; computed in float64.
        labels: `(N,)` integers.
        bounds: lowest and highest temperature, both > 0.
    """
    z = logits.astype(np.float64)
    z = z - z[np.arange(len(labels)), labels][:, None]  # relative to the label's logit: the slope is E_p[z]

    def slope(b: float) -> float:
        p = np.exp(b * z - (b * z).max(1, keepdims=True))
        return float(((p * z).sum(1) / p.sum(1)).mean())

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope(low) >= 0:
        return Fit(bounds[1], True)
    if slope(high) <= 0:
        return Fit(bounds[0], True)
    return Fit(1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-10), False)
