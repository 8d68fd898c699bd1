"""`evaluate` of params.yaml: how calibration is measured."""

from stages.settings.section import Count, Section

__all__ = ["EvaluateSettings"]


class EvaluateSettings(Section):
    """Keys of `evaluate`."""

    bins: Count  # of ECE, of equal width
    resamples: Count  # of the test images, for the intervals
