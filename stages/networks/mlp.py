"""MLP: two hidden layers of 128 units.

`networks.MLP` of https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn

__all__ = ["build"]

HIDDEN = 128


def build(channels: int, size: int, classes: int, settings) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size * size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
    )
