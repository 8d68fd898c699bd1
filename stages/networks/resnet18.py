"""ResNet18 of torchvision with instance norm.

For images below 96 pixels its first layer is a 3x3 convolution, and no pooling follows it.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun: "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385; norm and first layer as in `networks.ResNet18` of
https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn
from torchvision.models import resnet18

from stages.settings.network import NetworkSettings

__all__ = ["build"]

SMALLEST = 16  # pixels; with less, the norm of the last blocks would see a single one
LARGE = 96  # pixels, from which on the first layer is that of torchvision


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    """The ResNet18 for square images of `size` pixels; it has no settings of its own.

    Raises:
        ValueError: the images have less than 16 pixels.
    """
    if size < SMALLEST:
        raise ValueError(f"resnet18: {size} pixels; allowed: at least {SMALLEST}")
    network = resnet18(num_classes=classes, norm_layer=_instance_norm)
    if size < LARGE:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def _instance_norm(width: int) -> nn.Module:
    return nn.GroupNorm(width, width)
