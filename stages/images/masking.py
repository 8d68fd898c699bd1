"""The zero mask of MTS and MDT."""

import torch

__all__ = ["mask_images"]


def mask_images(images: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Set each element of `(N, C, H, W)` images to zero with probability `ratio`.

    Sections 4.1 and 4.2 of the paper. The elementwise comparison with `rand` is that of the authors' code.
    """
    if ratio == 0:
        return images
    uniform = torch.rand(images.shape, generator=generator)
    keep = uniform >= ratio  # uniform is in [0, 1), so a zero has exactly the probability `ratio`
    return images * keep.to(images.device)
