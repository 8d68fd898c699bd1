"""What a backbone is given: real images of each class, and the masks of MDT and MDT_ds."""

from pathlib import Path

import torch
from torch import Tensor

from stages.distillation.backbone import Problem
from stages.images.prepared import LabelledImages
from stages.settings.network import NetworkSettings
from stages.training.flat import FlatNetwork, flat_convnet

LABELS = torch.arange(30) % 3
REAL = LabelledImages(torch.zeros(30, 1, 8, 8), LABELS, 3)
ONES = torch.ones(4, 3, 64, 64)


def network() -> FlatNetwork:
    return flat_convnet(NetworkSettings(width=4, depth=2), REAL, torch.device("cpu"))


def problem(mdt: float | list[float] = 0) -> Problem:
    return Problem(REAL, network(), ipc=4, mdt=mdt, reads=Path(), seed=7)


def share_of_zeros(masked: Tensor) -> float:
    return float((masked == 0).float().mean())


def test_real_rows_are_of_the_right_class():
    rows = problem().real_rows()
    assert LABELS[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_mdt_ds_draws_a_ratio_for_every_iteration():
    ranged = problem(mdt=[0.0, 0.1])
    shares = [share_of_zeros(ranged.mask(i)(ONES, 0)) for i in range(40)]
    assert min(shares) < 0.02
    assert 0.08 < max(shares) < 0.11
    assert abs(sum(shares) / len(shares) - 0.05) < 0.02


def test_every_step_has_a_mask_of_its_own_and_always_the_same():
    fixed = problem(mdt=0.1)
    assert not torch.equal(fixed.mask(0)(ONES, 0), fixed.mask(0)(ONES, 1))
    assert torch.equal(fixed.mask(3)(ONES, 1), fixed.mask(3)(ONES, 1)), "the way back needs it again"
