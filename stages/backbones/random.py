"""Random real images: the reference that every distilled set has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """This backbone has no keys."""


def start(problem: Problem, settings: Settings) -> Backbone:
    """Keep the `ipc` real images of each class that MTT and DSA would start from."""
    from stages.distillation.backbone import Backbone

    rows = problem.real_rows()
    return Backbone(images=lambda: problem.real.images[rows], labels=problem.real.labels[rows])
