"""What networks say to the distilled images that their temperatures are fitted on."""

from types import ModuleType

import torch

from stages.calibrators import mts, mts_holdout, ts
from stages.calibrators.fitting import NETWORKS, Fitting
from stages.images.distilled import load_set
from stages.runtime.files import read_tensors
from stages.settings.rows import Row
from stages.training.flat import flat_convnet, predict

__all__ = ["fitting_logits"]

METHODS: dict[str, ModuleType] = {"ts": ts, "mts": mts, "mts_holdout": mts_holdout}


def fitting_logits(row: Row, wanted: list[Fitting]) -> dict[str, torch.Tensor]:
    """`(repeats, M, K)` logits by `Fitting.key`, and `(repeats, M)` labels under `<key>.labels`.

    Where the labels of the set are soft, they are `(repeats, M, K)` probabilities.
    """
    distilled = load_set(row.distilled, row.prepared)
    network = flat_convnet(row.network, distilled.data, row.device)
    weights = read_tensors(row.weights)
    tensors = {}
    for fitting in wanted:
        fitting_images = METHODS[fitting.method].fitting_images
        logits = []
        labels = []
        for repeat, theta in enumerate(weights[NETWORKS[fitting.method]]):
            data = distilled.of_repeat(repeat)
            images, own_labels = fitting_images(data, fitting.share, fitting.ratio, row.seed, repeat)
            logits.append(predict(network, theta.to(row.device), images.to(row.device)).cpu())
            labels.append(own_labels)
        tensors[fitting.key] = torch.stack(logits)
        tensors[f"{fitting.key}.labels"] = torch.stack(labels)
    return tensors
