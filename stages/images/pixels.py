"""From what a network sees back to pixels. It works on arrays of NumPy and on tensors of PyTorch alike."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # pictures are drawn without torch
    import torch

__all__ = ["to_pixels"]

A = TypeVar("A", np.ndarray, "torch.Tensor")


def to_pixels(images: A, mean: A, inverse: A) -> A:
    """Undo whitening or normalisation; what global contrast normalisation has lost does not come back.

    Args:
        images: `(N, C, H, W)`, as the network sees them.
        mean: `(C*H*W,)` with ZCA whitening, `(C,)` otherwise.
        inverse: `(C*H*W, C*H*W)` with ZCA whitening; otherwise `(C,)`, the standard deviations.

    Returns:
        `(N, C, H, W)`; real images are in [0, 1], distilled ones may be outside.
    """
    if inverse.ndim == 1:
        return images * inverse[:, None, None] + mean[:, None, None]
    flat = images.reshape(len(images), -1)
    return (flat @ inverse + mean).reshape(images.shape)
