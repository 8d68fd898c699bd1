"""The images and labels of a split, training or test, as a source gives them: decoded and nothing else."""

from typing import NamedTuple

import numpy as np

__all__ = ["Split", "first_of_each_class", "shortened"]


class Split(NamedTuple):
    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64: positions in the sorted class names


def first_of_each_class(split: Split, per_class: int | None) -> Split:
    """The first `per_class` images of each class, in the order of the split; None keeps all images."""
    rows = [np.flatnonzero(split.labels == label)[:per_class] for label in np.unique(split.labels)]
    in_order = np.sort(np.concatenate(rows))
    return Split(split.images[in_order], split.labels[in_order])


def shortened(counts: list[int], per_class: int | None) -> list[int]:
    """Images of each class when at most `per_class` of a class are kept."""
    return [min(count, per_class or count) for count in counts]
