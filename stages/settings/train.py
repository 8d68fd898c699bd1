"""How networks are trained on distilled sets: what all rows share, and the keys of a row."""

from typing import Annotated, Literal

from pydantic import Field

from stages.settings.section import Count, NotNegative, Positive, Ratio, Section

__all__ = ["TrainKeys", "TrainSettings"]


class TrainSettings(Section):
    """`train` of params.yaml."""

    repeats: Count  # networks a loss
    losses: Annotated[list[str], Field(min_length=1)]  # files of stages/losses
    batch: Count
    momentum: Ratio
    weight_decay: NotNegative
    holdout: Annotated[float, Field(gt=0, lt=1)]  # share of the distilled images that TS keeps from training
    mixup_alpha: Positive
    label_smoothing: Ratio
    focal_gamma: NotNegative


class TrainKeys(Section):
    """Keys of `runs.<row>` that `train` reads."""

    epochs: Count
    lr: Positive | Literal["learned"]  # learned: the step size that the distillation found
    augment: bool  # whether every batch is augmented as DSA does
