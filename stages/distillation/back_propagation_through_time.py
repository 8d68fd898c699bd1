"""Back-propagation through time, the mathematics of RTP: train on synthetic images, then classify real ones.

Zhiwei Deng, Olga Russakovsky: "Remember the Past: Distilling Datasets into Addressable Memories for Neural
Networks", NeurIPS 2022, https://arxiv.org/abs/2206.02916;
https://github.com/princetonvisualai/RememberThePast-DatasetDistillation.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.distillation.backbone import Backbone, Gradients, Problem, Update, Variable
from stages.distillation.unroll import Batch, InnerTraining, inner_loss_for, unrolled_gradient
from stages.images.sampling import class_rows, drawn_rows
from stages.machine.transfer import send
from stages.runtime.errors import UserError
from stages.runtime.randomness import generator
from stages.settings.section import Precision

__all__ = ["AddressableMemory", "BackPropagationThroughTime", "PlainImages", "clipped"]


EPS = 1e-6  # keeps the factor finite for a gradient of zero, as in PyTorch's clip_grad_norm_


class Settings(Protocol):
    """The keys that a backbone's own `Settings` has to have; stages/backbones/rtp.py says what they are."""

    iterations: int
    syn_steps: int
    batch_syn: int | None
    batch_real: int
    classes: int | None
    lr_net: float
    momentum_net: float
    lr_img: float
    momentum: float
    clip: float
    n_basis: int | None
    l2: float
    precision: Precision


class PlainImages:
    """A memory that keeps `ipc` images of each class as they are.

    Args:
        draws: of the noise that the images start from.
    """

    def __init__(self, problem: Problem, settings: Settings, draws: torch.Generator):
        real = problem.real.images[:1]
        shape = (problem.ipc * problem.real.classes, *real.shape[1:])
        images = xavier_noise(shape, draws).to(real)
        self.images_per_class = problem.ipc
        self.variables = {"images": Variable(images, settings.lr_img, settings.momentum)}

    def images(self, values: dict[str, Tensor], rows: Tensor | slice) -> Tensor:
        """The synthetic images at `rows`, `(n, C, H, W)`, at these values of the variables."""
        return values["images"][rows]


class AddressableMemory:
    """A memory that keeps basis images of half the side, and combines and enlarges them.

    It has as many images of each class as fit into the room of `ipc` plain ones.

    Args:
        draws: of the noise that basis images and coefficients start from.

    Raises:
        UserError: the basis images alone take more room than the plain images.
    """

    def __init__(self, problem: Problem, settings: Settings, n_basis: int, draws: torch.Generator):
        real = problem.real.images[:1]
        _, channels, side, _ = real.shape
        basis_shape = (n_basis, channels, side // 2, side // 2)
        room = problem.ipc * problem.real.classes * channels * side * side
        room_of_coefficients = room - math.prod(basis_shape)
        self.images_per_class = room_of_coefficients // (problem.real.classes * n_basis)
        if self.images_per_class < 1:
            raise UserError(
                f"distill.n_basis: {n_basis} basis images and their coefficients "
                f"take more room than {problem.ipc} images a class; allowed: fewer"
            )
        coefficients_shape = (self.images_per_class * problem.real.classes, n_basis)
        basis = xavier_noise(basis_shape, draws).to(real)
        coefficients = xavier_noise(coefficients_shape, draws).to(real)
        self.side = side
        self.variables = {
            "basis": Variable(basis, settings.lr_img, settings.momentum),
            "coefficients": Variable(coefficients, settings.lr_img, settings.momentum),
        }

    def images(self, values: dict[str, Tensor], rows: Tensor | slice) -> Tensor:
        """The synthetic images at `rows`, `(n, C, H, W)`, at these values of the variables."""
        coefficients = values["coefficients"][rows]
        small = torch.einsum("nb,bchw->nchw", coefficients, values["basis"])
        return F.interpolate(small, size=(self.side, self.side), mode="bilinear", align_corners=False)


class BackPropagationThroughTime:
    """A memory that is learned, from noise, so that networks trained on it classify the real images."""

    def __init__(self, problem: Problem, settings: Settings):
        real = problem.real
        draws = generator(problem.seed, "noise")
        self.problem = problem
        self.settings = settings
        self.memory: PlainImages | AddressableMemory
        if settings.n_basis is None:
            self.memory = PlainImages(problem, settings, draws)
        else:
            self.memory = AddressableMemory(problem, settings, settings.n_basis, draws)
        classes = torch.arange(real.classes, device=real.labels.device)
        self.labels = classes.repeat_interleave(self.memory.images_per_class)
        self.rows = class_rows(self.labels.cpu(), real.classes)  # of the synthetic images of each class
        self.real_rows = class_rows(real.labels.cpu(), real.classes)
        self.inner_lr = torch.tensor(settings.lr_net).to(real.images[:1])
        classes_in_a_step = at_most(settings.classes)(real.classes)
        images_of_a_class = at_most(settings.batch_syn)(self.memory.images_per_class)
        batch_size = classes_in_a_step * images_of_a_class
        self.memory_settings = {
            "batch_syn": images_of_a_class,
            "batch_real": settings.batch_real,
            "classes": classes_in_a_step,
            "syn_steps": settings.syn_steps,
        }
        inner_images = batch_size * settings.syn_steps * settings.iterations
        self.inner = inner_loss_for(problem.network, real.images[:1], inner_images, settings.precision)

    def backbone(self) -> Backbone:
        return Backbone(
            images=self.images,
            labels=self.labels,
            iterations=self.settings.iterations,
            variables=self.memory.variables,
            updates=self.updates,
            precision=self.settings.precision,
            memory=self.memory_settings,
        )

    def images(self) -> Tensor:
        """All synthetic images at present, `(N, C, H, W)`."""
        values = {key: variable.value for key, variable in self.memory.variables.items()}
        return self.memory.images(values, slice(None))

    def updates(self, iteration: int) -> Iterator[Update]:
        """Train one network on the memory, and judge it on a batch of real images."""
        settings = self.settings
        real = self.problem.real
        draws = generator(self.problem.seed, "rtp", iteration)
        start = self.problem.network.initial(draws).to(real.images[:1])
        values = {}
        for key, variable in self.memory.variables.items():
            values[key] = variable.value.detach().requires_grad_()
        taking_part = self._drawn_classes(iteration)
        chunks = []
        for _ in range(settings.syn_steps):
            chunks.append(self._drawn_rows(self.rows, settings.batch_syn, taking_part, draws))
        real_rows = self._drawn_rows(self.real_rows, settings.batch_real, taking_part, draws)
        chunks, real_rows = send((chunks, real_rows), real.labels.device)
        batch = self._batches(values, iteration, chunks)

        def outer(theta: Tensor) -> Tensor:
            return self.inner.whole_loss(theta, real.images[real_rows], real.labels[real_rows])

        training = InnerTraining(start, batch, settings.syn_steps, self.inner_lr, settings.momentum_net)
        result = unrolled_gradient(self.inner, training, list(values.values()), outer, learn_lr=False)
        gradients = dict(zip(values, result.gradients))
        if "coefficients" in gradients:
            decay = settings.l2 * self.memory.variables["coefficients"].value
            gradients["coefficients"] = gradients["coefficients"] + decay
        yield result.loss, clipped(gradients, settings.clip)

    def _drawn_classes(self, iteration: int) -> list[int]:
        """The classes that take part in an iteration, in ascending order."""
        classes = self.problem.real.classes
        if self.settings.classes is None:
            return list(range(classes))
        order = torch.randperm(classes, generator=generator(self.problem.seed, "rtp classes", iteration))
        return sorted(order[: self.settings.classes].tolist())

    def _drawn_rows(
        self, by_class: list[Tensor], limit: int | None, taking_part: list[int], draws: torch.Generator
    ) -> Tensor:
        """The positions of at most `limit` random images of each class that takes part, on the CPU.

        Args:
            by_class: the positions of all images of each class.
            limit: None: all images of these classes.
            taking_part: as from `_drawn_classes`.
        """
        drawn = drawn_rows(by_class, at_most(limit), draws)  # all classes, so that draws do not depend on it
        return torch.cat([drawn[k] for k in taking_part])

    def _batches(self, values: dict[str, Tensor], iteration: int, chunks: list[Tensor]) -> Batch:
        """The masked batch of each inner step, differentiable in `values`.

        Args:
            chunks: the positions of each step's images.
        """
        mask = self.problem.mask(iteration)
        image_shape = self.problem.real.images.shape[1:]
        mask.draw_ahead([(len(rows), *image_shape) for rows in chunks], self.labels.device)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = chunks[step]
            images = self.memory.images(values, rows)
            return mask(images, step), self.labels[rows]

        return batch


def xavier_noise(shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Uniform noise in Xavier's bounds, which the public code starts from."""
    bound = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
    return torch.empty(shape).uniform_(-bound, bound, generator=draws)


def at_most(limit: int | None) -> Callable[[int], int]:
    """How many to take of so many, e.g. how many images of a class; without a limit all of them."""
    return lambda size: size if limit is None else min(limit, size)


def clipped(gradients: Gradients, limit: float) -> Gradients:
    """The gradients, shrunk together to a norm of at most `limit`."""
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    factor = (limit / (norms.norm() + EPS)).clamp(max=1)
    return {key: gradient * factor for key, gradient in gradients.items()}
