"""What the temperatures' fits share."""

from typing import Annotated

from pydantic import Field

from stages.shared.settings import Count, Positive, Section

__all__ = ["CalibrateSettings"]


class CalibrateSettings(Section):
    """`calibrate` of params.yaml."""

    start: Positive  # first temperature of the LBFGS runs
    lr: Positive
    max_iter: Count
    share: Annotated[float, Field(gt=0, le=1)]  # of the distilled images that MTS fits on, per class
    bounds: Annotated[list[Positive], Field(min_length=2, max_length=2)]  # of every temperature; reported when hit
