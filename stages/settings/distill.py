"""The keys of a row that make its distilled set. The keys below `distill:` are declared by the backbones."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Count, Ratio, Section

__all__ = ["DistillKeys"]


class DistillKeys(Section):
    """Keys of `runs.<row>` that `distill` reads."""

    backbone: str  # a file of stages/backbones
    ipc: Count | None  # images per class; null with backbone `full`, which takes all of them
    mdt: (
        Ratio | Annotated[list[Ratio], Field(min_length=2, max_length=2)]
    )  # mask ratio while distilling, or its range
    distill: dict  # the backbone's own keys
