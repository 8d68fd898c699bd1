"""What the temperatures' fits share: their settings, and names."""

from typing import Annotated

from pydantic import Field

from stages.shared.settings import Count, Positive, Ratio, Section

__all__ = ["NETWORKS", "CalibrateSettings", "SweepSettings", "key_of"]

NETWORKS = {"ts": "holdout", "mts": "cross_entropy"}  # method -> the group of networks that it calibrates

Share = Annotated[float, Field(gt=0, le=1)]


class CalibrateSettings(Section):
    """`calibrate` of params.yaml."""

    start: Positive  # first temperature of the LBFGS runs
    lr: Positive
    max_iter: Count
    share: Share  # of the distilled images that MTS fits on, per class
    bounds: Annotated[list[Positive], Field(min_length=2, max_length=2)]  # of every temperature; reported when hit


class SweepSettings(Section):
    """`sweep` of params.yaml: what MTS is tried at, for Figures 8 and 9 and the table of starting values."""

    ratios: list[Ratio]
    shares: list[Share]
    starts: list[Positive]  # temperatures that the LBFGS runs start from
    steps: list[Count]  # iterations after which they are looked at


def key_of(method: str, ratio: float, share: float) -> str:
    """Name of the logits of a method's fitting images in `data/masked`; their labels have `.labels` behind it."""
    return f"{method}/{ratio:g}/{share:g}"
