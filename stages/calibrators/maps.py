"""Maps that are richer than one temperature: vector scaling, and isotonic regression of the confidence.

Vector scaling: Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599. Isotonic regression: Bianca Zadrozny, Charles Elkan: "Transforming
classifier scores into accurate multiclass probability estimates", KDD 2002,
https://doi.org/10.1145/775047.775151.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from stages.metrics.scores import log_softmax

__all__ = ["VectorScaling", "isotonic", "vector_scaling"]

MAX_STEPS = 2000  # of LBFGS
GRADIENT = 1e-7  # the largest element of the gradient of the mean NLL at which LBFGS may stop
CHANGE = 1e-13  # the relative change of the mean NLL at which it stops


class VectorScaling(NamedTuple):
    """`z_k -> scale_k * z_k + shift_k`."""

    scale: np.ndarray  # (K,)
    shift: np.ndarray  # (K,)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """From logits `(N, K)` to logits `(N, K)`; the top class may become another one."""
        return logits * self.scale + self.shift


def vector_scaling(logits: np.ndarray, labels: np.ndarray) -> VectorScaling:
    """The scale and the shift of each class that minimise the mean NLL, which is convex in them.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` integers.
    """
    z = logits.astype(np.float64)
    count, classes = z.shape
    target = np.zeros_like(z)
    target[np.arange(count), labels] = 1

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = values.reshape(2, classes)
        log_p = log_softmax(z * scale + shift)
        error = (np.exp(log_p) - target) / count
        loss = -float((log_p * target).sum()) / count
        return loss, np.concatenate([(error * z).sum(0), error.sum(0)])

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "gtol": GRADIENT, "ftol": CHANGE}
    result = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    scale, shift = result.x.reshape(2, classes)
    return VectorScaling(scale, shift)


def isotonic(confidence: np.ndarray, right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A map of the top-class confidence: of all that never fall, the one with the least squared error.

    Args:
        confidence: `(N,)`.
        right: `(N,)` bool, whether the top class is the label.
    """
    from sklearn.isotonic import IsotonicRegression  # not at the start: it takes a second

    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return regression.fit(confidence, right.astype(float)).predict
