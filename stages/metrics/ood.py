"""Out-of-distribution detection by a score, usually the top-class confidence: higher is taken for in-distribution.

Dan Hendrycks, Kevin Gimpel: "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
ICLR 2017, https://arxiv.org/abs/1610.02136 (AUROC). Shiyu Liang, Yixuan Li, R. Srikant: "Enhancing The Reliability of
Out-of-distribution Image Detection in Neural Networks" (ODIN), ICLR 2018, https://arxiv.org/abs/1706.02690 (FPR at 95 % TPR).
"""

import numpy as np

__all__ = ["auroc", "fpr95"]


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """`P(inside > outside) + P(inside = outside) / 2` of a random pair: 1 is perfect, 0.5 is chance.

    Args:
        inside: `(N,)` scores in distribution.
        outside: `(M,)` scores out of distribution.
    """
    ranked = np.sort(inside)
    below, up_to = (np.searchsorted(ranked, outside, side) for side in ("left", "right"))
    return float(1 - (below + up_to).mean() / (2 * len(ranked)))


def fpr95(inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of `outside`, `(M,)`, at or above the highest score that keeps at least 95 % of `inside`, `(N,)`: 0 is perfect."""
    threshold = np.sort(inside)[len(inside) // 20]  # N - N // 20 are at or above: 0.95 N rounded up, in exact integers
    return float((outside >= threshold).mean())
