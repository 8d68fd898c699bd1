"""RTP: images after a training on which a network classifies the real images; back-propagation through time.

Zhiwei Deng, Olga Russakovsky: "Remember the Past: Distilling Datasets into Addressable Memories for Neural Networks",
NeurIPS 2022, https://arxiv.org/abs/2206.02916; https://github.com/princetonvisualai/RememberThePast-DatasetDistillation.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field

from stages.shared.errors import UserError
from stages.shared.method import Method, Problem, Variable
from stages.shared.randomness import generator
from stages.shared.sampling import per_class
from stages.shared.settings import Count, Positive, Section
from stages.shared.unroll import inner_loss, unrolled_gradient

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`. Published: 150 steps, 10 synthetic images a class a step, 64 real images a class."""

    iterations: Count
    syn_steps: Count  # steps of training on the synthetic images
    batch_syn: Count | None  # images of each class a step; null: all
    batch_real: Count = 64  # images of each class in the outer loss
    lr_net: Positive = 0.01
    momentum_net: float = Field(0.9, ge=0, lt=1)
    lr_img: Positive = 0.1
    momentum: float = Field(0.5, ge=0, lt=1)
    clip: Positive = 2.0  # norm of the outer gradient
    n_basis: Count | None = None  # null: plain images; else memory addressing with that many basis images of half the side
    l2: float = Field(1e-4, ge=0)  # on the coefficients of memory addressing


def start(problem: Problem, settings: Settings) -> Method:
    """Start from noise: `ipc` plain images a class, or basis images and the coefficients that combine them.

    Memory addressing makes as many images a class as can be had with the numbers that `ipc` plain ones take to store.

    Raises:
        UserError: the basis images alone take more than that.
    """
    real, network = problem.real, problem.network
    one = real.images[:1]
    channels, side = one.shape[1], one.shape[2]
    basis_shape, count = (settings.n_basis, channels, side // 2, side // 2), problem.ipc
    if settings.n_basis:
        numbers = problem.ipc * real.classes * channels * side * side - math.prod(basis_shape)
        count = numbers // (real.classes * settings.n_basis)
        if count < 1:
            raise UserError(f"distill.n_basis: {settings.n_basis} basis images and their coefficients take more room than {problem.ipc} images a class; allowed: fewer")
    labels = torch.arange(real.classes, device=real.labels.device).repeat_interleave(count)
    draws = generator(problem.seed, "noise")

    def variable(*shape):
        """Xavier's uniform noise, as the public code starts from."""
        bound = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
        return Variable(torch.empty(shape).uniform_(-bound, bound, generator=draws).to(one), settings.lr_img, settings.momentum)

    if settings.n_basis:
        variables = {"basis": variable(*basis_shape), "coefficients": variable(len(labels), settings.n_basis)}
    else:
        variables = {"images": variable(len(labels), channels, side, side)}

    def images(values: dict[str, torch.Tensor], rows=slice(None)) -> torch.Tensor:
        """The synthetic images at `rows`, `(n, C, H, W)`, from the variables' values."""
        if "images" in values:
            return values["images"][rows]
        small = torch.einsum("nb,bchw->nchw", values["coefficients"][rows], values["basis"])
        return F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)

    chunk = real.classes * min(settings.batch_syn or count, count)
    inner = inner_loss(network, one, chunk * settings.syn_steps * settings.iterations)
    rate = torch.tensor(settings.lr_net).to(one)

    def steps(iteration: int) -> Iterator:
        draws, mask = generator(problem.seed, "rtp", iteration), problem.mask(iteration)
        begin = network.initial(draws).to(one)
        chunks = [per_class(labels, real.classes, lambda n: min(settings.batch_syn or n, n), draws) for _ in range(settings.syn_steps)]
        rows = per_class(real.labels, real.classes, lambda n: min(settings.batch_real, n), draws)
        leaves = {key: variable.value.detach().requires_grad_() for key, variable in variables.items()}
        result = unrolled_gradient(
            inner, begin, lambda step: (mask(images(leaves, chunks[step]), step), labels[chunks[step]]), settings.syn_steps,
            list(leaves.values()), rate, lambda theta: inner.whole_loss(theta, real.images[rows], real.labels[rows]), settings.momentum_net, learn_lr=False,
        )  # fmt: skip
        gradients = dict(zip(leaves, result.gradients))
        if "coefficients" in gradients:
            gradients["coefficients"] = gradients["coefficients"] + settings.l2 * variables["coefficients"].value
        yield result.loss, clipped(gradients, settings.clip)

    return Method(lambda: images({key: variable.value for key, variable in variables.items()}), labels, settings.iterations, variables, steps)


def clipped(gradients: dict[str, torch.Tensor], limit: float) -> dict[str, torch.Tensor]:
    """The gradients, shrunk together to a norm of at most `limit`."""
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    return {key: gradient * (limit / (norm + 1e-6)).clamp(max=1) for key, gradient in gradients.items()}
