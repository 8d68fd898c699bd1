"""`evaluate` of params.yaml: how calibration is measured."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Count, Section

__all__ = ["EvaluateSettings"]


class EvaluateSettings(Section):
    """Keys of `evaluate`."""

    bins: Count  # of ECE, of equal width
    resamples: Annotated[Count, Field(ge=2)]  # of the test images, for the intervals
