"""Temperature scaling: T is fitted on distilled images that were kept from training.

Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599. The
network is trained on the other images only; Table 6 of the paper shows what that costs. With one image a
class, no image can be kept.
"""

import torch

from stages.images.prepared import LabelledImages
from stages.images.sampling import held_out

__all__ = ["fitting_images"]


def fitting_images(
    data: LabelledImages, share: float, mask_ratio: float, seed: int, repeat: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images that were kept from a repeat's training, and their labels.

    Args:
        data: the distilled set, with at least two images of each class.
        share: of the images of each class, at least one image.
        mask_ratio: not used.

    Returns:
        `(M, C, H, W)` and `(M,)`, or `(M, K)` probabilities where labels are soft.
    """
    rows = held_out(data.labels, data.classes, share, seed, repeat)
    assert rows is not None  # or there would be no network to calibrate
    return data.images[rows], data.soft_or_hard[rows]
