"""Differentiable augmentation (DSA): six operations on batches of images.

Bo Zhao, Hakan Bilen: "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021,
https://arxiv.org/abs/2102.08259; strengths as in https://github.com/VICO-UoE/DatasetCondensation.

An operation is a function of images `(N, C, H, W)` and of random numbers `u`, uniform in [0, 1), of shape
`(N, 3)`. It keeps the shape and passes gradients. The numbers are drawn beforehand, so that one draw can
augment several batches.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

__all__ = ["OPERATIONS", "Draw", "Draws", "augment", "augment_each", "draw", "draws_of"]

BRIGHTNESS = 1.0  # width of the range of what is added
SATURATION = 2.0  # highest factor
CONTRAST = 0.5  # lowest factor
CROP_SHARE = 0.125  # of the side: the largest shift
CUTOUT_SHARE = 0.5  # of the side: the side of the square
FLIP_PROBABILITY = 0.5
SCALE = 1.2  # highest factor; the lowest is 1 / SCALE
ROTATE_DEGREES = 15.0  # the largest angle


class Draw(NamedTuple):
    """An operation and its random numbers."""

    operation: str  # a key of OPERATIONS
    u: torch.Tensor  # (N, 3), or (1, 3) in a siamese draw, which all images share


def draw(generator: torch.Generator, count: int) -> Draw:
    """Draw one of the six operations and its random numbers.

    Args:
        count: number of images; 1 gives a draw that all images share.
    """
    position = int(torch.randint(len(OPERATIONS), (), generator=generator))
    operation = list(OPERATIONS)[position]
    return Draw(operation, torch.rand(count, 3, generator=generator))


def augment(images: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Apply a draw to `(N, C, H, W)` images."""
    u = drawn.u.to(images.device, images.dtype)
    operation = OPERATIONS[drawn.operation]
    return operation(images, u.expand(len(images), 3))


class Draws(NamedTuple):
    """One draw for each of S batches of one size."""

    groups: list[tuple[str, torch.Tensor]]  # operations, and the positions of the batches that each is for
    places: torch.Tensor  # (S,): where each batch is when these groups lie one behind the other
    u: torch.Tensor  # (S, N, 3), or (S, 1, 3)


def draws_of(drawn: list[Draw]) -> Draws:
    """The draws of S batches, together."""
    operations = [own.operation for own in drawn]
    groups = []
    for operation in sorted(set(operations)):
        positions = [batch for batch, own in enumerate(operations) if own == operation]
        groups.append((operation, torch.tensor(positions)))
    order = torch.cat([positions for _, positions in groups])
    return Draws(groups, order.argsort(), torch.stack([own.u for own in drawn]))


def augment_each(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Apply a draw of its own to each of S batches, `(S, N, C, H, W)`.

    The work is done operation by operation, as a GPU would spend more time on starting the work of each
    batch than on the work.

    Args:
        draws: on the device of the images.
    """
    u = draws.u.expand(*images.shape[:2], 3)
    if len(draws.groups) == 1:
        ((operation, _),) = draws.groups
        return _augment_all(images, operation, u)
    parts = [_augment_all(images[batches], operation, u[batches]) for operation, batches in draws.groups]
    return torch.cat(parts)[draws.places]


def _augment_all(images: torch.Tensor, operation: str, u: torch.Tensor) -> torch.Tensor:
    """Apply an operation to all batches."""
    augmented = augment(images.flatten(0, 1), Draw(operation, u.flatten(0, 1)))
    return augmented.view(images.shape)


def brightness(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Add a number. `u` is `(N,)`, as it is for `saturation` and `contrast`."""
    return images + (u.view(-1, 1, 1, 1) - 0.5) * BRIGHTNESS


def saturation(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Multiply each pixel's distance to its gray level."""
    gray = images.mean(1, keepdim=True)
    factor = u.view(-1, 1, 1, 1) * SATURATION
    return (images - gray) * factor + gray


def contrast(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Multiply each pixel's distance to the mean of its image."""
    mean = images.mean((1, 2, 3), keepdim=True)
    factor = u.view(-1, 1, 1, 1) + CONTRAST
    return (images - mean) * factor + mean


def color(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    images = brightness(images, u[:, 0])
    images = saturation(images, u[:, 1])
    return contrast(images, u[:, 2])


def crop(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Shift by up to an eighth of the side, in whole pixels. Zeros move in."""
    _, _, height, width = images.shape
    rows, row_is_inside = _shifted(height, u[:, 0])
    columns, column_is_inside = _shifted(width, u[:, 1])
    numbers = torch.arange(len(images), device=images.device)[:, None, None]
    channels_last = images.permute(0, 2, 3, 1)
    moved = channels_last[numbers, rows[:, :, None], columns[:, None, :]]
    moved = moved.permute(0, 3, 1, 2).contiguous()  # or every layer after it would get another memory layout
    return moved * (row_is_inside[:, None, :, None] & column_is_inside[:, None, None, :])


def _shifted(side: int, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each row (or column) is taken from, and whether that is inside the image: both `(N, side)`."""
    reach = int(side * CROP_SHARE + 0.5)
    shift = (u * (2 * reach + 1)).floor().long() - reach  # uniform over -reach .. reach
    source = torch.arange(side, device=u.device) + shift[:, None]
    is_inside = (source >= 0) & (source < side)
    return source.clamp(0, side - 1), is_inside


def cutout(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Set a square of half the side to zero. It may reach over the edge."""
    _, _, height, width = images.shape
    rows = _cut(height, u[:, 0])
    columns = _cut(width, u[:, 1])
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


def _cut(side: int, u: torch.Tensor) -> torch.Tensor:
    """Whether the square has each row (or column): `(N, side)`."""
    length = int(side * CUTOUT_SHARE + 0.5)
    centre = (u * (side + 1 - length % 2)).floor().long()[:, None]
    first = centre - length // 2
    last = first + length - 1
    positions = torch.arange(side, device=u.device)
    return (positions >= first) & (positions <= last)


def flip(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Mirror left and right, or leave the image."""
    is_flipped = u[:, :1, None, None] < FLIP_PROBABILITY
    return torch.where(is_flipped, images.flip(3), images)


def scale(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Stretch each axis by a factor of its own."""
    factor = u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    return _affine(images, torch.diag_embed(factor))


def rotate(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Turn by up to 15 degrees either way."""
    angle = (u[:, 0] - 0.5) * 2 * ROTATE_DEGREES / 180 * math.pi
    cos = angle.cos()
    sin = angle.sin()
    first_row = torch.stack([cos, -sin], 1)
    second_row = torch.stack([sin, cos], 1)
    return _affine(images, torch.stack([first_row, second_row], 1))


def _affine(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Map the coordinates of square images by `(N, 2, 2)` matrices.

    Coordinates are -1 and 1 at the centres of the corner pixels, as in MTT's public code. DSA's follows
    PyTorch's default, which by now is the outer edges of these pixels. As nothing is shifted, both map square
    images alike, but for rounding.
    """
    theta = F.pad(matrix, (0, 1))  # (N, 2, 3): nothing is shifted
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, align_corners=True)


OPERATIONS = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
