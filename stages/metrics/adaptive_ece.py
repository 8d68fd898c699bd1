"""Adaptive expected calibration error: the bins have equal numbers of samples.

Khanh Nguyen, Brendan O'Connor: "Posterior calibration and exploratory analysis for natural language
processing models", EMNLP 2015, https://arxiv.org/abs/1508.05154. Jeremy Nixon, Michael W. Dusenberry,
Linchuan Zhang, Ghassen Jerfel, Dustin Tran: "Measuring Calibration in Deep Learning", CVPR Workshops 2019,
https://arxiv.org/abs/1904.01685. The adaptive calibration error of the latter is a mean over classes; this
one is of the top class alone, as `ece` is.
"""

import numpy as np

__all__ = ["adaptive_ece"]


def adaptive_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`sum_b n_b/N |accuracy_b - confidence_b|` over bins of equal size, a share in [0, 1].

    The samples are sorted by their top-class confidence and cut into bins. If N is not divisible, the first
    `N % bins` bins have one sample more than the others; bins beyond N are empty. Equal confidences keep
    the data set's order and may be cut into two bins, so the result can depend on that order. It is the
    same for all methods.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    confidence = probabilities.max(1)
    is_right = probabilities.argmax(1) == labels
    order = np.argsort(confidence, kind="stable")
    gaps = (is_right - confidence)[order]
    bin_gaps = [abs(part.sum()) for part in np.array_split(gaps, bins)]
    return float(sum(bin_gaps) / len(labels))
