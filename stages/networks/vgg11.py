"""VGG11 in the form that sets are distilled with: instance norm and one linear layer.

The VGG11 of torchvision has linear layers of 4096 units, for images of 224 pixels.

Karen Simonyan, Andrew Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, https://arxiv.org/abs/1409.1556, configuration A; `networks.VGG11` of
https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn
from torchvision.models.vgg import cfgs

from stages.settings.network import NetworkSettings

__all__ = ["build"]

SMALLEST = 32  # pixels, which the five poolings halve to one


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    """The VGG11 for square images of `size` pixels; it has no settings of its own.

    Raises:
        ValueError: the images have less than 32 pixels.
    """
    if size < SMALLEST:
        raise ValueError(f"vgg11: {size} pixels; allowed: at least {SMALLEST}")
    layers: list[nn.Module] = []
    for entry in cfgs["A"]:
        if isinstance(entry, str):  # "M": max pooling
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, entry, 3, padding=1))
        layers.append(nn.GroupNorm(entry, entry))  # instance norm
        layers.append(nn.ReLU())
        channels = entry
    pixels = (size // 32) ** 2  # after five poolings
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * pixels, classes))
