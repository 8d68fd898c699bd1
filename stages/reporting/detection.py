"""How well networks tell images in the distribution from images outside it."""

import numpy as np

from stages.metrics.ood import auroc, fpr95

__all__ = ["detection"]


def detection(features: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """AUROC and FPR at 95 % TPR of each network of a row, by its maximum probability.

    Args:
        features: `data/features/<row>.safetensors`.
    """
    pairs = list(zip(features["inside.max_probability"], features["outside.max_probability"]))
    return {
        "auroc": [auroc(inside, outside) for inside, outside in pairs],
        "fpr95": [fpr95(inside, outside) for inside, outside in pairs],
    }
