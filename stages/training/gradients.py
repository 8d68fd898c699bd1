"""How training takes the gradients of a batch.

They are eager or compiled, of one network or of several, in parts or at once. The choice changes the speed
only: the numbers are equal up to rounding.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from stages.machine.engine import part_size, worth_compiling
from stages.networks.convnet import ConvNet
from stages.training.flat import FlatNetwork
from stages.training.needs import bytes_of_image
from stages.training.objective import Objective
from stages.training.side_by_side import logits_side_by_side

__all__ = ["BatchGradients", "Gradients", "Workload", "choose_gradients"]

# Compiling saves an eighth of the time of float32 products on a CPU, and about half of that of all others.
# For the former it pays only where a training is this many times as long.
FLOAT32_ON_CPU = 5


class Gradients(NamedTuple):
    """What a batch gives for each of S networks."""

    theta: torch.Tensor  # (S, P): gradient of the mean loss for the weights
    loss: torch.Tensor  # (S,): mean loss
    accuracy: torch.Tensor  # (S,)


# From weights (S, P), images (S, B, C, H, W) and targets (S, B, K) to what `Gradients` holds.
Engine = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class Workload(NamedTuple):
    """How much there is to train."""

    networks: int  # trained side by side
    batch: int  # images of a batch
    images: int  # images that each network sees in the whole training


class BatchGradients:
    """The gradients of whole batches, in parts that fit into the cache of a CPU or the memory of a GPU.

    Args:
        eager: an engine for parts of any size.
        fast: the engine for parts of the usual size; it may be compiled, and compiled code is for one size.
        size_of_parts: from the size of a batch to how many of its images are taken at a time.
        usual: how many images a part usually has.
    """

    def __init__(self, eager: Engine, fast: Engine, size_of_parts: Callable[[int], int], usual: int):
        self.eager = eager
        self.fast = fast
        self.size_of_parts = size_of_parts
        self.usual = usual

    def __call__(self, theta: torch.Tensor, images: torch.Tensor, targets: torch.Tensor) -> Gradients:
        """The mean over the parts of a batch, weighted by their sizes."""
        count = images.shape[1]
        size = self.size_of_parts(count)
        total: list[torch.Tensor] = []
        for x, t in zip(images.split(size, 1), targets.split(size, 1)):
            engine = self.fast if x.shape[1] == self.usual else self.eager
            share = x.shape[1] / count
            part = [share * value for value in engine(theta, x, t)]
            total = [before + value for before, value in zip(total, part)] if total else part
        return Gradients(*total)


def choose_gradients(objective: Objective, image: torch.Tensor, work: Workload) -> BatchGradients:
    """The fastest engines for this much work.

    Args:
        image: `(1, C, H, W)`, any image to train on.
    """
    network = objective.network
    device = image.device
    way = choose_way(network, work.networks, device)
    eager = way(objective)
    operations: float = 3 * network.operations(image) * work.images * work.networks
    if device.type == "cpu" and objective.precision != "bfloat16":
        operations /= FLOAT32_ON_CPU
    compiled = worth_compiling(operations, device)
    fast = compiled_gradients(objective, way) if compiled else eager
    size_of_parts = parts_of_batch(network, image, work.networks)
    return BatchGradients(eager, fast, size_of_parts, size_of_parts(work.batch))


def parts_of_batch(network: FlatNetwork, image: torch.Tensor, networks: int) -> Callable[[int], int]:
    """From the size of a batch to how many of its images so many networks take at a time."""
    image_bytes = network.largest_layer(image)
    device = image.device
    needed = networks * bytes_of_image(network, image)
    return lambda count: part_size(count, image_bytes, device, needed)


# The ways to an engine. Each takes an objective, and whether to compile its function.
Way = Callable[..., Engine]


def choose_way(network: FlatNetwork, networks: int, device: torch.device) -> Way:
    """How the gradients of so many networks are taken on a device."""
    if networks == 1:
        return alone_gradients
    if device.type == "cuda" and isinstance(network.module, ConvNet):
        return side_by_side_gradients
    return stacked_gradients


def compiled_gradients(objective: Objective, way: Way) -> Engine:
    """The compiled engine of a way.

    It is kept with the network, as compilers give up on functions that are new at every call.
    """
    kept = objective.network.compiled
    key = (*objective.key, way.__name__)
    if key not in kept:
        kept[key] = way(objective, compiled=True)
    return kept[key]


def stacked_gradients(objective: Objective, compiled: bool = False) -> Engine:
    """The engine for several networks of any kind: they go through every layer together."""
    gradient_and_value = torch.func.vmap(torch.func.grad_and_value(objective.of_weights, has_aux=True))

    def gradients(theta, images, targets):
        gradient, (loss, accuracy) = gradient_and_value(theta, images, targets)
        return gradient, loss, accuracy

    return torch.compile(gradients, dynamic=False) if compiled else gradients


def side_by_side_gradients(objective: Objective, compiled: bool = False) -> Engine:
    """The engine for several ConvNets, which are one network of many groups.

    No weight is in two of the networks, so the gradient of the sum of their losses is that of each.
    """

    def losses_of_weights(theta, images, targets):
        forward = partial(logits_side_by_side, objective.network, theta)
        logits = objective.logits(forward, images)
        return torch.func.vmap(objective.of_logits)(logits, targets)

    losses = torch.compile(losses_of_weights, dynamic=False) if compiled else losses_of_weights

    def gradients(theta, images, targets):
        theta = theta.detach().requires_grad_()
        loss, accuracy = losses(theta, images, targets)
        (gradient,) = torch.autograd.grad(loss.sum(), theta)
        return gradient, loss.detach(), accuracy

    return gradients


def alone_gradients(objective: Objective, compiled: bool = False) -> Engine:
    """The engine for one network: it runs as a module, which is the fastest way where nothing is compiled."""
    if compiled:
        return _compile_alone(objective)

    def gradients(theta, images, targets):
        module = objective.network.alone(theta[0])
        loss, accuracy = objective.of_forward(module, images[0], targets[0])
        parts = torch.autograd.grad(loss, list(module.parameters()))
        gradient = torch.cat([part.flatten() for part in parts])
        return gradient[None], loss.detach()[None], accuracy[None]

    return gradients


def _compile_alone(objective: Objective) -> Engine:
    """The loss alone is compiled: its two passes become less code than the gradient as one function."""
    compiled = torch.compile(objective.of_weights, dynamic=False)

    def gradients(theta, images, targets):
        theta = theta.detach().requires_grad_()
        loss, accuracy = compiled(theta[0], images[0], targets[0])
        (gradient,) = torch.autograd.grad(loss, theta)
        return gradient, loss.detach()[None], accuracy[None]

    return gradients
