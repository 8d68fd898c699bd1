"""Adaptive expected calibration error: bins with the same number of samples in each.

Khanh Nguyen, Brendan O'Connor: "Posterior calibration and exploratory analysis for natural language processing models",
EMNLP 2015, https://arxiv.org/abs/1508.05154. Jeremy Nixon, Michael W. Dusenberry, Linchuan Zhang, Ghassen Jerfel, Dustin Tran:
"Measuring Calibration in Deep Learning", CVPR Workshops 2019, https://arxiv.org/abs/1904.01685, whose adaptive calibration error
is a mean over classes; this one is of the top class alone, like `ece`.
"""

import numpy as np

__all__ = ["adaptive_ece"]


def adaptive_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`sum_b n_b/N |accuracy_b - confidence_b|` over bins of equal count of the sorted top confidence, a share in [0, 1].

    Where N is not divisible, the first `N % bins` bins have one sample more than the others; bins beyond N are empty.
    Equal confidences keep the data set's order and may be cut between two bins, so the number can depend on that order,
    which is the same for all methods.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    gap = (right - confidence)[np.argsort(confidence, kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(labels))
