"""Images as pixels that are standardised channel by channel: one space for data sets of any whitening."""

from pathlib import Path
from typing import NamedTuple

import torch

from stages.images.prepared import Transform, load_transform
from stages.runtime.files import read_tensors

__all__ = ["StandardisedPixels", "channel_moments", "standardised_pixels"]


class StandardisedPixels(NamedTuple):
    """The way from what the network sees to standardised pixels and back.

    The pixels of real images are in [0, 1] before they are standardised. All images that a network sees
    have the shape `(N, C, H, W)`.
    """

    transform: Transform  # of the data set: from pixels to what the network sees
    mean: torch.Tensor  # (C,), of the real training images
    std: torch.Tensor  # (C,)

    def enter(self, images: torch.Tensor) -> torch.Tensor:
        """From what the network sees to standardised pixels."""
        pixels = self.transform.backward(images)
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    def leave(self, standardised: torch.Tensor) -> torch.Tensor:
        """From standardised pixels to what the network sees."""
        pixels = standardised * self.std[:, None, None] + self.mean[:, None, None]
        return self.transform.rewhiten(pixels)

    def to(self, device: torch.device) -> "StandardisedPixels":
        return StandardisedPixels(self.transform.to(device), self.mean.to(device), self.std.to(device))


def standardised_pixels(prepared: Path) -> StandardisedPixels:
    """The space of a prepared data set, by the moments of its training images; on the CPU."""
    pixels = read_tensors(prepared / "train.safetensors")["images"]
    mean, std = channel_moments(pixels)
    return StandardisedPixels(load_transform(prepared), mean, std)


def channel_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, from how often each of the 256 levels occurs.

    Args:
        images: `(N, C, H, W)` uint8.

    Returns:
        Two `(C,)` tensors, of the images' values in [0, 1].
    """
    channels = images.shape[1]
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in images.split(1000):  # bincount makes int64 copies
        for channel in range(channels):
            counts[channel] += part[:, channel].flatten().bincount(minlength=256)
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().float()
