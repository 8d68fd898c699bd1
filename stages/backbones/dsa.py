"""DSA: DC from real images, with the same random augmentation of the real and the synthetic images.

Bo Zhao, Hakan Bilen: "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021,
https://arxiv.org/abs/2102.08259; https://github.com/VICO-UoE/DatasetCondensation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.backbones import dc

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(dc.Settings):
    """Keys of a row's `distill:`: those of `dc`, and one for the augmentation."""

    mask_after_augmentation: bool = False  # whether MDT masks images after they are augmented, or before


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from random real images of each class."""
    from stages.distillation.gradient_matching import GradientMatching

    rows = problem.real_rows()
    images = problem.real.images[rows]
    labels = problem.real.labels[rows]
    mask_after = settings.mask_after_augmentation
    return GradientMatching(problem, settings, images, labels, siamese=True, mask_after=mask_after).backbone()
