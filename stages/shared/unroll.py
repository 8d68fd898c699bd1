"""Exact gradients through N steps of SGD, in memory that does not grow with the steps' graphs.

The inner training runs without a graph and keeps only the weights after each step. Walking back, each step's graph is
rebuilt alone: with the adjoint `v` of the update, the product of the inner Hessian with `v` moves the adjoint one step
back, and the mixed product gives the gradient for that step's images.

    m[s+1] = momentum * m[s] + g(theta[s], x[s])          theta[s+1] = theta[s] - lr * m[s+1]

Source of the adjoint: Maclaurin, Duvenaud, Adams: "Gradient-based Hyperparameter Optimization through Reversible
Learning", 2015, https://arxiv.org/abs/1502.03492 (there the weights are recomputed in reverse; here they are kept).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from stages.shared.engine import part_size, worth_compiling
from stages.shared.flat import FlatNetwork

__all__ = ["InnerLoss", "Unrolled", "inner_loss", "unrolled_gradient"]

Batch = Callable[[int], tuple[torch.Tensor, torch.Tensor]]  # step -> images (N, C, H, W), labels (N,)


class InnerLoss:
    """Cross-entropy of `network` with its gradient and Hessian products, eager or compiled.

    The eager product differentiates the gradient backward, which is the faster way there; the compiled one differentiates
    it forward (the Hessian is symmetric), which `torch.compile` can trace. On a CPU a batch is worked off in parts that fit
    into its cache, which is exact as no layer looks at more than one image. Same numbers to float tolerance.

    Args:
        precision: of the network's products, "float32" or "bfloat16"; weights, gradients and the loss stay float32.
    """

    def __init__(self, network: FlatNetwork, compiled: bool = False, precision: str = "float32"):
        self.network, self.precision, self.image_bytes = network, precision, 0
        self.one_gradient, self.one_products = self._gradient, self._backward_over_reverse
        if compiled:
            self.compiled_loss = torch.compile(self.loss, dynamic=False)
            self.one_gradient = self._compiled_gradient
            self.one_products = torch.compile(self._forward_over_reverse, dynamic=False)

    def loss(self, theta, images, labels):
        return self._cross_entropy(partial(self.network, theta), images, labels)

    def _cross_entropy(self, of, images, labels):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = of(images)
        return F.cross_entropy(logits.to(images.dtype), labels)

    def whole_loss(self, theta: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss as a scalar to differentiate, of more images than one graph has room for: a part's is made anew on the way back."""
        parts = self._parts(images, labels)
        if len(parts) == 1:
            return self.loss(theta, images, labels)
        return sum(share * checkpoint(self.loss, theta, x, y, use_reentrant=False) for share, x, y in parts)

    def gradient(self, theta: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """dL/dtheta, `(P,)`."""
        return sum(share * self.one_gradient(theta, x, y) for share, x, y in self._parts(images, labels))

    def products(self, theta, images, labels, v) -> tuple[torch.Tensor, torch.Tensor]:
        """`(d/dtheta) <dL/dtheta, v>`, `(P,)`, and `(d/dimages) <dL/dtheta, v>` of the images' shape."""
        theta_product, image_products = 0, []
        for share, x, y in self._parts(images, labels):
            part = self.one_products(theta, x, y, v)
            theta_product = theta_product + share * part[0]
            image_products.append(share * part[1])
        return theta_product, torch.cat(image_products)

    def _parts(self, images, labels):
        """Parts of a batch, each with its share in the mean."""
        self.image_bytes = self.image_bytes or self.network.largest_layer(images[:1].detach())
        size = part_size(len(images), self.image_bytes, images.device)
        return [(len(x) / len(images), x, y) for x, y in zip(images.detach().split(size), labels.split(size))]

    def _gradient(self, theta, images, labels):
        with torch.enable_grad():
            module = self.network.alone(theta)
            parts = torch.autograd.grad(self._cross_entropy(module, images, labels), list(module.parameters()))
            return torch.cat([part.flatten() for part in parts])

    def _compiled_gradient(self, theta, images, labels):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(self.compiled_loss(theta, images, labels), theta)[0]

    def _backward_over_reverse(self, theta, images, labels, v):
        with torch.enable_grad():
            theta, images = theta.detach().requires_grad_(), images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(theta, images, labels), theta, create_graph=True)
            return torch.autograd.grad(gradient, (theta, images), v)

    def _forward_over_reverse(self, theta, images, labels, v):
        def gradients(theta):
            return torch.func.grad(self.loss, argnums=(0, 1))(theta, images, labels)

        return torch.func.jvp(gradients, (theta,), (v,))[1]


def inner_loss(network: FlatNetwork, image: torch.Tensor, images: int) -> InnerLoss:
    """The engine for a run that unrolls `images` images in all, e.g. `image` of `(1, C, H, W)`: compiled where that pays.

    A step's gradient and product take about eleven forward passes' operations.
    """
    return InnerLoss(network, worth_compiling(11 * network.operations(image) * images, image.device))


class Unrolled(NamedTuple):
    loss: torch.Tensor  # scalar: the outer loss at the last weights
    final: torch.Tensor  # (P,): the last weights
    gradients: list[torch.Tensor]  # for `variables`, each of its variable's shape
    lr_gradient: torch.Tensor | None  # scalar: for the step size, where it is learned


def unrolled_gradient(
    inner: InnerLoss,
    start: torch.Tensor,
    batch: Batch,
    steps: int,
    variables: Sequence[torch.Tensor],
    lr: torch.Tensor,
    outer: Callable[[torch.Tensor], torch.Tensor],
    momentum: float = 0.0,
    learn_lr: bool = True,
) -> Unrolled:
    """Gradient of `outer(theta_N)` for `variables` and `lr` after `steps` of SGD from `start` on `batch(0..N-1)`.

    `batch(s)` is called once on the way out and once on the way back; it must give the same batch both times and be
    differentiable in `variables` (augmentation and mask belong inside it). The weights of every step are kept, `(N, P)`,
    and where `lr` is learned the velocities as well.
    """
    theta, velocity = start, torch.zeros_like(start)
    thetas, velocities = [], []
    with torch.no_grad():
        for step in range(steps):
            thetas.append(theta)
            velocity = momentum * velocity + inner.gradient(theta, *batch(step))
            theta = theta - lr * velocity
            if learn_lr:
                velocities.append(velocity)

    final = theta.detach().requires_grad_()
    loss = outer(final)
    (adjoint,) = torch.autograd.grad(loss, final)  # of theta[s + 1]

    gradients = [torch.zeros_like(variable) for variable in variables]
    lr_gradient, velocity_adjoint = torch.zeros_like(lr) if learn_lr else None, torch.zeros_like(start)
    for step in reversed(range(steps)):
        velocity_adjoint = momentum * velocity_adjoint - lr * adjoint
        images, labels = batch(step)
        theta_product, image_product = inner.products(thetas.pop(), images.detach(), labels, velocity_adjoint)
        for total, part in zip(gradients, torch.autograd.grad(images, variables, image_product)):
            total += part
        if learn_lr:
            lr_gradient -= torch.dot(velocities.pop(), adjoint)
        adjoint = adjoint + theta_product
    return Unrolled(loss.detach(), final.detach(), gradients, lr_gradient)
