"""The real images nearest to the cluster centres of each class: a reference harder than random images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Count, Section

if TYPE_CHECKING:
    import torch

    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]

STARTS = 10  # of k-means++ for each class; the best of them is taken


class Settings(Section):
    """Keys of a row's `distill:`."""

    sets: Count = 5  # that are made, each from its own starts; each repeat of training has the next one


def start(problem: Problem, settings: Settings) -> Backbone:
    """Make `ipc` clusters of each class in every set, on the pixels as the network sees them."""
    from stages.distillation.backbone import Backbone

    sets = [nearest_images(problem, number) for number in range(settings.sets)]
    return Backbone.of_real_images(problem, sets)


def nearest_images(problem: Problem, number: int) -> torch.Tensor:
    """The positions of the images nearest to the cluster centres, class by class."""
    import torch
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    from stages.images.sampling import class_rows
    from stages.runtime.randomness import generator

    real = problem.real
    draws = generator(problem.seed, "kmeans", number)
    nearest_rows = []
    for rows in class_rows(real.labels, real.classes):
        pixels = real.images[rows].flatten(1).cpu().numpy()
        seed = int(torch.randint(2**31, (), generator=draws))
        clusters = KMeans(problem.ipc, n_init=STARTS, random_state=seed).fit(pixels)
        nearest = pairwise_distances_argmin(clusters.cluster_centers_, pixels)
        nearest_rows.append(rows[torch.from_numpy(nearest).to(rows.device)])
    return torch.cat(nearest_rows)
