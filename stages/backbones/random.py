"""Random real images: the reference that every distilled set has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Count, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`."""

    sets: Count = 5  # that are drawn; each repeat of training has the next one


def start(problem: Problem, settings: Settings) -> Backbone:
    """Keep `ipc` random real images of each class in every set; MTT and DSA would start from the first."""
    from stages.distillation.backbone import Backbone

    draws = [problem.real_rows(number) for number in range(settings.sets)]
    return Backbone.of_real_images(problem, draws)
