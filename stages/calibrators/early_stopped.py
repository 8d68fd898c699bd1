"""The temperature as the paper fits it: a short run of LBFGS that stops before it has converged.

Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599, equation (9);
Section 5.1 of the paper. That such a run ends early: https://github.com/gpleiss/temperature_scaling/issues/28.
"""

import math

import torch
import torch.nn.functional as F

from stages.calibrators.optimum import Fit
from stages.calibrators.settings import CalibrateSettings

__all__ = ["early_stopped"]


def early_stopped(logits: torch.Tensor, labels: torch.Tensor, settings: CalibrateSettings) -> Fit:
    """One call of LBFGS on the mean of `-log softmax(z / T)[label]`, from `settings.start`.

    The run itself knows no bounds, as in the public code; where it leaves them (on heavily masked inputs it can even
    pass through zero) the result is the bound, and `bound_hit` says so.

    Args:
        logits: `(N, K)` float32.
        labels: `(N,)` int64.
    """
    temperature = torch.tensor([settings.start], device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([temperature], lr=settings.lr, max_iter=settings.max_iter)

    def closure():
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    optimiser.step(closure)
    low, high = settings.bounds
    value = float(temperature.detach())
    if math.isfinite(value) and low < value < high:
        return Fit(value, False)
    return Fit(high if value >= high else low, True)
