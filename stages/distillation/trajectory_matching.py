"""Trajectory matching, the mathematics of MTT: train on the synthetic images, and end where an expert went.

George Cazenavette, Tongzhou Wang, Antonio Torralba, Alexei A. Efros, Jun-Yan Zhu: "Dataset Distillation by
Matching Training Trajectories", CVPR 2022, https://arxiv.org/abs/2203.11932. Equation (7) of the paper, (8)
with a mask.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from stages.distillation.backbone import Backbone, Problem, Update, Variable
from stages.distillation.unroll import Batch, InnerTraining, inner_loss_for, unrolled_gradient
from stages.images.augment import augment, draw
from stages.images.sampling import chunks_of
from stages.machine.transfer import send
from stages.runtime.errors import UserError
from stages.runtime.files import read_tensors
from stages.runtime.randomness import generator
from stages.settings.section import Precision

__all__ = ["TrajectoryMatching", "matching_loss"]


class Settings(Protocol):
    """The keys that a backbone's own `Settings` has to have; stages/backbones/mtt.py says what they are."""

    iterations: int
    syn_steps: int
    expert_epochs: int
    max_start_epoch: int
    lr_img: float
    lr_lr: float
    lr_teacher: float
    batch_syn: int | None
    momentum: float
    mask_after_augmentation: bool
    precision: Precision


def matching_loss(theta: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """`||theta - target||^2 / ||start - target||^2` of `(P,)` weight vectors."""
    return (theta - target).square().sum() / (start - target).square().sum()


class TrajectoryMatching:
    """Images, real ones at the start, and the step size of the training on them; both are learned.

    Raises:
        UserError: the trajectories end before the epochs that the settings read, or are of another network.
    """

    def __init__(self, problem: Problem, settings: Settings):
        real = problem.real
        rows = problem.real_rows()
        step_size = torch.tensor(settings.lr_teacher, device=real.images.device)
        self.problem = problem
        self.settings = settings
        self.snapshots = read_snapshots(problem, settings)
        self.labels = real.labels[rows]
        self.images = Variable(real.images[rows].clone(), settings.lr_img, settings.momentum)
        self.step_size = Variable(step_size, settings.lr_lr, settings.momentum, positive=True)
        self.batch_size = min(settings.batch_syn or len(rows), len(rows))
        inner_images = self.batch_size * settings.syn_steps * settings.iterations
        self.inner = inner_loss_for(problem.network, self.images.value[:1], inner_images, settings.precision)

    def backbone(self) -> Backbone:
        return Backbone(
            images=lambda: self.images.value,
            labels=self.labels,
            iterations=self.settings.iterations,
            variables={"images": self.images, "step_size": self.step_size},
            updates=self.updates,
            precision=self.settings.precision,
            teacher_step_size=self.settings.lr_teacher,
            memory={"batch_syn": self.batch_size, "syn_steps": self.settings.syn_steps},
        )

    def updates(self, iteration: int) -> Iterator[Update]:
        """Match one expert from one epoch on, both drawn at random."""
        settings = self.settings
        draws = generator(self.problem.seed, "mtt", iteration)
        expert = int(torch.randint(len(self.snapshots), (), generator=draws))
        epoch = int(torch.randint(settings.max_start_epoch, (), generator=draws))
        start = self.snapshots[expert, epoch].clone()  # aligned, as code is compiled for what comes first
        target = self.snapshots[expert, epoch + settings.expert_epochs]

        images = self.images.value.detach().requires_grad_()
        batch = self._batches(images, iteration, draws)
        training = InnerTraining(start, batch, settings.syn_steps, self.step_size.value)

        def outer(theta: Tensor) -> Tensor:
            return matching_loss(theta, start, target)

        result = unrolled_gradient(self.inner, training, [images], outer)
        yield result.loss, {"images": result.gradients[0], "step_size": result.lr_gradient}

    def _batches(self, images: Tensor, iteration: int, draws: torch.Generator) -> Batch:
        """The masked and augmented batch of each inner step, differentiable in `images`."""
        steps = self.settings.syn_steps
        chunks = chunks_of(len(images), self.batch_size, steps, draws)
        augmentations = [draw(draws, len(rows)) for rows in chunks]
        chunks, augmentations = send((chunks, augmentations), images.device)
        mask = self.problem.mask(iteration)
        mask.draw_ahead([(len(rows), *images.shape[1:]) for rows in chunks], images.device)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = chunks[step]
            labels = self.labels[rows]
            if self.settings.mask_after_augmentation:
                return mask(augment(images[rows], augmentations[step]), step), labels
            return augment(mask(images[rows], step), augmentations[step]), labels

        return batch


def read_snapshots(problem: Problem, settings: Settings) -> Tensor:
    """The weights of the experts after each epoch, `(experts, epochs + 1, P)`."""
    file = problem.reads / "trajectories.safetensors"
    snapshots = read_tensors(file)["snapshots"].to(problem.real.images.device)
    size = snapshots.shape[2]
    if size != problem.network.size:
        raise UserError(
            f"{problem.reads}: trajectories of networks with {size} weights, "
            f"but this one has {problem.network.size}"
        )
    epochs = snapshots.shape[1] - 1
    last_epoch = settings.max_start_epoch - 1 + settings.expert_epochs
    if last_epoch > epochs:
        raise UserError(
            f"distill.max_start_epoch - 1 + distill.expert_epochs = {last_epoch}, "
            f"but {problem.reads} has {epochs} epochs; allowed: at most that"
        )
    return snapshots
