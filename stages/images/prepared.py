"""Prepared images: uint8 tensors on disk, whitened when they are loaded or normalised batch by batch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from stages.images.pixels import to_pixels

__all__ = [
    "LabelledImages",
    "NormalisedImages",
    "Transform",
    "class_names",
    "load_set",
    "load_split",
    "load_transform",
]

WHITENED_TOGETHER = 10_000  # images; more at once need more memory for their copies


class Transform(NamedTuple):
    """What makes pixels into what the network sees.

    With ZCA whitening `(x - mean) @ matrix` on flattened images; otherwise `(x - mean) * matrix` per channel.
    """

    mean: torch.Tensor  # (C*H*W,) with ZCA, (C,) otherwise
    matrix: torch.Tensor  # (C*H*W, C*H*W) with ZCA; otherwise (C,), 1 / standard deviation
    inverse: torch.Tensor  # of the same shape

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From `(N, C, H, W)` images in [0, 1] to what the network sees."""
        if self.matrix.ndim == 1:
            return (images - self.mean[:, None, None]) * self.matrix[:, None, None]
        whitened = (images.flatten(1) - self.mean) @ self.matrix
        return whitened.view(images.shape)

    def backward(self, images: torch.Tensor) -> torch.Tensor:
        """The inverse of `forward`, for pictures."""
        return to_pixels(images, self.mean, self.inverse)

    def to(self, device: torch.device) -> "Transform":
        return Transform(self.mean.to(device), self.matrix.to(device), self.inverse.to(device))


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
    """Images as the network sees them, with their labels."""

    images: torch.Tensor | NormalisedImages  # (N, C, H, W)
    labels: torch.Tensor  # (N,) int64
    classes: int


def load_transform(prepared: Path) -> Transform:
    """The transform of a prepared data set, on the CPU."""
    return Transform(**load_file(prepared / "transform.safetensors"))


def load_split(prepared: Path, split: str) -> LabelledImages:
    """A split of a prepared data set, on the CPU.

    Args:
        prepared: the folder that the stage `prepare` has written.
        split: "train" or "test".
    """
    data = load_file(prepared / f"{split}.safetensors")
    transform = load_transform(prepared)
    classes = len(class_names(prepared))
    normalised = NormalisedImages(data["images"], transform)
    if transform.matrix.ndim == 1:
        return LabelledImages(normalised, data["labels"], classes)
    # Whitening is a large product, too slow to be repeated for every batch.
    whitened = torch.cat(list(normalised.split(WHITENED_TOGETHER)))
    return LabelledImages(whitened, data["labels"], classes)


def load_set(file: Path, prepared: Path) -> tuple[LabelledImages, float | None]:
    """A distilled set and the step size that was learned with it, on the CPU.

    A set of the backbone `full` has no images of its own: it is the whole training split. The step size is
    None if none was learned.
    """
    data = load_file(file)
    step_size = float(data["step_size"]) if "step_size" in data else None
    if "images" not in data:
        return load_split(prepared, "train"), step_size
    classes = len(class_names(prepared))
    return LabelledImages(data["images"], data["labels"], classes), step_size


def class_names(prepared: Path) -> list[str]:
    info = json.loads((prepared / "info.json").read_text())
    return info["classes"]
