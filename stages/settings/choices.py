"""`choices` of params.yaml: what is tried where the paper does not say what it did."""

from stages.settings.section import Count, NotNegative, Positive, Ratio, Section

__all__ = ["ChoicesSettings"]


class ChoicesSettings(Section):
    """Keys of `choices`."""

    mixup_alpha: list[Positive]
    label_smoothing: list[Ratio]
    step_size: list[Positive]  # factors of the row's own step size
    lbfgs_lr: list[Positive]  # step sizes of the LBFGS runs
    lbfgs_steps: list[Count]  # their iterations
    starts: list[Positive]  # their first temperatures
    focal_gamma: list[NotNegative]
