"""Gradient matching, the engine of DC and DSA: synthetic images whose gradients point where the real images' do.

Bo Zhao, Konda Reddy Mopuri, Hakan Bilen: "Dataset Condensation with Gradient Matching", ICLR 2021,
https://arxiv.org/abs/2006.05929; https://github.com/VICO-UoE/DatasetCondensation. Equation (5) of the paper, (6) masked.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
from pydantic import Field

from stages.shared.augment import Draw, augment, draw
from stages.shared.engine import how_many_together, worth_compiling
from stages.shared.flat import FlatNetwork
from stages.shared.method import Method, Problem, Variable
from stages.shared.randomness import generator
from stages.shared.sampling import class_rows
from stages.shared.settings import Count, Positive, Section
from stages.shared.unroll import InnerLoss

__all__ = ["MatchingSettings", "match", "matching_distance"]

EPS = 1e-6


class MatchingSettings(Section):
    """Keys of a row's `distill:`. The published loops (outer, inner) by IPC: 1 (1, 1), 10 (10, 50), 50 (50, 10)."""

    iterations: Count  # networks that the images are matched on, one after the other
    outer_loops: Count  # updates of the images on each network
    inner_loops: Count  # epochs of the network on the images after each update but the last
    lr_img: Positive = 0.1
    momentum: float = Field(0.5, ge=0, lt=1)
    lr_net: Positive = 0.01
    batch_real: Count = 256  # real images a class
    batch_train: Count = 256
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products in the real images' gradients


def matching_distance(network: FlatNetwork, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Sum over weights' output rows of 1 - cosine of two `(P,)` gradients; biases and norms (1-D) contribute nothing."""
    total = ours.new_zeros(())
    for a, b in zip(network.split(ours).values(), network.split(theirs).values()):
        if a.dim() > 1:
            a, b = a.flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + EPS)).sum()
    return total


def match(problem: Problem, settings: MatchingSettings, initial: torch.Tensor, labels: torch.Tensor, siamese: bool) -> Method:
    """Learn `(N, C, H, W)` images from `initial`, a group of classes at a time: memory does not grow with the classes.

    Args:
        labels: `(N,)`, of the images, equally many of each class.
        siamese: augment the real and the synthetic batch of a class by one and the same draw, and the inner epochs too.
    """
    real, network, device = problem.real, problem.network, initial.device
    images = Variable(initial.clone(), settings.lr_img, settings.momentum)
    real_rows, own_rows = class_rows(real.labels, real.classes), torch.stack(class_rows(labels, real.classes))
    forward = network.operations(real.images[:1])
    real_operations = 3 * forward * settings.batch_real  # of one class
    compiled = worth_compiling(real_operations * real.classes * settings.outer_loops * settings.iterations, device)
    inner, of_real = InnerLoss(network), InnerLoss(network, compiled, settings.precision)
    together = how_many_together(real_operations if device.type == "cuda" else 12 * forward * problem.ipc, device)

    def distances(theta, leaf, group, iteration, outer):
        """Sum over a group of classes; `leaf` are their images, `(classes, ipc, C, H, W)`."""
        mask, ours, theirs, their_labels = problem.mask(iteration), [], [], []
        for k, x in zip(group.tolist(), leaf):
            draws = generator(problem.seed, "matching", iteration, outer, k)
            rows = real_rows[k][torch.randperm(len(real_rows[k]), generator=draws)[: settings.batch_real]]
            drawn = draw(draws, 1) if siamese else None
            ours.append(view(mask(x, outer * real.classes + k), drawn))
            theirs.append(view(real.images[rows], drawn))
            their_labels.append(real.labels[rows])
        targets = class_gradients(of_real, theta, theirs, their_labels, stacked=device.type == "cuda")
        own_gradients = torch.func.vmap(torch.func.grad(inner.loss), (None, 0, 0))(theta, torch.stack(ours), labels[own_rows[group]])
        return torch.func.vmap(partial(matching_distance, network))(own_gradients, targets).sum()

    def train_network(theta, draws):
        for _ in range(settings.inner_loops):
            for rows in torch.randperm(len(labels), generator=draws).split(settings.batch_train):
                theta = theta - settings.lr_net * inner.gradient(theta, view(images.value[rows], draw(draws, len(rows)) if siamese else None), labels[rows])
        return theta

    def steps(iteration: int) -> Iterator:
        draws = generator(problem.seed, "matching", iteration)
        theta = network.initial(draws).to(images.value)
        for outer in range(settings.outer_loops):
            if outer:
                theta = train_network(theta, draws)
            loss, gradient = theta.new_zeros(()), torch.zeros_like(images.value)
            for group in torch.arange(real.classes).split(together):
                leaf = images.value[own_rows[group]].detach().requires_grad_()
                distance = distances(theta, leaf, group, iteration, outer)
                (gradient[own_rows[group]],) = torch.autograd.grad(distance, leaf)
                loss = loss + distance.detach()
            yield loss, {"images": gradient}

    return Method(lambda: images.value, labels, settings.iterations, {"images": images}, steps)


def view(images: torch.Tensor, drawn: Draw | None) -> torch.Tensor:
    """The images under one draw of the augmentation, or as they are."""
    return images if drawn is None else augment(images, drawn)


def class_gradients(loss: InnerLoss, theta: torch.Tensor, images: list[torch.Tensor], labels: list[torch.Tensor], stacked: bool) -> torch.Tensor:
    """`(classes, P)` gradients of each class's batch: one by one, which a CPU is faster at, or stacked where they are of one size."""
    if stacked and len({len(x) for x in images}) == 1:
        return torch.func.vmap(torch.func.grad(loss.loss), (None, 0, 0))(theta, torch.stack(images), torch.stack(labels))
    return torch.stack([loss.gradient(theta, x, y) for x, y in zip(images, labels)])
