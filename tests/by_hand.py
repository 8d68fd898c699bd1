"""The expected calibration error, written out bin by bin."""

import numpy as np

__all__ = ["ece_of_tops"]


def ece_of_tops(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Of top classes with probabilities `(N,)`, `right` where they are the label.

    Bins are `[low, high)`, and the last one includes 1.
    """
    error = 0.0
    for k in range(bins):
        inside = (confidence >= k / bins) & ((confidence < (k + 1) / bins) | (k == bins - 1))
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)
