"""Mixup: networks are trained on convex combinations of pairs of images and of their targets.

Hongyi Zhang, Moustapha Cisse, Yann N. Dauphin, David Lopez-Paz: "mixup: Beyond Empirical Risk Minimization",
ICLR 2018, https://arxiv.org/abs/1710.09412.
"""

import numpy as np
import torch

from stages.losses.cross_entropy import loss

__all__ = ["loss", "mix"]


def mix(
    images: torch.Tensor, targets: torch.Tensor, draws: torch.Generator, settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """`lambda x + (1 - lambda) x'` for the images and the targets of a batch.

    A batch has one lambda ~ Beta(alpha, alpha), with `settings.mixup_alpha`, and x' is a permutation of
    the batch.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=draws))
    share = float(np.random.default_rng(seed).beta(settings.mixup_alpha, settings.mixup_alpha))
    partners = torch.randperm(len(images), generator=draws).to(images.device)
    mixed_images = share * images + (1 - share) * images[partners]
    mixed_targets = share * targets + (1 - share) * targets[partners]
    return mixed_images, mixed_targets
