"""Folds of a distilled set, and networks that are each trained without one of them."""

from typing import NamedTuple

import torch

from stages.images.distilled import DistilledSet
from stages.images.sampling import class_rows
from stages.training.groups import Setup

__all__ = ["Fold", "fold_setups", "folds_of", "split_in_folds"]


class Fold(NamedTuple):
    """Positions among the images of all sets of a row."""

    kept: torch.Tensor  # (M,): what the network of the fold is trained on
    left_out: torch.Tensor  # (N,)


def split_in_folds(
    labels: torch.Tensor, classes: int, folds: int, draws: torch.Generator
) -> list[torch.Tensor] | None:
    """The positions of the images of each fold: each class is shuffled and dealt out.

    None where a class has fewer images than there are folds.

    Args:
        labels: `(N,)` int64.
    """
    dealt: list[list[torch.Tensor]] = [[] for _ in range(folds)]
    for rows in class_rows(labels, classes):
        if len(rows) < folds:
            return None
        shuffled = rows[torch.randperm(len(rows), generator=draws)]
        for fold, of_fold in enumerate(dealt):
            of_fold.append(shuffled[fold::folds])
    return [torch.cat(of_fold).sort().values for of_fold in dealt]


def folds_of(distilled: DistilledSet, folds: int, draws: torch.Generator) -> list[Fold] | None:
    """The folds of a set; where a row has several sets, fold k is the k-th fold of the set `k % sets`.

    None where a class has fewer images than there are folds.
    """
    whole = torch.arange(len(distilled.data.labels))
    rows_of_sets = distilled.rows_of(distilled.sets) or [whole]
    split_sets = []
    for rows in rows_of_sets:
        split = split_in_folds(distilled.data.labels[rows], distilled.data.classes, folds, draws)
        if split is None:
            return None
        split_sets.append(split)
    listed = []
    for number in range(folds):
        rows = rows_of_sets[number % distilled.sets]
        left_out = split_sets[number % distilled.sets][number]
        is_kept = torch.ones(len(rows), dtype=torch.bool)
        is_kept[left_out] = False
        listed.append(Fold(rows[is_kept], rows[left_out]))
    return listed


def fold_setups(common: Setup, folds: list[Fold]) -> list[tuple[Setup, list[Fold]]]:
    """The networks of all folds, each trained without its fold and shown the images of all sets.

    Networks are trained side by side where they have equally many images: each setup has its folds with it.

    Args:
        common: of the row; its images, purpose and repeats are replaced.
    """
    by_size: dict[int, list[Fold]] = {}
    for fold in folds:
        by_size.setdefault(len(fold.kept), []).append(fold)
    setups = []
    for size, of_size in by_size.items():
        setup = common._replace(
            rows=[fold.kept for fold in of_size],
            test=common.data,
            repeats=len(of_size),
            purpose=f"folds {size}",
        )
        setups.append((setup, of_size))
    return setups
