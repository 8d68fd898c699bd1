"""Focal loss: cross-entropy weighted by how far the answer still is from certain.

Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollar: "Focal Loss for Dense Object Detection",
ICCV 2017, https://arxiv.org/abs/1708.02002.
"""

import torch

from stages.losses.cross_entropy import mix

__all__ = ["loss", "mix"]


def loss(logits: torch.Tensor, targets: torch.Tensor, settings) -> torch.Tensor:
    """Mean of `-(1 - p)^gamma log p` with p the probability of the target class; `(N, K)` logits, one-hot targets."""
    log_p = (logits.log_softmax(1) * targets).sum(1)
    return -((1 - log_p.exp()) ** settings.focal_gamma * log_p).mean()
