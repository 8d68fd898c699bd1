"""ConvNet: the network that sets are distilled for, with the data set's own width and depth."""

from torch import nn

from stages.shared.convnet import ConvNet, NetworkSettings

__all__ = ["build"]


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    return ConvNet(channels, size, classes, settings.width, settings.depth)
