"""The zero mask of MTS and MDT."""

import math
from collections.abc import Sequence

import torch

from stages.machine.transfer import send
from stages.runtime.randomness import generator

__all__ = ["Masks", "mask_images"]

MOST_AHEAD = 2**30  # bytes of masks that are kept on the device; more are drawn whenever they are needed


class Masks:
    """The masks of the inner steps of an iteration: `masks(images, step)` multiplies images by a binary mask.

    The same step always gets the same mask.

    Args:
        ratio: the probability of a zero.
        key: of the draws; each step adds its number to it.
    """

    def __init__(self, ratio: float, key: tuple):
        self.ratio = ratio
        self.key = key
        self.ahead: dict[int, torch.Tensor] = {}  # by step, on the device

    def draw_ahead(self, shapes: Sequence[Sequence[int]], device: torch.device, first: int = 0) -> None:
        """Draw the masks of many steps and send them together, as a GPU would wait for each.

        Args:
            shapes: of the images of each step.
            first: the number of the first of these steps.
        """
        too_many = sum(math.prod(shape) for shape in shapes) > MOST_AHEAD  # a boolean takes a byte
        if self.ratio == 0 or too_many:
            return
        drawn = [self._draw(shape, first + place) for place, shape in enumerate(shapes)]
        self.ahead = dict(enumerate(send(drawn, device), first))

    def __call__(self, images: torch.Tensor, step: int) -> torch.Tensor:
        if self.ratio == 0:
            return images
        keep = self.ahead[step] if step in self.ahead else self._draw(images.shape, step).to(images.device)
        return images * keep

    def _draw(self, shape: Sequence[int], step: int) -> torch.Tensor:
        return _kept(shape, self.ratio, generator(*self.key, step))


def mask_images(images: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Set each element of `(N, C, H, W)` images to zero with probability `ratio`.

    Sections 4.1 and 4.2 of the paper. The elementwise comparison with `rand` is that of the authors' code.
    """
    if ratio == 0:
        return images
    return images * _kept(images.shape, ratio, generator).to(images.device)


def _kept(shape: Sequence[int], ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Whether each element is kept."""
    uniform = torch.rand(shape, generator=generator)
    return uniform >= ratio  # uniform is in [0, 1), so a zero has exactly the probability `ratio`
