"""Real training images to fit a temperature on, and which of them the networks have seen."""

from pathlib import Path
from typing import NamedTuple

import torch

from stages.images.distilled import DistilledSet
from stages.images.prepared import LabelledImages, NormalisedImages, class_names, load_transform
from stages.images.sampling import per_class
from stages.runtime.errors import UserError
from stages.runtime.files import read_tensors
from stages.runtime.randomness import generator

__all__ = ["Real", "fitting_images", "fitting_rows", "seen_rows"]


class Real(NamedTuple):
    """The training images of a data set, as pixels. Images are whitened when they are taken out."""

    images: NormalisedImages  # (N, C, H, W)
    labels: torch.Tensor  # (N,) int64
    classes: int

    @classmethod
    def load(cls, prepared: Path) -> "Real":
        """The training images of a prepared data set, on the CPU."""
        data = read_tensors(prepared / "train.safetensors")
        images = NormalisedImages(data["images"], load_transform(prepared))
        return cls(images, data["labels"], len(class_names(prepared)))

    def at(self, rows: torch.Tensor) -> LabelledImages:
        """The images at some positions."""
        return LabelledImages(self.images[rows], self.labels[rows], self.classes)

    def each(self, images: int) -> int:
        """How many images of a class there are among `images` of all classes, at least one."""
        return max(1, images // self.classes)


def fitting_rows(real: Real, seen: torch.Tensor, each: int, draws: torch.Generator) -> torch.Tensor:
    """The positions of random training images: `each` of every class, or all where a class has fewer.

    Args:
        seen: the positions of the images that are left out.
    """
    is_free = torch.ones(len(real.labels), dtype=torch.bool)
    is_free[seen] = False
    free = is_free.nonzero().flatten()
    drawn = per_class(real.labels[free], real.classes, lambda size: min(size, each), draws)
    return free[drawn]


def seen_rows(distilled: DistilledSet, networks: int) -> torch.Tensor:
    """The positions of the training images in the sets of the first `networks` networks.

    There are none where the images of the set were learned.
    """
    if distilled.positions is None:
        return torch.tensor([], dtype=torch.int64)
    if distilled.number is None:
        return distilled.positions
    return distilled.positions[distilled.number < networks]


def fitting_images(
    real: Real, distilled: DistilledSet, networks: int, images: int, seed: int
) -> LabelledImages:
    """Training images that none of the first `networks` networks of a set has seen.

    They are a class-balanced draw, the same for all sets of a data set but for the images that are left out.

    Args:
        distilled: a set that is not the whole training split.
        images: how many there are in all classes together, if there are as many.

    Raises:
        UserError: the sets of the networks have all training images.
    """
    draws = generator(seed, "temperature", "images")
    rows = fitting_rows(real, seen_rows(distilled, networks), real.each(images), draws)
    if len(rows) == 0:
        problem = f"the sets of {networks} networks have all {len(real.labels)} training images"
        raise UserError(f"{problem}, and none is left to fit a temperature on; set a smaller ipc")
    return real.at(rows)
