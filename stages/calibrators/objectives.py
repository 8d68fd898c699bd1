"""What one temperature can be fitted to, beside the NLL: exact solutions in one dimension.

Brier's score: G. W. Brier: "Verification of forecasts expressed in terms of probability", Monthly Weather
Review 78, 1950. A mean confidence that is brought to the accuracy: Lucas Clarté, Bruno Loureiro, Florent
Krzakala, Lenka Zdeborová: "Expectation consistency for calibration of neural networks", UAI 2023,
https://arxiv.org/abs/2303.02644.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from stages.calibrators.optimum import Fit, optimum
from stages.metrics.scores import accuracy, brier, log_softmax

__all__ = ["OBJECTIVES", "at_confidence", "by_brier", "by_confidence", "by_top_label_brier"]

POINTS = 61  # of the grid that brackets the lowest minimum: a tenth apart in log T between 0.05 and 20
PRECISION = 1e-7  # of log T


def by_brier(logits: np.ndarray, labels: np.ndarray, bounds: Sequence[float]) -> Fit:
    """The T within `bounds` that minimises the mean Brier score of `softmax(z / T)`.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` integers.
    """

    def loss(temperature: float) -> float:
        return brier(_probabilities(logits, temperature), labels)

    return _minimum(loss, bounds)


def by_top_label_brier(logits: np.ndarray, labels: np.ndarray, bounds: Sequence[float]) -> Fit:
    """The T that minimises the mean of `(confidence - [top class is right])^2`. Arguments as above."""
    is_right = logits.argmax(1) == labels

    def loss(temperature: float) -> float:
        confidence = _probabilities(logits, temperature).max(1)
        return float(((confidence - is_right) ** 2).mean())

    return _minimum(loss, bounds)


def by_confidence(logits: np.ndarray, labels: np.ndarray, bounds: Sequence[float]) -> Fit:
    """The T at which the mean confidence is the accuracy. Arguments as above."""
    return at_confidence(logits, accuracy(logits, labels), bounds)


def at_confidence(logits: np.ndarray, share: float, bounds: Sequence[float]) -> Fit:
    """The T within `bounds` at which the mean confidence of `softmax(z / T)` is a given share.

    The mean confidence falls with T, so there is one such T, or the nearest is a bound.
    """
    low, high = bounds

    def excess(log_temperature: float) -> float:
        confidence = _probabilities(logits, np.exp(log_temperature)).max(1)
        return float(confidence.mean()) - share

    if excess(np.log(low)) <= 0:
        return Fit(low, True)
    if excess(np.log(high)) >= 0:
        return Fit(high, True)
    root = brentq(excess, np.log(low), np.log(high), xtol=PRECISION)
    return Fit(float(np.exp(root)), False)


def _probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    return np.exp(log_softmax(logits / temperature))


def _minimum(loss: Callable[[float], float], bounds: Sequence[float]) -> Fit:
    """The lowest minimum of a loss that may have several: Brent's method around the best point of a grid."""
    grid = np.linspace(np.log(bounds[0]), np.log(bounds[1]), POINTS)
    losses = [loss(float(np.exp(x))) for x in grid]
    best = int(np.argmin(losses))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, POINTS - 1)])
    options = {"xatol": PRECISION}
    brent = minimize_scalar(
        lambda x: loss(float(np.exp(x))), bounds=around, method="bounded", options=options
    )
    if brent.fun < losses[best]:
        return Fit(float(np.exp(brent.x)), False)
    if best == 0:
        return Fit(bounds[0], True)
    if best == POINTS - 1:
        return Fit(bounds[1], True)
    return Fit(float(np.exp(grid[best])), False)


OBJECTIVES: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[float]], Fit]] = {
    "nll": optimum,
    "brier": by_brier,
    "top_label_brier": by_top_label_brier,
    "confidence": by_confidence,
}
