"""Classwise expected calibration error: of the probability of every class, not of the top class alone.

Meelis Kull, Miquel Perello-Nieto, Markus Kängsepp, Telmo Silva Filho, Hao Song, Peter Flach: "Beyond
temperature scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet calibration", NeurIPS
2019, https://arxiv.org/abs/1910.12656. It is the static calibration error of Jeremy Nixon, Michael W.
Dusenberry, Linchuan Zhang, Ghassen Jerfel, Dustin Tran: "Measuring Calibration in Deep Learning", CVPR
Workshops 2019, https://arxiv.org/abs/1904.01685.
"""

import numpy as np

from stages.metrics.ece import ece

__all__ = ["classwise_ece"]


def classwise_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """`1/K sum_k sum_b n_bk/N |share of label k - mean p_k|` over the bins of `ece`, a share in [0, 1].

    This is a mean over classes. Most of a sample's K probabilities are near 0 and add little, so data sets
    with different K cannot be compared. It is at most 2/K; some authors report the sum over classes, which
    is K times as large.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)`.
    """
    errors = []
    for k in range(probabilities.shape[1]):
        # The column alone is a prediction of class 0 with confidence p_k, and is right where the label is k.
        column = probabilities[:, [k]]
        label_of_column = labels != k  # 0 where the label is k
        errors.append(ece(column, label_of_column, bins))
    return float(np.mean(errors))
