"""Prepared images: uint8 tensors on disk, whitened when they are loaded or normalised batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from stages.images.pixels import to_pixels
from stages.runtime.files import read_result, read_tensors

__all__ = [
    "LabelledImages",
    "NormalisedImages",
    "Transform",
    "at_contrast",
    "class_names",
    "load_split",
    "load_transform",
]

WHITENED_TOGETHER = 10_000  # images; more at once need more memory for their copies
LEAST_NORM = 1e-3  # of a centred image in [0, 1]; an 8-bit image that is not of one colour has 0.0027 or more


class Transform(NamedTuple):
    """What makes pixels into what the network sees.

    With ZCA whitening `(x - mean) @ matrix` on flattened images; otherwise `(x - mean) * matrix` per channel.

    If there is a `contrast`, each image goes through global contrast normalisation before it is whitened: it
    is centred and scaled to that norm, and then multiplied by `matrix`. `mean` is then the brightness that
    `backward` gives to every image.
    """

    mean: torch.Tensor  # (C*H*W,) with ZCA, (C,) otherwise
    matrix: torch.Tensor  # (C*H*W, C*H*W) with ZCA; otherwise (C,), 1 / standard deviation
    inverse: torch.Tensor  # of the same shape
    contrast: torch.Tensor | None = None  # scalar: the norm of every centred image; None: as it is

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From `(N, C, H, W)` images in [0, 1] to what the network sees."""
        if self.matrix.ndim == 1:
            return (images - self.mean[:, None, None]) * self.matrix[:, None, None]
        if self.contrast is None:
            centred = images.flatten(1) - self.mean
        else:
            centred = at_contrast(images, self.contrast).flatten(1)
        whitened = centred @ self.matrix
        return whitened.view(images.shape)

    def backward(self, images: torch.Tensor) -> torch.Tensor:
        """The inverse of `forward`, for pictures.

        Global contrast normalisation loses the brightness and the contrast of each image. What comes back
        of a real image has the mean brightness and contrast of the training images: it is the original up to
        a shift and a factor, and `forward` of it is again what the network sees. A distilled image may have
        any contrast, which is shown; `forward` would lose it, and `rewhiten` keeps it.
        """
        return to_pixels(images, self.mean, self.inverse)

    def rewhiten(self, images: torch.Tensor) -> torch.Tensor:
        """The inverse of `backward` for all images: as `forward`, but each image keeps its own contrast."""
        return self._replace(contrast=None).forward(images)

    def to(self, device: torch.device) -> "Transform":
        contrast = None if self.contrast is None else self.contrast.to(device)
        return Transform(self.mean.to(device), self.matrix.to(device), self.inverse.to(device), contrast)


def at_contrast(images: torch.Tensor, contrast: torch.Tensor | float) -> torch.Tensor:
    """Global contrast normalisation: each image with a mean of 0 and the norm `contrast`.

    Mean and norm are those of all pixels and channels of an image. An image without any contrast becomes
    zeros, up to rounding.

    Args:
        images: `(N, C, H, W)` in [0, 1].
    """
    centred = images - images.mean((1, 2, 3), keepdim=True)
    norms = centred.flatten(1).norm(dim=1)
    factors = contrast / norms.clamp(min=LEAST_NORM)
    return centred * factors[:, None, None, None]


class NormalisedImages:
    """uint8 images that are normalised when they are taken out, so they need a quarter of the memory.

    They stand in for a `(N, C, H, W)` float32 tensor: they can be indexed by rows, split and moved, and have
    a length, a shape and a device. `[:]` is that tensor.
    """

    def __init__(self, pixels: torch.Tensor, transform: Transform):
        self.pixels = pixels
        self.transform = transform
        self.shape = pixels.shape
        self.device = pixels.device

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """The images at `rows`: a slice, or a tensor of positions or of booleans."""
        return self.transform.forward(self.pixels[rows] / 255)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """All images in order, `size` at a time."""
        for first in range(0, len(self), size):
            yield self[first : first + size]

    def to(self, device: torch.device) -> "NormalisedImages":
        return NormalisedImages(self.pixels.to(device), self.transform.to(device))


class LabelledImages(NamedTuple):
    """Images as the network sees them, with their labels.

    Labels are hard, one class for each image, or soft: probabilities of all classes. With soft labels,
    `labels` has the likeliest class of each image, by which images are drawn class by class.
    """

    images: torch.Tensor | NormalisedImages  # (N, C, H, W)
    labels: torch.Tensor  # (N,) int64
    classes: int
    targets: torch.Tensor | None = None  # (N, K): the probabilities of soft labels; None: labels are hard

    @property
    def is_soft(self) -> bool:
        return self.targets is not None

    @property
    def soft_or_hard(self) -> torch.Tensor:
        """What the labels say: probabilities `(N, K)` if they are soft, and classes `(N,)` otherwise."""
        return self.labels if self.targets is None else self.targets

    def at(self, rows: torch.Tensor) -> "LabelledImages":
        """The images at some positions."""
        targets = None if self.targets is None else self.targets[rows]
        return LabelledImages(self.images[rows], self.labels[rows], self.classes, targets)


def load_transform(prepared: Path) -> Transform:
    """The transform of a prepared data set, on the CPU."""
    return Transform(**read_tensors(prepared / "transform.safetensors"))


def load_split(prepared: Path, split: str) -> LabelledImages:
    """A split of a prepared data set, on the CPU.

    Args:
        prepared: the folder that the stage `prepare` has written.
        split: "train" or "test".
    """
    data = read_tensors(prepared / f"{split}.safetensors")
    transform = load_transform(prepared)
    classes = len(class_names(prepared))
    normalised = NormalisedImages(data["images"], transform)
    if transform.matrix.ndim == 1:
        return LabelledImages(normalised, data["labels"], classes)
    # Whitening is a large product, too slow to be repeated for every batch.
    whitened = torch.cat(list(normalised.split(WHITENED_TOGETHER)))
    return LabelledImages(whitened, data["labels"], classes)


def class_names(prepared: Path) -> list[str]:
    return read_result(prepared / "info.json")["classes"]
