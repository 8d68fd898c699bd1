"""DSA: DC from real images, with the same random augmentation of the real and the synthetic images.

Bo Zhao, Hakan Bilen: "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021,
https://arxiv.org/abs/2102.08259; https://github.com/VICO-UoE/DatasetCondensation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.backbones.dc import Settings

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from random real images of each class."""
    from stages.distillation.gradient_matching import GradientMatching

    rows = problem.real_rows()
    images = problem.real.images[rows]
    labels = problem.real.labels[rows]
    return GradientMatching(problem, settings, images, labels, siamese=True).backbone()
