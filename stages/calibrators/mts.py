"""Masked temperature scaling (MTS): T is fitted on zero-masked images of the distilled set itself.

Section 4.1 and Appendix B.1 of the paper. The network has been trained on all images; masking them makes its
logits smaller and more varied. Nothing is masked after the fit, so predictions and accuracy do not change.
"""

import torch

from stages.images.masking import mask_images
from stages.images.prepared import LabelledImages
from stages.images.sampling import per_class, share_of
from stages.runtime.randomness import generator

__all__ = ["fitting_images"]


def fitting_images(
    data: LabelledImages, share: float, mask_ratio: float, seed: int, repeat: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked images of a repeat to fit on, and their labels.

    Args:
        data: the distilled set.
        share: of the images of each class, at least one image.
        mask_ratio: probability of a zero, element by element.

    Returns:
        `(M, C, H, W)` and `(M,)`, or `(M, K)` probabilities where labels are soft.
    """
    draw = generator(seed, "mts", repeat)
    rows = per_class(data.labels, data.classes, share_of(share), draw)
    masked = mask_images(data.images[rows], mask_ratio, draw)
    return masked, data.soft_or_hard[rows]
