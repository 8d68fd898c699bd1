"""The real images nearest to the centres of their clusters: a reference harder than random images."""

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
    """The positions of the image of each cluster that is nearest to its centre, class by class.

    An image of another cluster may be nearer, and one image may be the nearest of all to several centres.
    """
    import numpy as np
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
        for k, centre in enumerate(clusters.cluster_centers_):
            members = np.flatnonzero(clusters.labels_ == k)
            nearest = pairwise_distances_argmin(centre[None], pixels[members]).item()
            nearest_rows.append(rows[members[nearest]])
    return torch.stack(nearest_rows)
