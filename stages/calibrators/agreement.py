"""A temperature from inputs without labels: the mean confidence is brought to how often networks agree.

Yiding Jiang, Vaishnavh Nagarajan, Christina Baek, J. Zico Kolter: "Assessing Generalization of SGD via
Disagreement", ICLR 2022, https://arxiv.org/abs/2106.13799: two networks of the same training agree about as
often as each is right.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from stages.calibrators.objectives import at_confidence
from stages.calibrators.optimum import Fit

__all__ = ["by_agreement", "mean_agreement"]


def mean_agreement(logits: np.ndarray) -> float:
    """The share of images on which two networks have the same top class, as a mean over all pairs.

    Args:
        logits: `(R, N, K)` of at least two networks.
    """
    top = logits.argmax(2)
    shares = [float((top[i] == top[j]).mean()) for i, j in combinations(range(len(top)), 2)]
    return float(np.mean(shares))


def by_agreement(logits: np.ndarray, bounds: Sequence[float]) -> Fit:
    """One T for all networks, at which their mean confidence is their mean agreement.

    Args:
        logits: `(R, N, K)` of at least two networks.
    """
    pooled = logits.reshape(-1, logits.shape[2])
    return at_confidence(pooled, mean_agreement(logits), bounds)
