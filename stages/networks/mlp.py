"""MLP: two hidden layers of 128 units.

`networks.MLP` of https://github.com/VICO-UoE/DatasetCondensation.
"""

from torch import nn

from stages.settings.network import NetworkSettings

__all__ = ["build"]

HIDDEN = 128


def build(channels: int, size: int, classes: int, settings: NetworkSettings) -> nn.Module:
    """The MLP for square images of `size` pixels; it has no settings of its own."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size * size, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, classes),
    )
