"""A card as its maker describes it, and the hours that counted work takes on it."""

from typing import NamedTuple

from benchmarks.counted import Load

__all__ = ["CARD", "HOUR", "Card"]

HOUR = 3600


class Card(NamedTuple):
    """A card as its maker describes it, and what is assumed of it."""

    name: str
    operations: float  # a second, of float32 products: the published dense peak
    bandwidth: float  # bytes a second of its memory: published
    memory: float  # bytes
    share: float  # assumed: of both rates, that our code reaches
    call: float  # assumed: seconds that a call takes on the host, if nothing else takes longer

    def least_hours(self, load: Load) -> float:
        """If products are all that takes time."""
        return load.operations / (self.share * self.operations) / HOUR

    def most_hours(self, load: Load) -> float:
        """If nothing overlaps and no call is fused with another."""
        moved = load.bytes / (self.share * self.bandwidth) / HOUR
        return max(self.least_hours(load) + moved, load.calls * self.call / HOUR)


CARD = Card("H100 SXM, 80 GB", 67e12, 3.35e12, 80e9, 0.5, 5e-6)
