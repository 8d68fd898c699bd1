"""Masked temperature scaling on images that were kept from training: TS's images, masked as by MTS.

The paper's MTS masks images that the network has been trained on. Where there is much training data, as in
Table 7, images can be held out instead. At mask ratio 0 this is TS, and Appendix B.3 of the paper says that
MTS becomes TS there.
"""

import torch

from stages.calibrators import ts
from stages.images.masking import mask_images
from stages.images.prepared import LabelledImages
from stages.runtime.randomness import generator

__all__ = ["fitting_images"]


def fitting_images(
    data: LabelledImages, share: float, mask_ratio: float, seed: int, repeat: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images that were kept from a repeat's training, masked, and their labels.

    Args:
        data: the distilled set, with at least two images of each class.
        share: of the images of each class, at least one image.
        mask_ratio: probability of a zero, element by element.

    Returns:
        `(M, C, H, W)` and `(M,)`, or `(M, K)` probabilities where labels are soft.
    """
    images, labels = ts.fitting_images(data, share, mask_ratio, seed, repeat)
    return mask_images(images, mask_ratio, generator(seed, "mts_holdout", repeat)), labels
