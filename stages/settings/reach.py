"""`reach` of params.yaml and of a suite: how far the temperature goes that is shipped with a set."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Count, Positive, Section

__all__ = ["ReachKeys", "ReachSettings", "ShiftSettings"]

Blur = Annotated[float, Field(gt=0, le=0.3)]  # a wider kernel would not fit into the image


class ShiftSettings(Section):
    """`reach.shifts`: how strongly test images are changed, by kind. Pixels are in [0, 1]."""

    rotation: list[float]  # degrees
    noise: list[Positive]  # standard deviation
    blur: list[Blur]  # standard deviation, as a share of the side
    contrast: list[Positive]  # factor


class ReachSettings(Section):
    """`reach` of params.yaml."""

    networks: Annotated[list[Count], Field(min_length=1)]  # that a temperature is fitted with
    images: list[Count]  # real images that it is fitted on
    folds: Annotated[Count, Field(ge=2)]  # of the distilled set, for the K-fold temperature
    augmentations: Count  # draws of the row's augmentation that a temperature is fitted under
    shifts: ShiftSettings


class ReachKeys(Section):
    """Keys of `reach.<row>` of a suite."""

    carried: list[str] = []  # other rows, whose temperatures are tried on the networks of this one
