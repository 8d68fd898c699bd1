"""ConvNets side by side: S networks as one network whose convolutions have a group for each of them.

`vmap` comes to the same numbers, but on CUDA it takes the gradient of group norm apart and copies what one
layer hands to the next. For 25 networks with 256 CIFAR images each it makes 182 calls and has up to 27.0 GiB
alive; the network here makes 75 and has 12.7. That was counted, not measured.
"""

import torch
import torch.nn.functional as F
from torch import nn

from stages.networks.convnet import ConvNet
from stages.training.flat import FlatNetwork

__all__ = ["logits_side_by_side"]


def logits_side_by_side(network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The logits `(S, B, K)` of S ConvNets, each for images of its own.

    A layer of C channels becomes one of S * C channels, of which network s has those from s * C on.

    Args:
        network: a ConvNet.
        theta: weights, `(S, P)`.
        images: `(S, B, C, H, W)`.
    """
    convnet = network.module
    assert isinstance(convnet, ConvNet)
    weights = network.split(theta)
    values = images.transpose(0, 1).flatten(1, 2)  # (B, S * C, H, W)
    for name, layer in convnet.features.named_children():
        values = _layer_side_by_side(layer, f"features.{name}", weights, values)
    features = values.unflatten(1, (len(theta), -1)).flatten(2).transpose(0, 1)  # (S, B, F)
    weight = weights["classifier.weight"].transpose(1, 2)  # (S, F, K)
    bias = weights["classifier.bias"][:, None]  # (S, 1, K)
    return torch.baddbmm(bias, features, weight)


def _layer_side_by_side(
    layer: nn.Module, name: str, weights: dict[str, torch.Tensor], values: torch.Tensor
) -> torch.Tensor:
    """What S copies of a layer, each with its own weights, make of `(B, S * C, H, W)`."""
    if not isinstance(layer, (nn.Conv2d, nn.GroupNorm)):
        return layer(values)  # ReLU and pooling look at each channel alone
    networks = len(weights[f"{name}.weight"])
    weight = weights[f"{name}.weight"].flatten(0, 1)
    bias = weights[f"{name}.bias"].flatten(0, 1)
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(values, weight, bias, padding=layer.padding, groups=networks)
    return F.group_norm(values, networks * layer.num_groups, weight, bias, layer.eps)
