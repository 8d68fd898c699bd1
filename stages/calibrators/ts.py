"""Temperature scaling: T fitted on distilled images that were kept from training.

Chuan Guo et al.: "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599. Its network
trains on the other images only (Table 6 of the paper says what that costs); at one image a class it does not exist.
"""

import torch

from stages.shared.images import LabelledImages
from stages.shared.sampling import held_out

__all__ = ["fitting_images"]


def fitting_images(data: LabelledImages, share: float, mask_ratio: float, seed: int, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The held-out images `(M, C, H, W)` and labels `(M,)` of a repeat; `mask_ratio` is not used."""
    rows = held_out(data.labels, data.classes, share, seed, repeat)
    return data.images[rows], data.labels[rows]
