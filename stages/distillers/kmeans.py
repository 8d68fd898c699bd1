"""The real image nearest to each cluster centre of a class: a reference a little harder than random images."""

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from stages.shared.method import Method, Problem
from stages.shared.sampling import class_rows
from stages.shared.settings import Section

__all__ = ["Settings", "start"]


class Settings(Section):
    """No settings."""


def start(problem: Problem, settings: Settings) -> Method:
    """`ipc` clusters a class, on the pixels as the network sees them (k-means++ starts, 10 of them)."""
    real, chosen = problem.real, []
    for rows in class_rows(real.labels, real.classes):
        pixels = real.images[rows].flatten(1).cpu().numpy()
        centres = KMeans(problem.ipc, n_init=10, random_state=problem.seed).fit(pixels).cluster_centers_
        chosen.append(rows[torch.from_numpy(pairwise_distances_argmin(centres, pixels)).to(rows.device)])
    rows = torch.cat(chosen)
    return Method(lambda: real.images[rows], real.labels[rows])
