"""Mixup: networks are trained on convex combinations of pairs of images and of their targets.

Hongyi Zhang, Moustapha Cisse, Yann N. Dauphin, David Lopez-Paz: "mixup: Beyond Empirical Risk Minimization",
ICLR 2018, https://arxiv.org/abs/1710.09412.
"""

import math

import numpy as np
import torch

from stages.losses.cross_entropy import loss

__all__ = ["draw", "loss", "mix"]


def draw(count: int, draws: torch.Generator, settings) -> dict[str, torch.Tensor]:
    """What `mix` needs for a batch of `count` images.

    Returns:
        `shares`: `(2,)`, lambda ~ Beta(alpha, alpha), with `settings.mixup_alpha`, and 1 - lambda.
        `partners`: `(count,)`, a permutation of the batch.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=draws))
    share = float(np.random.default_rng(seed).beta(settings.mixup_alpha, settings.mixup_alpha))
    partners = torch.randperm(count, generator=draws)
    return {"shares": torch.tensor([share, 1 - share]), "partners": partners}


def mix(
    images: torch.Tensor, targets: torch.Tensor, drawn: dict[str, torch.Tensor], settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """`lambda x + (1 - lambda) x'` for images `(..., N, C, H, W)` and targets `(..., N, K)`."""
    return _mixed(images, drawn), _mixed(targets, drawn)


def _mixed(values: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
    partners = drawn["partners"]  # (..., N)
    *batches, count = partners.shape
    number = math.prod(batches)
    first = torch.arange(0, number * count, count, device=values.device).view(*batches, 1)
    of_partners = values.flatten(0, len(batches))[partners + first]
    own, other = drawn["shares"].unbind(-1)
    ones = [1] * (values.dim() - len(batches))
    return own.view(*batches, *ones) * values + other.view(*batches, *ones) * of_partners
