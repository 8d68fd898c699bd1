"""DSA: gradient matching from real images, both sides augmented alike.

Bo Zhao, Hakan Bilen: "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021,
https://arxiv.org/abs/2102.08259.
"""

from stages.shared.gradient_matching import MatchingSettings as Settings
from stages.shared.gradient_matching import match
from stages.shared.method import Method, Problem

__all__ = ["Settings", "start"]


def start(problem: Problem, settings: Settings) -> Method:
    """Start from random real images of each class."""
    rows = problem.real_rows()
    return match(problem, settings, problem.real.images[rows], problem.real.labels[rows], siamese=True)
