"""`datasets.<name>.network`: the ConvNet that the sets of a data set are distilled for."""

from stages.settings.section import Count, Section

__all__ = ["NetworkSettings"]


class NetworkSettings(Section):
    """Keys of `datasets.<name>.network`."""

    width: Count  # channels of every block
    depth: Count  # blocks; each halves the side of the image
