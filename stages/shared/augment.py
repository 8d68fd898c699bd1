"""Differentiable augmentation (DSA): six operations on image batches, pure functions of images and random draws.

Bo Zhao, Hakan Bilen: "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021,
https://arxiv.org/abs/2102.08259; strengths as in https://github.com/VICO-UoE/DatasetCondensation.

A draw is `(operation, u)` with `u` uniform in [0, 1), shape `(N, 3)` for a draw per image or `(1, 3)` for one that all
images share (the siamese one). Images are `(N, C, H, W)`; every operation keeps the shape and passes gradients.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

__all__ = ["OPERATIONS", "Draw", "augment", "draw"]

SCALE, ROTATE_DEGREES, CROP_SHARE, CUTOUT_SHARE, FLIP_PROBABILITY = 1.2, 15.0, 0.125, 0.5, 0.5
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5


class Draw(NamedTuple):
    operation: str
    u: torch.Tensor  # (N, 3) or (1, 3), uniform in [0, 1)


def draw(generator: torch.Generator, count: int) -> Draw:
    """One of the six operations, and `count` independent rows of its random numbers (1: shared by all images)."""
    operation = tuple(OPERATIONS)[int(torch.randint(len(OPERATIONS), (), generator=generator))]
    return Draw(operation, torch.rand(count, 3, generator=generator))


def augment(images: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Apply a draw to `(N, C, H, W)` images."""
    u = drawn.u.to(images.device, images.dtype).expand(len(images), 3)
    return OPERATIONS[drawn.operation](images, u)


def brightness(x, u):
    return x + (u.view(-1, 1, 1, 1) - 0.5) * BRIGHTNESS


def saturation(x, u):
    gray = x.mean(1, keepdim=True)
    return (x - gray) * (u.view(-1, 1, 1, 1) * SATURATION) + gray


def contrast(x, u):
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u.view(-1, 1, 1, 1) + CONTRAST) + mean


def color(x, u):
    return contrast(saturation(brightness(x, u[:, 0]), u[:, 1]), u[:, 2])


def crop(x, u):
    """Shift by up to 1/8 of the side, zeros moving in."""
    rows, inside_rows = _shifted(x.shape[2], u[:, 0])
    columns, inside_columns = _shifted(x.shape[3], u[:, 1])
    n = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()  # in the layout it came in
    return moved * (inside_rows[:, None, :, None] & inside_columns[:, None, None, :])


def _shifted(side, u):
    reach = int(side * CROP_SHARE + 0.5)
    shift = (u * (2 * reach + 1)).floor().long() - reach  # uniform over -reach .. reach
    source = torch.arange(side, device=u.device) + shift[:, None]
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def cutout(x, u):
    """Zeros in a square of half the side, which may hang over the edge."""
    return x * ~(_cut(x.shape[2], u[:, 0])[:, None, :, None] & _cut(x.shape[3], u[:, 1])[:, None, None, :])


def _cut(side, u):
    length = int(side * CUTOUT_SHARE + 0.5)
    first = (u * (side + 1 - length % 2)).floor().long()[:, None] - length // 2
    first, last = first.clamp(0, side - 1), (first + length - 1).clamp(0, side - 1)
    at = torch.arange(side, device=u.device)
    return (at >= first) & (at <= last)


def flip(x, u):
    return torch.where(u[:, :1, None, None] < FLIP_PROBABILITY, x.flip(3), x)


def scale(x, u):
    """Stretch each axis by its own factor."""
    factor = u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    return _affine(x, torch.diag_embed(factor))


def rotate(x, u):
    """Turn by up to 15 degrees either way."""
    angle = (u[:, 0] - 0.5) * 2 * ROTATE_DEGREES / 180 * math.pi
    cos, sin = angle.cos(), angle.sin()
    return _affine(x, torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1))


def _affine(x, matrix):
    theta = F.pad(matrix, (0, 1))  # (N, 2, 3): no translation
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, align_corners=True)


OPERATIONS = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}
