"""Networks and their temperatures, judged on labelled images, and what several networks say together."""

from typing import Any, NamedTuple

import numpy as np

from stages.calibrators.optimum import Fit, as_lists, optimum
from stages.metrics.ece import ece
from stages.metrics.scores import accuracy, confidence_gap, log_softmax, scores_of_networks

__all__ = ["RAW", "Judge", "Name", "confidence_of", "log_mean", "pooled"]

SCORES = ("accuracy", "ece", "nll", "confidence_gap")
RAW = Fit(1.0, False)


class Name(NamedTuple):
    """What an entry of the result is about."""

    part: str  # what is varied
    choice: str  # how a temperature or a map was found
    on: str = "clean"  # what it is judged on: the row's own networks on unchanged images, or something else


class Judge(NamedTuple):
    """The test labels. Nothing is fitted on them but the oracle."""

    labels: np.ndarray  # (N,)
    bounds: list[float]
    bins: int  # of ECE

    def entry(self, name: Name, logits: np.ndarray, fits: list[Fit]) -> dict[str, Any]:
        """The scores of each network at its temperature.

        Args:
            logits: `(R, N, K)`.
            fits: one for each network.
        """
        log_p = [log_softmax(z / fit.temperature) for z, fit in zip(logits, fits)]
        return name._asdict() | as_lists(fits) | self.scores(log_p)

    def scores(self, log_probabilities: list[np.ndarray]) -> dict[str, list[float]]:
        """Lists of one number a network, from its `(N, K)` log-probabilities."""
        numbers = scores_of_networks(log_probabilities, self.labels, self.bins)
        return {score: numbers[score] for score in SCORES}

    def top_scores(self, confidences: list[np.ndarray], logits: np.ndarray) -> dict[str, list[float]]:
        """The scores that need no other probability than that of the top class.

        Args:
            confidences: `(N,)` of each network.
            logits: `(R, N, K)`, which say what the top class is.
        """
        numbers: dict[str, list[float]] = {"accuracy": [], "ece": [], "confidence_gap": []}
        for confidence, z in zip(confidences, logits):
            # One column is a prediction of class 0, and is right where the label is 0.
            column = confidence[:, None]
            is_wrong = z.argmax(1) != self.labels
            numbers["accuracy"].append(accuracy(column, is_wrong))
            numbers["ece"].append(ece(column, is_wrong, self.bins))
            numbers["confidence_gap"].append(confidence_gap(column, is_wrong))
        return numbers

    def oracle(self, logits: np.ndarray) -> list[Fit]:
        """The temperature of each network that is best on the test labels."""
        return [optimum(z, self.labels, self.bounds) for z in logits]

    def beside(self, part: str, on: str, logits: np.ndarray, shipped: Fit) -> list[dict[str, Any]]:
        """Raw, the shipped temperature and the oracle."""
        return [
            self.entry(Name(part, "raw", on), logits, [RAW] * len(logits)),
            self.entry(Name(part, "shipped", on), logits, [shipped] * len(logits)),
            self.entry(Name(part, "oracle", on), logits, self.oracle(logits)),
        ]


def pooled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logits `(R * M, K)` and labels `(R * M,)` of all networks together.

    Args:
        logits: `(R, M, K)`.
        labels: `(M,)`.
    """
    networks, _, classes = logits.shape
    return logits.reshape(-1, classes), np.tile(labels, networks)


def log_mean(logits: np.ndarray) -> np.ndarray:
    """The logarithm `(N, K)` of the mean probabilities of networks with logits `(R, N, K)`."""
    log_p = np.stack([log_softmax(z) for z in logits])
    return np.logaddexp.reduce(log_p) - np.log(len(logits))


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """The probability `(N,)` of the top class."""
    return np.exp(log_softmax(logits).max(1))
