"""The ConvNet that all four distillation backbones use."""

import torch
from torch import nn

from stages.shared.settings import Count, Section

__all__ = ["ConvNet", "HalvingPool", "NetworkSettings"]


class NetworkSettings(Section):
    """`datasets.<name>.network`."""

    width: Count
    depth: Count


class HalvingPool(nn.AvgPool2d):
    """2x2 average pooling of `(N, C, size, size)`. Eager on a CPU it is a product of every two rows with a constant matrix, which
    is faster than PyTorch's own (`benchmarks/NOTES.md`) and gives the same numbers.
    """

    def __init__(self, size: int):
        super().__init__(kernel_size=2, stride=2)
        quarters = torch.eye(size // 2).repeat_interleave(2, 0).repeat(2, 1) / 4  # (2 * size, size // 2)
        self.register_buffer("quarters", quarters, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        if 2 * width != len(self.quarters) or images.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(images)
        return (images.reshape(-1, 2 * width) @ self.quarters).view(count, channels, height // 2, width // 2)


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
                HalvingPool(size >> block),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size >> depth) ** 2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).flatten(1))
