"""Focal loss whose weight passes no gradient: p is held constant in `(1 - p)^gamma`.

So it is in a widely copied implementation, https://github.com/clcarwin/focal_loss_pytorch (its issue 5). The
value is that of `focal.py`; the gradient lacks the term that comes from the weight.
"""

import torch

from stages.losses.cross_entropy import mix

__all__ = ["NEEDS_CLASSES", "loss", "mix"]

NEEDS_CLASSES = True  # p is the probability of one right class, which soft labels do not name


def loss(logits: torch.Tensor, targets: torch.Tensor, settings) -> torch.Tensor:
    """Mean of `-(1 - p)^gamma log p`, where p is the probability of the right class.

    Its gradient is the mean of `-(1 - p)^gamma` times the gradient of `log p`.

    Args:
        logits: `(N, K)`.
        targets: `(N, K)`, one-hot.
        settings: with `focal_gamma`.
    """
    log_p = (logits.log_softmax(1) * targets).sum(1)
    weight = (1 - log_p.detach().exp()) ** settings.focal_gamma
    return -(weight * log_p).mean()
