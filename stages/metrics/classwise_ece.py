"""Classwise expected calibration error: every class's probability, not the top one's alone.

Meelis Kull, Miquel Perello-Nieto, Markus Kängsepp, Telmo Silva Filho, Hao Song, Peter Flach: "Beyond temperature scaling:
Obtaining well-calibrated multiclass probabilities with Dirichlet calibration", NeurIPS 2019, https://arxiv.org/abs/1910.12656.
The same number is the static calibration error of Jeremy Nixon, Michael W. Dusenberry, Linchuan Zhang, Ghassen Jerfel,
Dustin Tran: "Measuring Calibration in Deep Learning", CVPR Workshops 2019, https://arxiv.org/abs/1904.01685.
"""

import numpy as np

from stages.metrics.ece import ece

__all__ = ["classwise_ece"]


def classwise_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`1/K sum_k sum_b n_bk/N |share of label k - mean p_k|` over the bins of `ece`, a share in [0, 1].

    A mean over classes: most of the K probabilities of a sample are near 0 and add little, so numbers of data sets with
    different K do not compare (it is at most 2/K, and K times smaller than the sum over classes that some report).

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    # One column alone has p_k as its top confidence and 0 as its top class, which is right where `labels != k` is 0.
    classes = range(probabilities.shape[1])
    return float(np.mean([ece(probabilities[:, [k]], labels != k, bins) for k in classes]))
