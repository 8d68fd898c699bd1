"""Exact gradients through N steps of SGD, in memory that does not grow with the graphs of the steps.

The inner training runs without a graph and keeps only the weights after each step. On the way back, the
graph of each step is rebuilt alone: with the adjoint `v` of the update, the product of the inner Hessian
with `v` moves the adjoint one step back, and the mixed product gives the gradient for the images of that
step.

    m[s+1] = momentum * m[s] + g(theta[s], x[s])          theta[s+1] = theta[s] - lr * m[s+1]

Source of the adjoint: Maclaurin, Duvenaud, Adams: "Gradient-based Hyperparameter Optimization through
Reversible Learning", 2015, https://arxiv.org/abs/1502.03492 (there the weights are recomputed in reverse;
here they are kept).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

from stages.distillation.float32_norms import with_float32_norms
from stages.machine.compiled import compile_function, uses_graphs
from stages.machine.engine import part_size, worth_compiling
from stages.training.flat import FlatNetwork

__all__ = ["STACKED", "InnerLoss", "InnerTraining", "Unrolled", "inner_loss_for", "unrolled_gradient"]

Batch = Callable[[int], tuple[Tensor, Tensor]]  # inner step -> images (N, C, H, W), labels (N,)
Network = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> logits (N, K)
Products = tuple[Tensor, Tensor]  # for the weights (P,), and for the images (N, C, H, W)

STACKED = (None, 0, 0)  # S batches for the same weights: theta (P,), images (S, N, C, H, W), labels (S, N)


class Part(NamedTuple):
    """A part of a batch."""

    share: float  # of the batch's images
    images: Tensor
    labels: Tensor


class InnerLoss:
    """The cross-entropy of `network` with its gradient and Hessian products, eager or compiled.

    The eager product differentiates the gradient backward, which is faster there. The compiled one
    differentiates it forward (the Hessian is symmetric), which `torch.compile` can trace. A batch is split
    into parts that fit into a CPU's cache or a GPU's memory, which is exact, as no layer looks at more than
    one image. All ways give the same numbers to float tolerance.

    Args:
        graphs: what is compiled is also recorded as CUDA graphs (`stages/machine/compiled.py`), for batches
            so small that a GPU waits for its launches.
        precision: of the products in the network; the rest stays float32. "bfloat16" is seen to here, "tf32"
            by `learn`.
    """

    def __init__(
        self,
        network: FlatNetwork,
        compiled: bool = False,
        precision: str = "float32",
        graphs: bool = False,
    ):
        self.network = with_float32_norms(network) if precision == "bfloat16" else network
        self.compiled = compiled
        self.precision = precision
        self.graphs = graphs
        self.image_bytes = 0  # of the largest layer's output for an image; measured on the first batch
        self.part_gradient: Callable[..., Tensor] = self._eager_gradient
        self.part_products: Callable[..., Products] = self._backward_over_reverse
        self.stacked_gradients = self.engine(vmap(grad(self.loss), STACKED))
        self.stacked_image_products = self.engine(vmap(self._image_product, (*STACKED, 0)))
        if compiled:
            self.compiled_loss = torch.compile(self.loss, dynamic=False)
            self.part_gradient = self.engine(grad(self.loss)) if graphs else self._compiled_gradient
            self.part_products = self.engine(self._forward_over_reverse)

    def engine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that runs as this loss does: as it is, compiled, or recorded as well."""
        return compile_function(function, self.graphs) if self.compiled else function

    def loss(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The mean over the images, a scalar that can be differentiated."""
        return self._cross_entropy(partial(self.network, theta), images, labels)

    def whole_loss(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The same for more images than one graph has room for; the way back rebuilds it part by part."""
        parts = self._parts(images, labels)
        if len(parts) == 1:
            return self.loss(theta, images, labels)
        total = theta.new_zeros(())
        for part in parts:
            point = (theta, part.images, part.labels)
            loss = checkpoint(self.loss, *point, use_reentrant=False, preserve_rng_state=False)
            total = total + part.share * loss
        return total

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """dL/dtheta, `(P,)`."""
        total = torch.zeros_like(theta)
        for part in self._parts(images, labels):
            total += part.share * self.part_gradient(theta, part.images, part.labels)
        return total

    def products(self, theta: Tensor, images: Tensor, labels: Tensor, v: Tensor) -> Products:
        """`(d/dtheta) <dL/dtheta, v>`, `(P,)`, and `(d/dimages) <dL/dtheta, v>` of the images' shape."""
        theta_product = torch.zeros_like(theta)
        image_products = []
        for part in self._parts(images, labels):
            of_theta, of_images = self.part_products(theta, part.images, part.labels, v)
            theta_product += part.share * of_theta
            image_products.append(part.share * of_images)
        return theta_product, torch.cat(image_products)

    def _cross_entropy(self, network: Network, images: Tensor, labels: Tensor) -> Tensor:
        rounded = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=rounded):
            logits = network(images)
        return F.cross_entropy(logits.to(images.dtype), labels)

    def _parts(self, images: Tensor, labels: Tensor) -> list[Part]:
        if not self.image_bytes:
            self.image_bytes = self.network.largest_layer(images[:1].detach())
        size = part_size(len(images), self.image_bytes, images.device)
        batches = zip(images.detach().split(size), labels.split(size))
        return [Part(len(x) / len(images), x, y) for x, y in batches]

    def _eager_gradient(self, theta, images, labels):
        with torch.enable_grad():
            module = self.network.alone(theta)
            loss = self._cross_entropy(module, images, labels)
            parts = torch.autograd.grad(loss, list(module.parameters()))
            return torch.cat([part.flatten() for part in parts])

    def _compiled_gradient(self, theta, images, labels):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            loss = self.compiled_loss(theta, images, labels)
            return torch.autograd.grad(loss, theta)[0]

    def _backward_over_reverse(self, theta, images, labels, v):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            images = images.detach().requires_grad_()
            loss = self.loss(theta, images, labels)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            return torch.autograd.grad(gradient, (theta, images), v)

    def _image_product(self, theta, images, labels, v):
        """The second of the products alone."""
        of_images = grad(self.loss, argnums=1)

        def gradient_at(theta):
            return of_images(theta, images, labels)

        _, product = jvp(gradient_at, (theta,), (v,))
        return product

    def _forward_over_reverse(self, theta, images, labels, v):
        gradients = grad(self.loss, argnums=(0, 1))

        def gradients_at(theta):
            return gradients(theta, images, labels)

        _, products = jvp(gradients_at, (theta,), (v,))
        return products


def inner_loss_for(network: FlatNetwork, image: Tensor, images: int, precision: str) -> InnerLoss:
    """The inner loss for a distillation that unrolls `images` images in all, compiled where that pays.

    Args:
        image: any image of the data set, `(1, C, H, W)`.
    """
    operations = 11 * network.operations(image)  # gradient and products take about eleven forward passes
    compiled = worth_compiling(operations * images, image.device)
    return InnerLoss(network, compiled, precision, graphs=uses_graphs(image.device))


class InnerTraining(NamedTuple):
    """`steps` of SGD from the weights `start`.

    `batch(step)` is called once on the way out and once on the way back. It has to give the same batch both
    times and to be differentiable in the variables, so augmentation and mask belong inside it.
    """

    start: Tensor  # (P,)
    batch: Batch
    steps: int
    lr: Tensor  # scalar
    momentum: float = 0.0


class Unrolled(NamedTuple):
    """The outer loss at the end of an inner training, and its gradients."""

    loss: Tensor  # scalar
    final: Tensor  # (P,): the last weights
    gradients: list[Tensor]  # for the variables, each of its variable's shape
    lr_gradient: Tensor  # scalar: for the inner step size; 0 if that is not learned


def unrolled_gradient(
    inner: InnerLoss,
    training: InnerTraining,
    variables: Sequence[Tensor],
    outer: Callable[[Tensor], Tensor],
    learn_lr: bool = True,
) -> Unrolled:
    """Train, take the outer loss of the last weights, and differentiate it back through all steps.

    The weights of every step are kept, `(steps, P)`, and if the inner step size is learned the velocities
    as well.

    Args:
        variables: the tensors that the batches are computed from.
        outer: the outer loss as a function of the last weights, `(P,)` to a scalar.
    """
    path = train(inner, training, keep_velocities=learn_lr)
    final = path.final.detach().requires_grad_()
    loss = outer(final)
    (adjoint,) = torch.autograd.grad(loss, final)  # of theta[s + 1]

    gradients = [torch.zeros_like(variable) for variable in variables]
    lr_gradient = torch.zeros_like(training.lr)
    velocity_adjoint = torch.zeros_like(training.start)
    for step in reversed(range(training.steps)):
        velocity_adjoint = training.momentum * velocity_adjoint - training.lr * adjoint
        images, labels = training.batch(step)
        theta = path.thetas.pop()
        theta_product, image_product = inner.products(theta, images.detach(), labels, velocity_adjoint)
        parts = torch.autograd.grad(images, variables, image_product)
        for gradient, part in zip(gradients, parts):
            gradient += part
        if learn_lr:
            lr_gradient -= torch.dot(path.velocities.pop(), adjoint)
        adjoint = adjoint + theta_product
    return Unrolled(loss.detach(), final.detach(), gradients, lr_gradient)


class InnerPath(NamedTuple):
    """The way of an inner training through the space of weights."""

    final: Tensor  # (P,): the weights after the last step
    thetas: list[Tensor]  # the weights before each step
    velocities: list[Tensor]  # after each step; empty if the inner step size is not learned


@torch.no_grad()
def train(inner: InnerLoss, training: InnerTraining, keep_velocities: bool) -> InnerPath:
    """Take all steps of an inner training, without a graph."""
    theta = training.start
    velocity = torch.zeros_like(theta)
    thetas = []
    velocities = []
    for step in range(training.steps):
        thetas.append(theta)
        images, labels = training.batch(step)
        gradient = inner.gradient(theta, images, labels)
        velocity = training.momentum * velocity + gradient
        theta = theta - training.lr * velocity
        if keep_velocities:
            velocities.append(velocity)
    return InnerPath(theta, thetas, velocities)
