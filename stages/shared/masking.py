"""The zero mask of MTS and MDT."""

import torch

__all__ = ["mask_images"]


def mask_images(images: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Multiply every element of `(N, C, H, W)` images by its own draw of 0 (with probability `ratio`) or 1.

    Sections 4.1 and 4.2 of the paper; elementwise `rand > ratio` as in the authors' code.
    """
    if ratio == 0:
        return images
    keep = torch.rand(images.shape, generator=generator) >= ratio  # rand is in [0, 1): exactly P(0) = ratio
    return images * keep.to(images.device)
