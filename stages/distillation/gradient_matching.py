"""Gradient matching, the mathematics of DC and DSA: synthetic images with the gradients of the real images.

Bo Zhao, Konda Reddy Mopuri, Hakan Bilen: "Dataset Condensation with Gradient Matching", ICLR 2021,
https://arxiv.org/abs/2006.05929; https://github.com/VICO-UoE/DatasetCondensation. Equation (5) of the
paper, (6) with a mask.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stages.distillation.backbone import Backbone, Problem, Update, Variable
from stages.distillation.gradient_distance import ByProducts, Match, by_double_backward, class_gradients
from stages.distillation.unroll import InnerLoss
from stages.images.augment import Draw, augment, draw
from stages.images.masking import Masks
from stages.images.sampling import class_rows
from stages.machine.compiled import uses_graphs
from stages.machine.engine import how_many_together, part_size, worth_compiling
from stages.machine.transfer import send
from stages.runtime.randomness import generator
from stages.settings.section import Precision

__all__ = ["GradientMatching", "classes_that_fit"]


class Settings(Protocol):
    """The keys that a backbone's own `Settings` has to have; stages/backbones/dc.py says what they are."""

    iterations: int
    outer_loops: int
    inner_loops: int
    lr_img: float
    momentum: float
    lr_net: float
    batch_real: int
    batch_train: int
    precision: Precision


class UpdateDraws(NamedTuple):
    """What is drawn for an update of the images, by class, on the device."""

    real_rows: list[Tensor]  # (at most batch_real,): the real images to match
    augmentations: list[Draw | None]
    mask: Masks
    first_step: int  # the number of the first class's mask


class ClassBatches(NamedTuple):
    """What a group of classes is matched on, a tensor for each class."""

    synthetic: list[Tensor]  # (ipc, C, H, W)
    real: list[Tensor]  # (at most batch_real, C, H, W)
    real_labels: list[Tensor]


class GradientMatching:
    """Synthetic images, matched a group of classes at a time, so that memory does not grow with the classes.

    The gradient of the synthetic images comes from products on a GPU, where they can be compiled, and from
    double backward on a CPU, where that is faster (`gradient_distance.py`).

    Args:
        initial: the images to start from, `(N, C, H, W)`.
        labels: of these images, `(N,)`, equally many of each class.
        siamese: augment the real and the synthetic batch of a class by the same draw, and the batches of
            the inner loops too.
        mask_after: mask the synthetic images after they are augmented, and not before. Those that the network
            is trained on between two updates are not masked, as equation (6) has the mask in the matching.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        initial: Tensor,
        labels: Tensor,
        siamese: bool,
        mask_after: bool = False,
    ):
        real = problem.real
        device = initial.device
        self.problem = problem
        self.settings = settings
        self.siamese = siamese
        self.mask_after = mask_after
        self.labels = labels
        self.images = Variable(initial.clone(), settings.lr_img, settings.momentum)
        self.real_rows = class_rows(real.labels.cpu(), real.classes)
        self.synthetic_rows = torch.stack(class_rows(labels, real.classes))  # (classes, ipc)

        on_gpu = device.type == "cuda"
        forward = problem.network.operations(real.images[:1])
        real_operations = 3 * forward * settings.batch_real  # the gradient of one class
        synthetic_operations = 12 * forward * problem.ipc  # the gradient of one class, and its derivative
        epochs = settings.inner_loops * (settings.outer_loops - 1) * settings.iterations
        inner_operations = 3 * forward * len(labels) * epochs
        class_updates = real.classes * settings.outer_loops * settings.iterations
        real_compiled = worth_compiling(real_operations * class_updates, device)
        self.real_loss = InnerLoss(problem.network, real_compiled, settings.precision)
        synthetic_compiled = on_gpu and worth_compiling(
            synthetic_operations * class_updates + inner_operations, device
        )
        self.synthetic_loss = InnerLoss(problem.network, synthetic_compiled, graphs=uses_graphs(device))

        # On a CPU only the synthetic images are stacked. On a GPU all are, as far as memory allows.
        self.stacked = False
        self.match: Callable[..., Match] = partial(by_double_backward, self.synthetic_loss)
        self.together = how_many_together(real_operations if on_gpu else synthetic_operations, device)
        if on_gpu:
            self._plan_for_gpu()

    def _plan_for_gpu(self) -> None:
        """Match by products, and as many classes at a time as fit into the memory."""
        real = self.problem.real
        largest = max(len(rows) for rows in self.real_rows)
        images = max(min(largest, self.settings.batch_real), self.problem.ipc)
        image_bytes = self.problem.network.largest_layer(real.images[:1])
        fitting = classes_that_fit(real.classes, images, image_bytes, self.labels.device)
        self.stacked = fitting > 0
        self.match = ByProducts(self.synthetic_loss, self.stacked)
        self.together = min(self.together, max(1, fitting))

    def backbone(self) -> Backbone:
        return Backbone(
            images=lambda: self.images.value,
            labels=self.labels,
            iterations=self.settings.iterations,
            variables={"images": self.images},
            updates=self.updates,
            precision=self.settings.precision,
            memory={"batch_real": self.settings.batch_real, "batch_train": self.settings.batch_train},
        )

    def updates(self, iteration: int) -> Iterator[Update]:
        """Make `outer_loops` updates on one network, and train it for `inner_loops` epochs between them."""
        draws = generator(self.problem.seed, "matching", iteration)
        theta = self.problem.network.initial(draws).to(self.images.value)
        for outer_loop in range(self.settings.outer_loops):
            if outer_loop > 0:
                theta = self._train(theta, draws)
            loss = theta.new_zeros(())
            gradient = torch.zeros_like(self.images.value)
            drawn = self._draws(iteration, outer_loop)
            for first, rows in self._groups():
                images = self.images.value[rows].detach().requires_grad_()
                batches = self._batches(images, first, drawn)
                targets = class_gradients(
                    self.real_loss, theta, batches.real, batches.real_labels, self.stacked
                )
                synthetic = torch.stack(batches.synthetic)
                match = self.match(theta, synthetic, self.labels[rows], targets)
                (gradient[rows],) = torch.autograd.grad(synthetic, images, match.gradient)
                loss = loss + match.distance
            yield loss, {"images": gradient}

    def _train(self, theta: Tensor, draws: torch.Generator) -> Tensor:
        """The weights after `inner_loops` epochs of SGD on the synthetic images."""
        steps = []
        for _ in range(self.settings.inner_loops):
            order = torch.randperm(len(self.labels), generator=draws)
            for rows in order.split(self.settings.batch_train):
                steps.append((rows, draw(draws, len(rows)) if self.siamese else None))
        for rows, drawn in send(steps, theta.device):
            images = view(self.images.value[rows], drawn)
            gradient = self.synthetic_loss.gradient(theta, images, self.labels[rows])
            theta = theta - self.settings.lr_net * gradient
        return theta

    def _draws(self, iteration: int, outer_loop: int) -> UpdateDraws:
        """What is drawn for an update, of all classes."""
        device = self.images.value.device
        classes = self.problem.real.classes
        real_rows = []
        augmentations = []
        for k in range(classes):
            draws = generator(self.problem.seed, "matching", iteration, outer_loop, k)
            order = torch.randperm(len(self.real_rows[k]), generator=draws)
            real_rows.append(self.real_rows[k][order[: self.settings.batch_real]])
            augmentations.append(draw(draws, 1) if self.siamese else None)
        real_rows, augmentations = send((real_rows, augmentations), device)
        mask = self.problem.mask(iteration)
        class_shape = (self.synthetic_rows.shape[1], *self.images.value.shape[1:])
        first_step = outer_loop * classes
        mask.draw_ahead([class_shape] * classes, device, first_step)
        return UpdateDraws(real_rows, augmentations, mask, first_step)

    def _groups(self) -> Iterator[tuple[int, Tensor]]:
        """The first class of each group of classes, and the positions of the images, `(classes, ipc)`."""
        for number, rows in enumerate(self.synthetic_rows.split(self.together)):
            yield number * self.together, rows

    def _batches(self, images: Tensor, first: int, draws: UpdateDraws) -> ClassBatches:
        """The masked and augmented batches of a group of classes.

        Args:
            images: the synthetic images of the group, `(classes, ipc, C, H, W)`.
            first: the first class of the group.
        """
        real = self.problem.real
        batches = ClassBatches([], [], [])
        for k, own in enumerate(images, first):
            rows = draws.real_rows[k]
            drawn = draws.augmentations[k]
            step = draws.first_step + k
            if self.mask_after:
                batches.synthetic.append(draws.mask(view(own, drawn), step))
            else:
                batches.synthetic.append(view(draws.mask(own, step), drawn))
            batches.real.append(view(real.images[rows], drawn))
            batches.real_labels.append(real.labels[rows])
        return batches


def classes_that_fit(classes: int, images: int, image_bytes: int, device: torch.device) -> int:
    """How many classes a GPU's memory holds at a time; 0: not one, which is then taken in parts.

    Args:
        images: of one class.
        image_bytes: what one image fills of the largest layer's output.
    """
    return part_size(classes * images, image_bytes, device) // images


def view(images: Tensor, drawn: Draw | None) -> Tensor:
    """The images under one draw of the augmentation, or as they are."""
    return images if drawn is None else augment(images, drawn)
