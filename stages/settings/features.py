"""`features.<row>` of a suite: a row whose networks are looked into."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Count, Ratio, Section

__all__ = ["FeaturesKeys"]


class FeaturesKeys(Section):
    """Keys of `features.<row>`."""

    outside: str  # the data set whose test images are out of the distribution
    losses: list[str]  # whose networks' blocks are mapped
    ratios: list[Ratio] = [0.1, 0.2, 0.3]  # of the masks over the training images (Figures 7 and 12a)
    per_class: Count = 40  # test images of each class on the maps
    perplexity: Annotated[float, Field(gt=1)] = 30.0  # of t-SNE
