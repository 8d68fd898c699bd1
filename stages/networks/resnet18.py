"""ResNet18 of torchvision, with instance norm; below 96 pixels with a 3x3 first layer and no pooling after it.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun: "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385; norm and first layer as in `networks.ResNet18` of
https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn
from torchvision.models import resnet18

__all__ = ["build"]


def build(channels: int, size: int, classes: int, settings) -> nn.Module:
    """
    Raises:
        ValueError: less than 16 pixels, where the last blocks would norm a single one.
    """
    if size < 16:
        raise ValueError(f"resnet18: {size} pixels; allowed: at least 16")
    network = resnet18(num_classes=classes, norm_layer=lambda width: nn.GroupNorm(width, width))
    if size < 96:
        network.conv1, network.maxpool = nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network
