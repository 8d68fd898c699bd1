"""Label smoothing: targets of `1 - a + a/K` for the image's class and `a/K` for every other one.

Christian Szegedy et al.: "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
https://arxiv.org/abs/1512.00567.
"""

import torch

from stages.losses.cross_entropy import loss

__all__ = ["loss", "mix"]


def mix(
    images: torch.Tensor, targets: torch.Tensor, drawn: dict[str, torch.Tensor], settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as they are, and `(..., N, K)` targets smoothed by `settings.label_smoothing`."""
    amount = settings.label_smoothing
    classes = targets.shape[-1]
    return images, (1 - amount) * targets + amount / classes
