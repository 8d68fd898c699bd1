"""The temperature as the paper fits it: by a short run of LBFGS, which stops before it has converged.

Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
equation (9); Section 5.1 of the paper, which has the step size 0.02 but no number of iterations: Section 6
says "only one step". The 50 iterations are those of its first author's public fork. Others have also seen
that such a run ends early: https://github.com/gpleiss/temperature_scaling/issues/28.
"""

import math
from collections.abc import Sequence

import numpy as np

from stages.calibrators.optimum import Fit, at_labels
from stages.settings.calibrate import CalibrateSettings

__all__ = ["early_stopped", "lbfgs_path", "within"]

# torch.optim.LBFGS's tolerances of the gradient and of changes, and the least curvature that it believes.
TOLERANCE_GRAD = 1e-7
TOLERANCE_CHANGE = 1e-9
LEAST_CURVATURE = 1e-10  # the step times the change of the slope


def early_stopped(logits: np.ndarray, labels: np.ndarray, settings: CalibrateSettings) -> Fit:
    """One call of LBFGS on the mean of `-log softmax(z / T)[label]`, beginning at `settings.start`.

    With soft labels t, the loss is the mean of `-sum_k t_k log softmax(z / T)_k`.

    Args:
        logits: `(N, K)`, any float type.
        labels: `(N,)` integers, or `(N, K)` probabilities.
    """
    path = lbfgs_path(logits, labels, settings.start, settings.lr, settings.max_iter)
    return within(path[-1], settings.bounds)


def within(temperature: float, bounds: Sequence[float]) -> Fit:
    """The temperature as a fit: where the run has left the bounds, the result is the bound.

    The run itself has no bounds, as in the public code; it can even pass through zero.
    """
    low, high = bounds
    if math.isfinite(temperature) and low < temperature < high:
        return Fit(temperature, False)
    nearest = high if temperature >= high else low
    return Fit(nearest, True)


def lbfgs_path(logits: np.ndarray, labels: np.ndarray, start: float, lr: float, max_iter: int) -> list[float]:
    """T after 0, 1, ... iterations of `torch.optim.LBFGS([T], lr, max_iter)`, in float64.

    With a single unknown, LBFGS is the secant method, whatever its memory: the latest two points give the
    curvature, and a step goes `lr` of the way to where the slope would vanish. The conditions for stopping
    are PyTorch's. The iterations do not depend on `max_iter`, so a long path contains all shorter runs of at
    least 4 iterations.
    """
    z = logits.astype(np.float64)
    z = z - at_labels(z, labels)[:, None]
    temperature = start
    path = [temperature]
    max_evaluations = max_iter * 5 // 4
    loss, slope = _loss_and_slope(z, temperature)
    if not abs(slope) > TOLERANCE_GRAD:
        return path
    inverse_curvature = 1.0
    for iteration in range(max_iter):
        step = -slope * inverse_curvature * lr
        if iteration == 0:
            step *= min(1, 1 / abs(slope))
        if slope * step > -TOLERANCE_CHANGE * lr:
            break
        temperature += step
        path.append(temperature)
        loss_before = loss
        slope_before = slope
        loss, slope = _loss_and_slope(z, temperature)
        is_moving = abs(step) > TOLERANCE_CHANGE and abs(loss - loss_before) >= TOLERANCE_CHANGE
        evaluations = iteration + 2  # of the loss
        if not (abs(slope) > TOLERANCE_GRAD and is_moving and evaluations < max_evaluations):
            break
        if (slope - slope_before) * step > LEAST_CURVATURE:
            inverse_curvature = step / (slope - slope_before)
    return path


def _loss_and_slope(z: np.ndarray, temperature: float) -> tuple[float, float]:
    """The mean loss and its derivative by T.

    Args:
        z: `(N, K)` logits minus that of the label, as `at_labels` has it.
    """
    with np.errstate(all="ignore"):  # T may be on its way out of all bounds
        scaled = z / temperature
        shift = scaled.max(1, keepdims=True)
        p = np.exp(scaled - shift)
        total = p.sum(1)
        loss = np.log(total) + shift[:, 0]
        mean_z = (p * z).sum(1) / total
        slope = -float(mean_z.mean()) / temperature**2
    return float(loss.mean()), slope
