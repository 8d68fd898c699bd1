"""The ConvNet that all four distillation backbones use."""

import torch
from torch import nn

from stages.shared.settings import Count, Section

__all__ = ["ConvNet", "NetworkSettings"]


class NetworkSettings(Section):
    """`datasets.<name>.network`."""

    width: Count
    depth: Count


class ConvNet(nn.Module):
    """`depth` blocks of [3x3 convolution, instance norm, ReLU, 2x2 average pooling], then one linear layer.

    Input `(N, channels, size, size)`, output `(N, classes)` logits. Parameters come in the order, and under the
    names, of the reference implementation, so that its weights load here.

    Source: Appendix A.1 of the paper; `networks.ConvNet` of https://github.com/GeorgeCazenavette/mtt-distillation.

    Raises:
        ValueError: the image is smaller than `2 ** depth` pixels.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int, depth: int):
        super().__init__()
        if size >> depth < 1:
            raise ValueError(f"network.depth: {depth} blocks halve {size} pixels to nothing; allowed: 2^depth <= {size}")
        layers = []
        for block in range(depth):
            layers += [
                nn.Conv2d(width if block else channels, width, kernel_size=3, padding=1),
                nn.GroupNorm(width, width),  # one channel a group: instance norm with a learned scale and shift
                nn.ReLU(),
                nn.AvgPool2d(kernel_size=2, stride=2),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size >> depth) ** 2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).flatten(1))
