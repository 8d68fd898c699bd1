"""Test images as a network may meet them elsewhere: rotated, noisy, blurred or with less contrast.

Noise, blur and contrast are among the kinds of Dan Hendrycks, Thomas Dietterich: "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019, https://arxiv.org/abs/1903.12261. Here the
strengths are our own, and the operations are torchvision's.
"""

import math
from typing import NamedTuple

import torch

from stages.settings.reach import ShiftSettings

__all__ = ["Shift", "shifted", "shifts_of"]

KERNEL = 3  # standard deviations of the blur to either side of a pixel


class Shift(NamedTuple):
    """A change of images."""

    kind: str  # a key of `reach.shifts`
    strength: float  # in the unit of that key

    @property
    def name(self) -> str:
        return f"{self.kind} {self.strength:g}"


def shifts_of(settings: ShiftSettings) -> list[Shift]:
    """Every kind at every strength."""
    listed = []
    for kind, strengths in settings.model_dump().items():
        listed += [Shift(kind, strength) for strength in strengths]
    return listed


def shifted(pixels: torch.Tensor, shift: Shift, draws: torch.Generator) -> torch.Tensor:
    """`(N, C, H, W)` images after a shift.

    Args:
        pixels: `(N, C, H, W)` in [0, 1], on any device.
        draws: of the noise, on the CPU.
    """
    from torchvision.transforms.v2 import InterpolationMode  # not at the start: it takes seconds
    from torchvision.transforms.v2 import functional as operations

    if shift.kind == "rotation":
        return operations.rotate(pixels, shift.strength, InterpolationMode.BILINEAR)  # what moves in is black
    if shift.kind == "noise":
        return _noisy(pixels, shift.strength, draws)
    if shift.kind == "blur":
        deviation = shift.strength * pixels.shape[-1]  # pixels
        margin = max(1, math.floor(KERNEL * deviation))
        return operations.gaussian_blur(pixels, [2 * margin + 1] * 2, [deviation] * 2)
    return operations.adjust_contrast(pixels, shift.strength)


def _noisy(pixels: torch.Tensor, strength: float, draws: torch.Generator) -> torch.Tensor:
    """As torchvision's `gaussian_noise`, which takes no generator: the sum stays in [0, 1]."""
    noise = torch.randn(pixels.shape, generator=draws).to(pixels.device)
    return (pixels + strength * noise).clamp(0, 1)
