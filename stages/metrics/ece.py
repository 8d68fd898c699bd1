"""Expected calibration error.

Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger: "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599, equation (3).
"""

import numpy as np

__all__ = ["bin_of", "ece", "reliability"]


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence: `[k/bins, (k+1)/bins)`, and exactly 1.0 is in the last."""
    return np.searchsorted(np.arange(1, bins) / bins, confidence, side="right")


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """Count, mean confidence and accuracy by bin of the top-class confidence; empty bins have zeros.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    where = bin_of(confidence, bins)
    count = np.bincount(where, minlength=bins)
    some = np.maximum(count, 1)
    return {
        "count": count,
        "confidence": np.bincount(where, confidence, bins) / some,
        "accuracy": np.bincount(where, right, bins) / some,
    }


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`sum_b n_b/N |accuracy_b - confidence_b|` over equal-width bins, in [0, 1]."""
    table = reliability(probabilities, labels, bins)
    return float(np.dot(table["count"], np.abs(table["accuracy"] - table["confidence"])) / len(labels))
