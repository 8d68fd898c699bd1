"""AlexNet as people distil for it: five convolutions of small stride, one linear layer, no norm (torchvision's wants 224 pixels).

Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton: "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012; `networks.AlexNet` of https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn

__all__ = ["build"]

LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))  # channels, kernel, pooling after


def build(channels: int, size: int, classes: int, settings) -> nn.Module:
    """
    Raises:
        ValueError: less than 8 pixels.
    """
    if size < 8:
        raise ValueError(f"alexnet: {size} pixels; allowed: at least 8")
    layers = []
    for width, kernel, pooled in LAYERS:
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (size // 8) ** 2, classes))
