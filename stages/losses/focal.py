"""Focal loss: cross-entropy with a weight that is smaller the surer a network is of the right class.

Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollar: "Focal Loss for Dense Object Detection",
ICCV 2017, https://arxiv.org/abs/1708.02002.
"""

import torch

from stages.losses.cross_entropy import mix

__all__ = ["NEEDS_CLASSES", "loss", "mix"]

NEEDS_CLASSES = True  # p is the probability of one right class, which soft labels do not name


def loss(logits: torch.Tensor, targets: torch.Tensor, settings) -> torch.Tensor:
    """Mean of `-(1 - p)^gamma log p`, where p is the probability of the right class.

    Args:
        logits: `(N, K)`.
        targets: `(N, K)`, one-hot.
        settings: with `focal_gamma`.
    """
    log_p = (logits.log_softmax(1) * targets).sum(1)
    weight = (1 - log_p.exp()) ** settings.focal_gamma
    return -(weight * log_p).mean()
