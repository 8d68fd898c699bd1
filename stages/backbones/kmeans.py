"""The real images nearest to the cluster centres of each class: a reference harder than random images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]

STARTS = 10  # of k-means++ for each class; the best of them is taken


class Settings(Section):
    """This backbone has no keys."""


def start(problem: Problem, settings: Settings) -> Backbone:
    """Make `ipc` clusters of each class, on the pixels as the network sees them."""
    import torch
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    from stages.distillation.backbone import Backbone
    from stages.images.sampling import class_rows

    real = problem.real
    nearest_rows = []
    for rows in class_rows(real.labels, real.classes):
        pixels = real.images[rows].flatten(1).cpu().numpy()
        clusters = KMeans(problem.ipc, n_init=STARTS, random_state=problem.seed).fit(pixels)
        nearest = pairwise_distances_argmin(clusters.cluster_centers_, pixels)
        nearest_rows.append(rows[torch.from_numpy(nearest).to(rows.device)])
    kept = torch.cat(nearest_rows)
    return Backbone(images=lambda: real.images[kept], labels=real.labels[kept])
