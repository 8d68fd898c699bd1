"""Detection of out-of-distribution images by a score, usually the top-class confidence.

An image with a high score is taken to be in the distribution. Dan Hendrycks, Kevin Gimpel: "A Baseline for
Detecting Misclassified and Out-of-Distribution Examples in Neural Networks", ICLR 2017,
https://arxiv.org/abs/1610.02136 (AUROC). Shiyu Liang, Yixuan Li, R. Srikant: "Enhancing The Reliability of
Out-of-distribution Image Detection in Neural Networks" (ODIN), ICLR 2018, https://arxiv.org/abs/1706.02690
(FPR at 95 % TPR).
"""

import numpy as np

__all__ = ["auroc", "fpr95"]


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """`P(inside > outside) + P(inside = outside) / 2` of a random pair: 1 is perfect, 0.5 is chance.

    Args:
        inside: `(N,)` scores of images in the distribution.
        outside: `(M,)` scores of images out of the distribution.
    """
    ranked = np.sort(inside)
    below = np.searchsorted(ranked, outside, "left")  # how many of `inside` are below each of `outside`
    below_or_equal = np.searchsorted(ranked, outside, "right")
    lost = (below + below_or_equal).mean() / (2 * len(ranked))
    return float(1 - lost)


def fpr95(inside: np.ndarray, outside: np.ndarray) -> float:
    """The share of `outside` that passes for inside if at least 95 % of `inside` do: 0 is perfect.

    Args:
        inside: `(N,)` scores of images in the distribution.
        outside: `(M,)` scores of images out of the distribution.
    """
    rejected = len(inside) // 20  # 5 % of `inside`, rounded down in exact integers
    threshold = np.sort(inside)[rejected]
    return float((outside >= threshold).mean())
