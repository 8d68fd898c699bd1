"""MTT: images on which a few steps of training lead where many steps on the real images led.

George Cazenavette, Tongzhou Wang, Antonio Torralba, Alexei A. Efros, Jun-Yan Zhu: "Dataset Distillation by
Matching Training Trajectories", CVPR 2022, https://arxiv.org/abs/2203.11932.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from stages.settings.section import Count, Positive, Precision, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`, named as in the reference implementation."""

    has_step_size: ClassVar[bool] = True  # so a row may have `lr: learned` or `lr: teacher`

    iterations: Count
    syn_steps: Count  # steps of training on the synthetic images
    expert_epochs: Count  # epochs of the expert that these steps are to match
    max_start_epoch: Count  # the expert's epoch to start from is drawn below this
    lr_img: Positive  # learning rate of the images
    lr_lr: float = Field(ge=0)  # learning rate of the step size; 0 keeps the step size as it is
    lr_teacher: Positive  # the step size at the start
    batch_syn: Count | None  # synthetic images in a step; null: all
    momentum: float = Field(0.5, ge=0, lt=1)  # of the SGD on both
    mask_after_augmentation: bool = False  # whether MDT masks images after they are augmented, or before
    precision: Precision = "float32"  # of the products

    @property
    def expert_epochs_read(self) -> int:
        """The epochs that a buffer needs to have."""
        return self.max_start_epoch - 1 + self.expert_epochs


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from real images; learn them and the step size of training on them.

    Raises:
        UserError: the trajectories end before the epochs that the settings read, or are of another network.
    """
    from stages.distillation.trajectory_matching import TrajectoryMatching

    return TrajectoryMatching(problem, settings).backbone()
