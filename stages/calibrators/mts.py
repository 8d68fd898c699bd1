"""Masked temperature scaling (MTS): T fitted on zero-masked images of the distilled set itself.

Section 4.1 and Appendix B.1 of the paper. The network has trained on all images; masking them makes its logits smaller
and more varied. The mask is used while fitting only, so predictions and accuracy stay what they were.
"""

import torch

from stages.shared.images import LabelledImages
from stages.shared.masking import mask_images
from stages.shared.randomness import generator
from stages.shared.sampling import per_class, share_of

__all__ = ["fitting_images"]


def fitting_images(data: LabelledImages, share: float, mask_ratio: float, seed: int, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A share of each class, at least one image, each element masked by its own draw: `(M, C, H, W)` and labels `(M,)`."""
    draw = generator(seed, "mts", repeat)
    rows = per_class(data.labels, data.classes, share_of(share), draw)
    return mask_images(data.images[rows], mask_ratio, draw), data.labels[rows]
