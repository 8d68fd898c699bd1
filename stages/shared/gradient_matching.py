"""Gradient matching, the engine of DC and DSA: synthetic images whose gradients point where the real images' do.

Bo Zhao, Konda Reddy Mopuri, Hakan Bilen: "Dataset Condensation with Gradient Matching", ICLR 2021,
https://arxiv.org/abs/2006.05929; https://github.com/VICO-UoE/DatasetCondensation. Equation (5) of the paper, (6) masked.
"""

from collections.abc import Iterator

import torch
from pydantic import Field

from stages.shared.augment import augment, draw
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


def matching_distance(network: FlatNetwork, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Sum over weights' output rows of 1 - cosine of two `(P,)` gradients; biases and norms (1-D) contribute nothing."""
    total = ours.new_zeros(())
    for a, b in zip(network.split(ours).values(), network.split(theirs).values()):
        if a.dim() > 1:
            a, b = a.flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + EPS)).sum()
    return total


def match(problem: Problem, settings: MatchingSettings, initial: torch.Tensor, labels: torch.Tensor, siamese: bool) -> Method:
    """Learn `(N, C, H, W)` images from `initial`, a class at a time, so that memory does not grow with the classes.

    Args:
        labels: `(N,)`, of the images.
        siamese: augment the real and the synthetic batch of a class by one and the same draw, and the inner epochs too.
    """
    real, network = problem.real, problem.network
    inner, images = InnerLoss(network), Variable(initial.clone(), settings.lr_img, settings.momentum)
    real_rows, own_rows = class_rows(real.labels, real.classes), class_rows(labels, real.classes)

    def class_gradient(theta, k, leaf, draws, mask):
        """The distance of class k and its gradient for the class's images."""
        rows = real_rows[k][torch.randperm(len(real_rows[k]), generator=draws)[: settings.batch_real]]
        theirs, ours = real.images[rows], mask(leaf)
        if siamese:
            drawn = draw(draws, 1)
            theirs, ours = augment(theirs, drawn), augment(ours, drawn)
        target = inner.gradient(theta, theirs, real.labels[rows])
        weights = theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(inner.loss(weights, ours, labels[own_rows[k]]), weights, create_graph=True)
        distance = matching_distance(network, gradient, target)
        return distance.detach(), torch.autograd.grad(distance, leaf)[0]

    def train_network(theta, draws):
        for _ in range(settings.inner_loops):
            for rows in torch.randperm(len(labels), generator=draws).split(settings.batch_train):
                batch = augment(images.value[rows], draw(draws, len(rows))) if siamese else images.value[rows]
                theta = theta - settings.lr_net * inner.gradient(theta, batch, labels[rows])
        return theta

    def steps(iteration: int) -> Iterator:
        draws, mask = generator(problem.seed, "matching", iteration), problem.mask(iteration)
        theta = network.initial(draws).to(images.value)
        for outer in range(settings.outer_loops):
            if outer:
                theta = train_network(theta, draws)
            loss, gradient = theta.new_zeros(()), torch.zeros_like(images.value)
            for k, rows in enumerate(own_rows):
                leaf = images.value[rows].detach().requires_grad_()
                distance, gradient[rows] = class_gradient(theta, k, leaf, draws, lambda x: mask(x, outer * real.classes + k))
                loss = loss + distance
            yield loss, {"images": gradient}

    return Method(lambda: images.value, labels, settings.iterations, {"images": images}, steps)
