"""A network as a pure function of one flat weight vector."""

import math

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from stages.shared.convnet import ConvNet, NetworkSettings
from stages.shared.engine import part_size
from stages.shared.images import LabelledImages, NormalisedImages

__all__ = ["FlatNetwork", "flat_convnet", "predict"]

BATCH = 1000  # images a forward pass on a GPU


class FlatNetwork:
    """`network(theta, images) -> logits`, where `theta` is a vector of all `size` weights in the module's own order.

    Trajectory matching and unrolled training treat the weights as one point in space; so do expert buffers.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.names = [name for name, _ in module.named_parameters()]
        self.shapes = [p.shape for p in module.parameters()]
        self.sizes = [p.numel() for p in module.parameters()]
        self.size = sum(self.sizes)
        self.compiled = {}  # what training has compiled of it

    def split(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of `theta`, one per parameter of the module."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes)}

    def __call__(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return functional_call(self.module, self.split(theta), (images,))

    def alone(self, theta: torch.Tensor) -> nn.Module:
        """The module with `theta` for its parameters' values: where nothing is stacked or compiled, less work than a functional call."""
        for parameter, part in zip(self.module.parameters(), self.split(theta.detach()).values()):
            parameter.data = part
        return self.module

    def operations(self, image: torch.Tensor) -> int:
        """Floating-point operations of the products in a forward pass of `(1, C, H, W)`; backward takes twice as many."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.module(image)
        return counter.get_total_flops()

    def largest_layer(self, image: torch.Tensor) -> int:
        """Bytes of the largest output of any layer for `(1, C, H, W)`."""
        largest = [0]
        hooks = [
            module.register_forward_hook(lambda _, __, out: largest.append(out.numel() * out.element_size()))
            for module in self.module.modules()
            if not list(module.children())
        ]
        with torch.no_grad():
            self.module(image)
        for hook in hooks:
            hook.remove()
        return max(largest)

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Weights as PyTorch's layers initialise themselves, from an explicit generator: `(size,)` on the CPU.

        Convolution and linear layers: uniform in +-1/sqrt(fan_in), weight and bias alike (Kaiming uniform with
        a = sqrt(5)); norm layers: scale 1, shift 0.
        """
        parts = []
        for module in self.module.modules():
            weight = getattr(module, "weight", None)
            if weight is None:
                continue
            if weight.dim() == 1:
                parts += [torch.ones(weight.shape), torch.zeros(module.bias.shape)]
                continue
            bound = 1 / math.sqrt(weight[0].numel())
            parts += [torch.empty(p.shape).uniform_(-bound, bound, generator=generator) for p in (weight, module.bias) if p is not None]
        return torch.cat([p.flatten() for p in parts])


def flat_convnet(settings: NetworkSettings, data: LabelledImages, device: torch.device) -> FlatNetwork:
    """The ConvNet of a data set: channels, size and classes are the images'."""
    _, channels, size, _ = data.images.shape
    return FlatNetwork(ConvNet(channels, size, data.classes, settings.width, settings.depth).to(device))


@torch.no_grad()
def predict(network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor | NormalisedImages) -> torch.Tensor:
    """`(N, K)` logits of `(N, C, H, W)` images, a batch at a time, and on a CPU few enough for its cache."""
    size = part_size(BATCH, network.largest_layer(images[:1]), images.device)
    return torch.cat([network(theta, batch) for batch in images.split(size)])
