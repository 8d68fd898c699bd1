"""All real images: what a network trained on the full data (FDNN) reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """This backbone has no keys."""


def start(problem: Problem, settings: Settings) -> Backbone:
    """Stand for the training split, which is not copied."""
    from stages.distillation.backbone import Backbone

    return Backbone(images=None, labels=problem.real.labels)
