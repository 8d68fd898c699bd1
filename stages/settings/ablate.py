"""`ablate` of params.yaml: what MTS is tried at for Figures 8 and 9 and the table of starting values."""

from stages.settings.section import Count, Positive, Ratio, Section, Share

__all__ = ["AblateSettings"]


class AblateSettings(Section):
    """Keys of `ablate`."""

    ratios: list[Ratio]  # of the mask
    shares: list[Share]  # of the images fitted on
    starts: list[Positive]  # first temperatures of the LBFGS runs
    steps: list[Count]  # iterations after which they are looked at
