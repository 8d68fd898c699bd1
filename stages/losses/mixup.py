"""Mixup: train on convex combinations of pairs of images and of their labels.

Hongyi Zhang, Moustapha Cisse, Yann N. Dauphin, David Lopez-Paz: "mixup: Beyond Empirical Risk Minimization",
ICLR 2018, https://arxiv.org/abs/1710.09412.
"""

import numpy as np
import torch

from stages.losses.cross_entropy import loss

__all__ = ["loss", "mix"]


def mix(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, settings) -> tuple[torch.Tensor, torch.Tensor]:
    """`lambda x + (1 - lambda) x'` for images and targets, one lambda ~ Beta(alpha, alpha) a batch, x' a permutation."""
    state = int(torch.randint(2**63 - 1, (), generator=generator))
    share = float(np.random.default_rng(state).beta(settings.mixup_alpha, settings.mixup_alpha))
    other = torch.randperm(len(images), generator=generator).to(images.device)
    return share * images + (1 - share) * images[other], share * targets + (1 - share) * targets[other]
