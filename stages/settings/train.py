"""How networks are trained on distilled sets: what all rows share, and the keys of a row."""

from typing import Annotated, Literal

from pydantic import Field

from stages.settings.section import Count, NotNegative, Positive, Precision, Ratio, Section

__all__ = ["OwnTraining", "TrainKeys", "TrainSettings"]


class TrainSettings(Section):
    """`train` of params.yaml."""

    repeats: Count  # networks a loss
    losses: Annotated[list[str], Field(min_length=1)]  # files of stages/losses
    batch: Count
    momentum: Ratio
    weight_decay: NotNegative
    drop: bool  # whether the second half has a tenth of the step size
    precision: Precision  # of the products
    holdout: Annotated[float, Field(gt=0, lt=1)]  # share of the distilled images that TS keeps from training
    mixup_alpha: Positive
    mixup_first: bool  # whether images are mixed before they are augmented, not after
    label_smoothing: Ratio
    focal_gamma: NotNegative


class OwnTraining(Section):
    """`runs.<row>.train`: the keys of `train` in params.yaml that a row has otherwise."""

    batch: Count | None = None
    momentum: Ratio | None = None
    weight_decay: NotNegative | None = None
    drop: bool | None = None
    precision: Precision | None = None
    repeats: Count | None = None


class TrainKeys(Section):
    """Keys of `runs.<row>` that `train` reads."""

    epochs: Count
    # learned: the step size that the distillation found; teacher: the one that it started with
    lr: Positive | Literal["learned", "teacher"]
    augment: bool  # whether every batch is augmented as DSA does
    train: OwnTraining
