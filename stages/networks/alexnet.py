"""AlexNet in the form that sets are distilled with.

It has five convolutions of small stride, one linear layer and no norm. The AlexNet of torchvision needs 224
pixels.

Alex Krizhevsky, Ilya Sutskever, Geoffrey E. Hinton: "ImageNet Classification with Deep Convolutional
Neural Networks", NIPS 2012; `networks.AlexNet` of https://github.com/VICO-UoE/DatasetCondensation.
"""

from typing import NamedTuple

from torch import nn

from stages.settings.network import NetworkSettings

__all__ = ["build"]

SMALLEST = 8  # pixels, which the three poolings halve to one


class Layer(NamedTuple):
    width: int  # channels of its output
    kernel: int  # pixels
    pooled: bool  # whether 2x2 max pooling follows


LAYERS = (
    Layer(width=128, kernel=5, pooled=True),
    Layer(width=192, kernel=5, pooled=True),
    Layer(width=256, kernel=3, pooled=False),
    Layer(width=192, kernel=3, pooled=False),
    Layer(width=192, kernel=3, pooled=True),
)


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    """The AlexNet for square images of `size` pixels; it has no settings of its own.

    Raises:
        ValueError: the images have less than 8 pixels.
    """
    if size < SMALLEST:
        raise ValueError(f"alexnet: {size} pixels; allowed: at least {SMALLEST}")
    layers: list[nn.Module] = []
    for layer in LAYERS:
        layers.append(nn.Conv2d(channels, layer.width, layer.kernel, padding=layer.kernel // 2))
        layers.append(nn.ReLU())
        if layer.pooled:
            layers.append(nn.MaxPool2d(2))
        channels = layer.width
    pixels = (size // 8) ** 2  # after three poolings
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * pixels, classes))
