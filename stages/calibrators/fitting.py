"""Which networks a method calibrates, and which of the distilled images it fits their temperatures on."""

from typing import NamedTuple

__all__ = ["NETWORKS", "Fitting"]

# The group of networks that each method calibrates.
NETWORKS = {"ts": "holdout", "mts": "cross_entropy", "mts_holdout": "holdout"}


class Fitting(NamedTuple):
    """The images that a method fits its temperatures on."""

    method: str  # a key of NETWORKS
    ratio: float  # mask ratio
    share: float  # share of the distilled images

    @property
    def key(self) -> str:
        """The name of their logits in `data/masked`; the name of their labels is `<key>.labels`."""
        return f"{self.method}/{self.ratio:g}/{self.share:g}"
