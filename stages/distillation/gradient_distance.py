"""How far the gradients of synthetic images are from those of real ones, and how the images lessen that.

With the gradient `g` of a class's synthetic images `x`, its weights' loss `L`, and the distance `D(g)`:

    dD/dx = d/dx <dL/dtheta, v>,  v = dD/dg

There are two ways to it, with the same numbers up to rounding. `by_double_backward` leaves all to autograd,
which differentiates the gradient's graph once more. `ByProducts` takes `v` from the distance alone and the
rest as a product with a vector, as `unroll.py` does. That can be compiled, and has no convolutions with
filters as large as a layer's output, which double backward needs.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from stages.distillation.unroll import STACKED, InnerLoss
from stages.training.flat import FlatNetwork

__all__ = [
    "ByProducts",
    "Match",
    "by_double_backward",
    "class_gradients",
    "matching_distance",
]

EPS = 1e-6  # keeps the cosine finite where a gradient is zero


class Match(NamedTuple):
    """What a group of classes comes to."""

    distance: Tensor  # scalar: the sum over the classes
    gradient: Tensor  # for the synthetic images, (classes, ipc, C, H, W)


def matching_distance(network: FlatNetwork, ours: Tensor, theirs: Tensor) -> Tensor:
    """The sum of 1 - cosine of two `(P,)` gradients over the output rows of the weights.

    Biases and the parameters of norms, which are vectors, contribute nothing.
    """
    total = ours.new_zeros(())
    for a, b in zip(network.split(ours).values(), network.split(theirs).values()):
        if a.dim() > 1:
            a = a.flatten(1)
            b = b.flatten(1)
            cosines = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + EPS)
            total = total + (1 - cosines).sum()
    return total


def summed_distance(network: FlatNetwork, ours: Tensor, theirs: Tensor) -> Tensor:
    """The sum of the distances of `(classes, P)` gradients."""
    return vmap(partial(matching_distance, network))(ours, theirs).sum()


def by_double_backward(
    loss: InnerLoss, theta: Tensor, images: Tensor, labels: Tensor, targets: Tensor
) -> Match:
    """Match a group of classes; faster than by products where nothing is compiled.

    Args:
        images: synthetic ones, `(classes, ipc, C, H, W)`.
        labels: of these, `(classes, ipc)`.
        targets: the gradients to match, `(classes, P)`.
    """
    images = images.detach().requires_grad_()
    gradients = vmap(grad(loss.loss), STACKED)(theta, images, labels)  # can be differentiated
    distance = summed_distance(loss.network, gradients, targets)
    (gradient,) = torch.autograd.grad(distance, images)
    return Match(distance.detach(), gradient)


class ByProducts:
    """Match groups of classes; arguments as those of `by_double_backward`.

    Args:
        stacked: take the classes of a group together. One by one, each in parts, needs less memory.
    """

    def __init__(self, loss: InnerLoss, stacked: bool):
        self.loss = loss
        self.stacked = stacked
        self.pull = loss.engine(grad_and_value(partial(summed_distance, loss.network)))

    def __call__(self, theta: Tensor, images: Tensor, labels: Tensor, targets: Tensor) -> Match:
        images = images.detach()
        gradients = class_gradients(self.loss, theta, list(images), list(labels), self.stacked)
        v, distance = self.pull(gradients, targets)
        if self.stacked:
            return Match(distance, self.loss.stacked_image_products(theta, images, labels, v))
        products = [self.loss.products(theta, *own) for own in zip(images, labels, v)]
        return Match(distance, torch.stack([of_images for _, of_images in products]))


def class_gradients(
    loss: InnerLoss,
    theta: Tensor,
    images: list[Tensor],
    labels: list[Tensor],
    stacked: bool,
) -> Tensor:
    """`(classes, P)`: the gradient of the batch of each class.

    Args:
        stacked: compute them together, if all batches have one size; one by one is faster on a CPU.
    """
    sizes = {len(batch) for batch in images}
    if stacked and len(sizes) == 1:
        return loss.stacked_gradients(theta, torch.stack(images), torch.stack(labels))
    gradients = [loss.gradient(theta, x, y) for x, y in zip(images, labels)]
    return torch.stack(gradients)
