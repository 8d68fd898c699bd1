"""A network as a pure function of one flat vector of weights."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from stages.images.prepared import LabelledImages, NormalisedImages
from stages.machine.engine import part_size
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.settings.network import NetworkSettings

__all__ = ["FlatNetwork", "flat_convnet", "predict", "predict_each"]

BATCH = 1000  # images of a forward pass on a GPU


class FlatNetwork:
    """`network(theta, images) -> logits`, where `theta` holds all `size` weights in the module's own order.

    Trajectory matching and unrolled training treat the weights as one point in space; so do expert
    trajectories.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.names = [name for name, _ in module.named_parameters()]
        self.shapes = [parameter.shape for parameter in module.parameters()]
        self.sizes = [parameter.numel() for parameter in module.parameters()]
        self.size = sum(self.sizes)
        self.compiled: dict[tuple, Callable] = {}  # what training has compiled, by its objective

    def to(self, device: torch.device) -> "FlatNetwork":
        """A copy on another device."""
        return FlatNetwork(deepcopy(self.module).to(device))

    def split(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of `theta`, one for each parameter of the module.

        Args:
            theta: `(P,)`, or `(S, P)` for views `(S, *shape)`.
        """
        parts = theta.split(self.sizes, -1)
        stacked = theta.shape[:-1]
        return {name: part.view(stacked + shape) for name, part, shape in zip(self.names, parts, self.shapes)}

    def __call__(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return functional_call(self.module, self.split(theta), (images,))

    def alone(self, theta: torch.Tensor) -> nn.Module:
        """The module, with the values of `theta` in its parameters.

        Where nothing is stacked or compiled, calling it is less work than a functional call.
        """
        parts = self.split(theta.detach()).values()
        for parameter, part in zip(self.module.parameters(), parts):
            parameter.data = part
        return self.module

    def operations(self, image: torch.Tensor) -> int:
        """Floating-point operations of a forward pass: of its products with weights, 2 for each weight used.

        A backward pass takes twice as many. PyTorch's own counter takes a second longer, as it loads the
        compiler.

        Args:
            image: `(1, C, H, W)`.
        """
        total = 0
        for layer, output in self._outputs(image):
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                total += 2 * output.numel() * layer.weight[0].numel()
        return total

    def largest_layer(self, image: torch.Tensor) -> int:
        """Bytes of the largest output of a layer for `(1, C, H, W)`."""
        return max(output.numel() * output.element_size() for _, output in self._outputs(image))

    def all_layers(self, image: torch.Tensor) -> int:
        """Bytes of the outputs of all layers for `(1, C, H, W)`."""
        return sum(output.numel() * output.element_size() for _, output in self._outputs(image))

    def _outputs(self, image: torch.Tensor) -> list[tuple[nn.Module, torch.Tensor]]:
        """Every layer with its output in a forward pass."""
        outputs = []

        def keep(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            outputs.append((layer, output))

        layers = [module for module in self.module.modules() if not list(module.children())]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        with torch.no_grad():
            self.module(image)
        for hook in hooks:
            hook.remove()
        return outputs

    def initial(self, draws: torch.Generator) -> torch.Tensor:
        """Weights `(size,)` on the CPU, drawn as PyTorch's layers draw theirs, but from a generator.

        Convolution and linear layers: uniform in +-1/sqrt(fan_in), weight and bias alike (Kaiming
        uniform with a = sqrt(5)). Norm layers: scale 1, shift 0.
        """
        parts: list[torch.Tensor] = []
        for module in self.module.modules():
            weight = getattr(module, "weight", None)
            if weight is None:
                continue
            if weight.dim() == 1:  # a norm layer
                parts += [torch.ones(weight.shape), torch.zeros(weight.shape)]
                continue
            fan_in = weight[0].numel()
            parts.append(_uniform(weight.shape, fan_in, draws))
            bias = getattr(module, "bias", None)
            if bias is not None:
                parts.append(_uniform(bias.shape, fan_in, draws))
        return torch.cat([part.flatten() for part in parts])


def _uniform(shape: torch.Size, fan_in: int, draws: torch.Generator) -> torch.Tensor:
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=draws)


def flat_convnet(settings: NetworkSettings, data: LabelledImages, device: torch.device) -> FlatNetwork:
    """The ConvNet for the channels, the size and the classes of a data set's images.

    Raises:
        UserError: it has too many blocks for the size.
    """
    _, channels, size, _ = data.images.shape
    try:
        module = ConvNet(channels, size, data.classes, settings.width, settings.depth)
    except ValueError as problem:
        raise UserError(str(problem)) from None
    return FlatNetwork(module.to(device))


@torch.no_grad()
def predict(
    network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor | NormalisedImages
) -> torch.Tensor:
    """`(N, K)` logits of `(N, C, H, W)` images, a batch at a time; on a CPU a batch fits into its cache."""
    size = part_size(BATCH, network.largest_layer(images[:1]), images.device)
    return torch.cat([network(theta, batch) for batch in images.split(size)])


def predict_each(
    network: FlatNetwork, weights: torch.Tensor, images: torch.Tensor | NormalisedImages
) -> torch.Tensor:
    """`(S, N, K)` logits on the CPU of networks with weights `(S, P)`, on the device of the images."""
    return torch.stack([predict(network, theta.to(images.device), images).cpu() for theta in weights])
