"""MTT: images on which a few steps of training lead where many steps on the real images led.

George Cazenavette, Tongzhou Wang, Antonio Torralba, Alexei A. Efros, Jun-Yan Zhu: "Dataset Distillation by Matching
Training Trajectories", CVPR 2022, https://arxiv.org/abs/2203.11932. Equation (7) of the paper, (8) with a mask.
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from safetensors.torch import load_file

from stages.shared.augment import augment, draw
from stages.shared.errors import UserError
from stages.shared.method import Method, Problem, Variable
from stages.shared.randomness import generator
from stages.shared.sampling import chunks_of
from stages.shared.settings import Count, Positive, Section
from stages.shared.unroll import inner_loss, unrolled_gradient

__all__ = ["Settings", "matching_loss", "start"]


class Settings(Section):
    """Keys of a row's `distill:`, named as in the reference implementation."""

    iterations: Count
    syn_steps: Count  # steps of training on the synthetic images
    expert_epochs: Count  # epochs of the expert that they are to match
    max_start_epoch: Count  # the expert's epoch to start from is drawn below this
    lr_img: Positive
    lr_lr: float = Field(ge=0)  # step size of the learned step size; 0 keeps it
    lr_teacher: Positive  # where the learned step size starts
    batch_syn: Count | None  # images a step; null: all
    momentum: float = Field(0.5, ge=0, lt=1)

    @property
    def expert_epochs_read(self) -> int:
        return self.max_start_epoch - 1 + self.expert_epochs


def matching_loss(theta: torch.Tensor, start: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`||theta - target||^2 / ||start - target||^2` of `(P,)` weight vectors."""
    return (theta - target).square().sum() / (start - target).square().sum()


def start(problem: Problem, settings: Settings) -> Method:
    """Start from real images; learn them and the step size.

    Raises:
        UserError: the trajectories end before the epochs that the settings read, or are of another network.
    """
    real, network = problem.real, problem.network
    device = real.images.device
    snapshots = load_file(problem.reads / "trajectories.safetensors")["snapshots"].to(device)  # (experts, epochs + 1, P)
    experts, epochs, size = snapshots.shape[0], snapshots.shape[1] - 1, snapshots.shape[2]
    if size != network.size:
        raise UserError(f"{problem.reads}: trajectories of networks with {size} weights, but this one has {network.size}")
    if settings.expert_epochs_read > epochs:
        raise UserError(
            f"distill.max_start_epoch - 1 + distill.expert_epochs = {settings.expert_epochs_read}, but {problem.reads} has {epochs} epochs; allowed: at most that"
        )

    rows = problem.real_rows()
    labels = real.labels[rows]
    images = Variable(real.images[rows].clone(), settings.lr_img, settings.momentum)
    step_size = Variable(torch.tensor(settings.lr_teacher, device=device), settings.lr_lr, settings.momentum, positive=True)
    chunk = min(settings.batch_syn or len(labels), len(labels))
    inner = inner_loss(network, images.value[:1], chunk * settings.syn_steps * settings.iterations)

    def steps(iteration: int) -> Iterator:
        draws = generator(problem.seed, "mtt", iteration)
        expert, epoch = (int(torch.randint(n, (), generator=draws)) for n in (experts, settings.max_start_epoch))
        begin, target = snapshots[expert, epoch], snapshots[expert, epoch + settings.expert_epochs]
        chunks = chunks_of(len(labels), chunk, settings.syn_steps, draws)
        augmentations = [draw(draws, len(rows)) for rows in chunks]
        mask = problem.mask(iteration)
        leaf = images.value.detach().requires_grad_()

        def batch(step):
            return augment(mask(leaf[chunks[step]], step), augmentations[step]), labels[chunks[step]]

        result = unrolled_gradient(
            inner, begin, batch, settings.syn_steps, [leaf], step_size.value, lambda theta: matching_loss(theta, begin, target)
        )  # fmt: skip
        yield result.loss, {"images": result.gradients[0], "step_size": result.lr_gradient}

    return Method(lambda: images.value, labels, settings.iterations, {"images": images, "step_size": step_size}, steps)
