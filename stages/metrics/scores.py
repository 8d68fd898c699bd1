"""Accuracy and proper scores of `(N, K)` probabilities or log-probabilities against `(N,)` labels."""

import numpy as np

from stages.metrics.ece import ece

__all__ = ["accuracy", "brier", "confidence_gap", "log_softmax", "nll", "scores"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def confidence_gap(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean top-class confidence minus accuracy: positive is over-confident, negative under-confident."""
    return float(probabilities.max(1).mean()) - accuracy(probabilities, labels)


def nll(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Negative log-likelihood in nats a sample."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `sum_k (p_k - [k = label])^2`, in [0, 2]. G. W. Brier, Monthly Weather Review 78, 1950."""
    at_label = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(1) - 2 * at_label + 1).mean())


def scores(log_probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, float]:
    """Every number of one network: shares in [0, 1], NLL in nats."""
    p = np.exp(log_probabilities)
    return {
        "accuracy": accuracy(p, labels),
        "ece": ece(p, labels, bins),
        "nll": nll(log_probabilities, labels),
        "brier": brier(p, labels),
        "confidence_gap": confidence_gap(p, labels),
    }
