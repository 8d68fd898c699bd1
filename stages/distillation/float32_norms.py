"""Norm layers that work in float32 while products are rounded to bfloat16."""

from copy import deepcopy

from torch import Tensor, nn

from stages.training.flat import FlatNetwork

__all__ = ["with_float32_norms"]


class Float32GroupNorm(nn.GroupNorm):
    """On CUDA `torch.autocast` does this by itself.

    On a CPU it gives bfloat16 inputs to float32 weights, and PyTorch's forward derivative of that is wrong
    (2.11 and 2.15): the next convolution ends in an error.
    """

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.float())


def with_float32_norms(network: FlatNetwork) -> FlatNetwork:
    """A copy of the network whose group norms take their inputs in float32."""
    module = deepcopy(network.module)
    for layer in module.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.__class__ = Float32GroupNorm
    return FlatNetwork(module)
