"""How temperatures are fitted: what all rows share, and the key of a row."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Count, Positive, Ratio, Section, Share

__all__ = ["CalibrateKeys", "CalibrateSettings"]


class CalibrateSettings(Section):
    """`calibrate` of params.yaml."""

    start: Positive  # first temperature of the LBFGS runs
    lr: Positive  # their step size
    max_iter: Count  # their iterations
    share: Share  # of the distilled images of each class that MTS fits on
    bounds: Annotated[
        list[Positive], Field(min_length=2, max_length=2)
    ]  # of every temperature; reported when hit


class CalibrateKeys(Section):
    """The key of `runs.<row>` that MTS reads."""

    mask_ratio: Ratio
