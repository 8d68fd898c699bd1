"""`svd.<row>` of a suite: a row that is decomposed into singular values."""

from stages.settings.section import Count, Ratio, Section

__all__ = ["SvdKeys"]


class SvdKeys(Section):
    """Keys of `svd.<row>`."""

    # shares of the singular values that training does without, the largest first; may be empty
    drop: list[Ratio]
    epochs: Count  # of training on what is left; the paper: 300
