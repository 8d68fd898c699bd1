"""`temperature` of params.yaml: the temperature that is shipped with a distilled set."""

from stages.settings.section import Count, Section

__all__ = ["TemperatureSettings"]


class TemperatureSettings(Section):
    """Keys of `temperature`."""

    networks: Count  # that are trained on the set to fit it
    images: Count  # real training images that it is fitted on, in all classes together
