"""VGG11 with instance norm and one linear layer, as people distil for it (torchvision's has 4096-wide layers for 224 pixels).

Karen Simonyan, Andrew Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556, configuration A; `networks.VGG11` of https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn
from torchvision.models.vgg import cfgs

__all__ = ["build"]


def build(channels: int, size: int, classes: int, settings) -> nn.Module:
    """
    Raises:
        ValueError: less than 32 pixels, which five poolings halve to nothing.
    """
    if size < 32:
        raise ValueError(f"vgg11: {size} pixels; allowed: at least 32")
    layers = []
    for entry in cfgs["A"]:
        if entry == "M":
            layers += [nn.MaxPool2d(2)]
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.GroupNorm(entry, entry), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (size // 32) ** 2, classes))
