"""The temperature as the paper fits it: a short run of LBFGS that stops before it has converged.

Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599, equation (9);
Section 5.1 of the paper. That such a run ends early: https://github.com/gpleiss/temperature_scaling/issues/28.
"""

import math

import numpy as np

from stages.calibrators.optimum import Fit
from stages.calibrators.settings import CalibrateSettings

__all__ = ["early_stopped", "lbfgs_path", "within"]

FLAT = 1e-7  # torch.optim.LBFGS's tolerance_grad
STILL = 1e-9  # and its tolerance_change
CONVEX = 1e-10  # y * s above which it believes a pair


def early_stopped(logits: np.ndarray, labels: np.ndarray, settings: CalibrateSettings) -> Fit:
    """One call of LBFGS on the mean of `-log softmax(z / T)[label]`, from `settings.start`.

    Args:
        logits: `(N, K)`, any float type.
        labels: `(N,)` integers.
    """
    return within(lbfgs_path(logits, labels, settings.start, settings.lr, settings.max_iter)[-1], settings.bounds)


def within(temperature: float, bounds: tuple[float, float]) -> Fit:
    """A run knows no bounds, as in the public code; where it left them (it can pass through zero) the result is the bound."""
    low, high = bounds
    if math.isfinite(temperature) and low < temperature < high:
        return Fit(temperature, False)
    return Fit(high if temperature >= high else low, True)


def lbfgs_path(logits: np.ndarray, labels: np.ndarray, start: float, lr: float, max_iter: int) -> list[float]:
    """T after 0, 1, ... iterations of `torch.optim.LBFGS([T], lr, max_iter)`, in float64.

    For a single unknown LBFGS is the secant method, whatever its memory: the latest pair of points gives the curvature,
    and a step goes `lr` of the way to where the slope would vanish. The conditions for stopping are PyTorch's. Iterations
    do not depend on `max_iter`, so one long path has all shorter runs in it (from 4 iterations on).
    """
    z = logits.astype(np.float64) - logits[np.arange(len(labels)), labels, None]
    temperature, inverse_curvature, path = start, 1.0, [start]
    loss, slope = _loss_and_slope(z, temperature)
    for i in range(max_iter if abs(slope) > FLAT else 0):
        move = -slope * inverse_curvature * lr * (min(1, 1 / abs(slope)) if i == 0 else 1)
        if slope * move > -STILL * lr:
            break
        temperature += move
        path.append(temperature)
        before = loss, slope
        loss, slope = _loss_and_slope(z, temperature)
        if not (abs(slope) > FLAT and abs(move) > STILL and abs(loss - before[0]) >= STILL and i + 2 < max_iter * 5 // 4):
            break
        if (slope - before[1]) * move > CONVEX:
            inverse_curvature = move / (slope - before[1])
    return path


def _loss_and_slope(z: np.ndarray, temperature: float) -> tuple[float, float]:
    """The mean loss and its derivative by T, from `(N, K)` logits minus that of the label."""
    with np.errstate(all="ignore"):  # T may be on its way out of all bounds
        scaled = z / temperature
        shift = scaled.max(1, keepdims=True)
        p = np.exp(scaled - shift)
        total = p.sum(1)
        loss = np.log(total) + shift[:, 0]
        return float(loss.mean()), -float(((p * z).sum(1) / total).mean()) / temperature**2
