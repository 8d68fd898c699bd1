"""Expected calibration error.

Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger: "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599, equation (3).
"""

import numpy as np

__all__ = ["bin_of", "ece", "reliability"]


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The number of each confidence's bin. Bin k is `[k/bins, (k+1)/bins)`; the last one includes 1."""
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, confidence, side="right")


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """`count`, mean `confidence` and `accuracy` of each bin of the top-class confidence; zeros in empty bins.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    confidence = probabilities.max(1)
    is_right = probabilities.argmax(1) == labels
    number = bin_of(confidence, bins)
    count = np.bincount(number, minlength=bins)
    at_least_one = np.maximum(count, 1)  # an empty bin has sums of zero
    return {
        "count": count,
        "confidence": np.bincount(number, confidence, bins) / at_least_one,
        "accuracy": np.bincount(number, is_right, bins) / at_least_one,
    }


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`sum_b n_b/N |accuracy_b - confidence_b|` over bins of equal width, a share in [0, 1].

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    table = reliability(probabilities, labels, bins)
    gaps = np.abs(table["accuracy"] - table["confidence"])
    return float(np.dot(table["count"], gaps) / len(labels))
