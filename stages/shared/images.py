"""Prepared images: one uint8 tensor a split on disk, whitened when it is loaded, or normalised batch by batch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

__all__ = ["LabelledImages", "NormalisedImages", "Transform", "class_names", "load_set", "load_split", "load_transform"]

WHITENED_TOGETHER = 10_000  # images


class Transform(NamedTuple):
    """`(x - mean) @ matrix` on flattened images, or per channel where `matrix` is a vector of 1/std."""

    mean: torch.Tensor  # (C*H*W,) for ZCA, (C,) else
    matrix: torch.Tensor  # (C*H*W, C*H*W), or (C,)
    inverse: torch.Tensor  # likewise

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` images in [0, 1] to what the network sees."""
        if self.matrix.dim() == 1:
            return (images - self.mean[:, None, None]) * self.matrix[:, None, None]
        return ((images.flatten(1) - self.mean) @ self.matrix).view(images.shape)

    def backward(self, images: torch.Tensor) -> torch.Tensor:
        """The inverse of `forward`, for pictures."""
        if self.matrix.dim() == 1:
            return images * self.inverse[:, None, None] + self.mean[:, None, None]
        return (images.flatten(1) @ self.inverse + self.mean).view(images.shape)


class NormalisedImages:
    """uint8 images that are normalised as they are taken out, which keeps them in a quarter of the memory.

    Stands for a `(N, C, H, W)` float32 tensor where that is indexed by rows, split, measured or moved; `[:]` is that tensor.
    """

    def __init__(self, pixels: torch.Tensor, transform: Transform):
        self.pixels, self.transform = pixels, transform
        self.shape, self.device = pixels.shape, pixels.device

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows) -> torch.Tensor:
        """The images at `rows`: a slice, or positions or a mask as a tensor."""
        return self.transform.forward(self.pixels[rows] / 255)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        return (self[first : first + size] for first in range(0, len(self), size))

    def to(self, device: torch.device) -> "NormalisedImages":
        return NormalisedImages(self.pixels.to(device), Transform(*(value.to(device) for value in self.transform)))


class LabelledImages(NamedTuple):
    images: torch.Tensor | NormalisedImages  # (N, C, H, W), as the network sees them
    labels: torch.Tensor  # (N,) int64
    classes: int


def load_transform(folder: Path) -> Transform:
    return Transform(**load_file(folder / "transform.safetensors"))


def load_split(folder: Path, split: str) -> LabelledImages:
    """A split of a prepared data set, on the CPU."""
    data, transform = load_file(folder / f"{split}.safetensors"), load_transform(folder)
    images = NormalisedImages(data["images"], transform)
    if transform.matrix.dim() == 2:  # whitening costs too much to do again for every batch
        images = torch.cat(list(images.split(WHITENED_TOGETHER)))
    return LabelledImages(images, data["labels"], len(class_names(folder)))


def load_set(file: Path, prepared: Path) -> tuple[LabelledImages, float | None]:
    """A distilled set and its learned step size, on the CPU; a set without images is the whole training split."""
    data = load_file(file)
    step_size = float(data["step_size"]) if "step_size" in data else None
    if "images" not in data:
        return load_split(prepared, "train"), step_size
    return LabelledImages(data["images"], data["labels"], len(class_names(prepared))), step_size


def class_names(prepared: Path) -> list[str]:
    return json.loads((prepared / "info.json").read_text())["classes"]
