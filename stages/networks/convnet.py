"""ConvNet: the network that sets are distilled for, with the data set's own width and depth."""

import torch
from torch import nn

from stages.settings.network import NetworkSettings

__all__ = ["ConvNet", "HalvingPool", "build"]


class HalvingPool(nn.AvgPool2d):
    """2x2 average pooling of `(N, C, size, size)`.

    Eager on a CPU it is a product of every two rows of pixels with a constant matrix, which is faster
    than PyTorch's own pooling (`benchmarks/NOTES.md`) and gives the same numbers.
    """

    two_rows: torch.Tensor

    def __init__(self, size: int):
        super().__init__(kernel_size=2, stride=2)
        one_row = torch.eye(size // 2).repeat_interleave(2, 0) / 4
        two_rows = one_row.repeat(2, 1)  # (2 * size, size // 2)
        self.register_buffer("two_rows", two_rows, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        fitting = 2 * width == len(self.two_rows)
        if not fitting or images.device.type != "cpu" or self._has_a_faster_own():
            return super().forward(images)
        pooled = images.reshape(-1, 2 * width) @ self.two_rows
        return pooled.view(count, channels, height // 2, width // 2)

    @staticmethod
    def _has_a_faster_own() -> bool:
        """Whether PyTorch's own pooling is faster: with bfloat16 products, or fused by the compiler."""
        return torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()


class ConvNet(nn.Module):
    """`depth` blocks of [3x3 convolution, instance norm, ReLU, 2x2 average pooling], then one linear layer.

    Input `(N, channels, size, size)`, output `(N, classes)` logits. The parameters have the order and
    the names of the reference implementation, so that its weights load here.

    Source: Appendix A.1 of the paper; `networks.ConvNet` of
    https://github.com/GeorgeCazenavette/mtt-distillation.

    Raises:
        ValueError: the image is smaller than `2 ** depth` pixels.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int, depth: int):
        super().__init__()
        if size >> depth < 1:
            problem = f"{depth} blocks halve {size} pixels to nothing"
            raise ValueError(f"network.depth: {problem}; allowed: 2^depth <= {size}")
        layers: list[nn.Module] = []
        for block in range(depth):
            layers.append(nn.Conv2d(width if block else channels, width, kernel_size=3, padding=1))
            layers.append(nn.GroupNorm(width, width))  # instance norm, as each channel is a group of its own
            layers.append(nn.ReLU())
            layers.append(HalvingPool(size >> block))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size >> depth) ** 2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).flatten(1))


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    """The ConvNet for square images of `size` pixels."""
    return ConvNet(channels, size, classes, settings.width, settings.depth)
