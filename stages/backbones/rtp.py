"""RTP: images after a training on which a network classifies the real images; back-propagation through time.

Zhiwei Deng, Olga Russakovsky: "Remember the Past: Distilling Datasets into Addressable Memories for Neural
Networks", NeurIPS 2022, https://arxiv.org/abs/2206.02916;
https://github.com/princetonvisualai/RememberThePast-DatasetDistillation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.settings.section import Count, Positive, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`.

    Published: 150 steps, with 10 synthetic images of each class in a step, and 64 real images of each class.
    """

    iterations: Count
    syn_steps: Count  # steps of training on the synthetic images
    batch_syn: Count | None  # synthetic images of each class in a step; null: all
    batch_real: Count = 64  # real images of each class that the trained network is judged on
    lr_net: Positive = 0.01  # step size of the training on the synthetic images
    momentum_net: float = Field(0.9, ge=0, lt=1)  # and its momentum
    lr_img: Positive = 0.1  # learning rate of the synthetic images
    momentum: float = Field(0.5, ge=0, lt=1)  # and its momentum
    clip: Positive = 2.0  # largest norm of the images' gradient; a larger one is shrunk to it
    n_basis: Count | None = None  # basis images of half the side, for memory addressing; null: plain images
    l2: float = Field(1e-4, ge=0)  # weight decay of the coefficients of memory addressing


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from noise: plain images, or basis images and the coefficients that combine them.

    Raises:
        UserError: the basis images alone take more room than `ipc` plain images of each class.
    """
    from stages.distillation.back_propagation_through_time import BackPropagationThroughTime

    return BackPropagationThroughTime(problem, settings).backbone()
