"""Prepared images: one uint8 tensor a split on disk, normalised when they are loaded."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

__all__ = ["LabelledImages", "Transform", "class_names", "load_set", "load_split", "load_transform"]


class LabelledImages(NamedTuple):
    images: torch.Tensor  # (N, C, H, W) float32, normalised or whitened
    labels: torch.Tensor  # (N,) int64
    classes: int


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


def load_transform(folder: Path) -> Transform:
    return Transform(**load_file(folder / "transform.safetensors"))


def load_split(folder: Path, split: str) -> LabelledImages:
    """A split of a prepared data set, on the CPU."""
    data = load_file(folder / f"{split}.safetensors")
    return LabelledImages(load_transform(folder).forward(data["images"] / 255), data["labels"], len(class_names(folder)))


def load_set(file: Path, prepared: Path) -> tuple[LabelledImages, float | None]:
    """A distilled set and its learned step size, on the CPU; a set without images is the whole training split."""
    data = load_file(file)
    step_size = float(data["step_size"]) if "step_size" in data else None
    if "images" not in data:
        return load_split(prepared, "train"), step_size
    return LabelledImages(data["images"], data["labels"], len(class_names(prepared))), step_size


def class_names(prepared: Path) -> list[str]:
    return json.loads((prepared / "info.json").read_text())["classes"]
