"""DC: images whose gradients on random networks point where the real images' do, learned from noise.

Bo Zhao, Konda Reddy Mopuri, Hakan Bilen: "Dataset Condensation with Gradient Matching", ICLR 2021,
https://arxiv.org/abs/2006.05929; https://github.com/VICO-UoE/DatasetCondensation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.settings.section import Count, Positive, Precision, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`.

    The published (outer, inner) loops are (1, 1) at 1 image per class, (10, 50) at 10, and (50, 10) at 50.
    """

    iterations: Count  # networks that the images are matched on, one after the other
    outer_loops: Count  # updates of the images on each network
    inner_loops: Count  # epochs of the network on the images after each update but the last
    lr_img: Positive = 0.1  # learning rate of the images
    momentum: float = Field(0.5, ge=0, lt=1)  # and its momentum
    lr_net: Positive = 0.01  # step size of the inner loops
    batch_real: Count = 256  # real images of each class in an update
    batch_train: Count = 256  # synthetic images in a step of the inner loops
    # tf32: of all products; bfloat16: of those in the real images' gradients
    precision: Precision = "float32"


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from standard normal noise."""
    import torch

    from stages.distillation.gradient_matching import GradientMatching
    from stages.runtime.randomness import generator

    real = problem.real
    classes = torch.arange(real.classes, device=real.labels.device)
    labels = classes.repeat_interleave(problem.ipc)
    draws = generator(problem.seed, "noise")
    noise = torch.randn(len(labels), *real.images.shape[1:], generator=draws)
    initial = noise.to(real.images[:1])
    return GradientMatching(problem, settings, initial, labels, siamese=False).backbone()
