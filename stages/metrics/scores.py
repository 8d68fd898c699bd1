"""Accuracy and proper scores of `(N, K)` probabilities or log-probabilities against `(N,)` labels."""

from collections.abc import Iterable

import numpy as np

from stages.metrics.ece import ece

__all__ = [
    "accuracy",
    "brier",
    "confidence_gap",
    "log_softmax",
    "nll",
    "scores",
    "scores_at",
    "scores_of_networks",
]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    is_right = probabilities.argmax(1) == labels
    return float(is_right.mean())


def confidence_gap(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean top-class confidence minus accuracy: positive is over-confident, negative is under-confident."""
    confidence = float(probabilities.max(1).mean())
    return confidence - accuracy(probabilities, labels)


def nll(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood, in nats."""
    at_label = log_probabilities[np.arange(len(labels)), labels]
    return float(-at_label.mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `sum_k (p_k - [k = label])^2`, in [0, 2]. G. W. Brier, Monthly Weather Review 78, 1950."""
    at_label = probabilities[np.arange(len(labels)), labels]
    squares = (probabilities**2).sum(1)
    return float((squares - 2 * at_label + 1).mean())


def scores(log_probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, float]:
    """All scores of one network: shares in [0, 1], and NLL in nats.

    Args:
        bins: number of bins of the ECE.
    """
    probabilities = np.exp(log_probabilities)
    return {
        "accuracy": accuracy(probabilities, labels),
        "ece": ece(probabilities, labels, bins),
        "nll": nll(log_probabilities, labels),
        "brier": brier(probabilities, labels),
        "confidence_gap": confidence_gap(probabilities, labels),
    }


def scores_at(
    logits: np.ndarray, temperatures: Iterable[float], labels: np.ndarray, bins: int
) -> dict[str, list[float]]:
    """Every score of `(S, N, K)` logits at a temperature for each network, one number a network."""
    log_p = [log_softmax(z / temperature) for z, temperature in zip(logits, temperatures)]
    return scores_of_networks(log_p, labels, bins)


def scores_of_networks(
    log_probabilities: Iterable[np.ndarray], labels: np.ndarray, bins: int
) -> dict[str, list[float]]:
    """Every score as a list of one number a network, from the `(N, K)` log-probabilities of each."""
    numbers: dict[str, list[float]] = {}
    for log_p in log_probabilities:
        for name, value in scores(log_p, labels, bins).items():
            numbers.setdefault(name, []).append(value)
    return numbers
