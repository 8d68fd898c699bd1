"""Draws of images: class by class, so that every class has its share, or in batches."""

from collections.abc import Callable

import torch

from stages.runtime.randomness import generator

__all__ = ["chunks_of", "class_rows", "drawn_rows", "held_out", "kept", "per_class", "share_of"]


def class_rows(labels: torch.Tensor, classes: int) -> list[torch.Tensor]:
    """The positions of each class's images.

    Args:
        labels: `(N,)` int64.

    Returns:
        A tensor for each class, on the device of the labels.
    """
    return [torch.nonzero(labels == label).flatten() for label in range(classes)]


def per_class(
    labels: torch.Tensor, classes: int, how_many: Callable[[int], int], draw: torch.Generator
) -> torch.Tensor:
    """The positions of random images of each class, class by class.

    Args:
        labels: `(N,)` int64.
        how_many: size of a class -> number of images to draw from it.

    Returns:
        `(M,)` int64 on the device of the labels.
    """
    by_class = class_rows(labels.cpu(), classes)
    return torch.cat(drawn_rows(by_class, how_many, draw)).to(labels.device)


def drawn_rows(
    by_class: list[torch.Tensor], how_many: Callable[[int], int], draw: torch.Generator
) -> list[torch.Tensor]:
    """Random positions of each class.

    Args:
        by_class: all positions of each class, on the CPU.
        how_many: as for `per_class`.
    """
    chosen = []
    for rows in by_class:
        order = torch.randperm(len(rows), generator=draw)
        chosen.append(rows[order[: how_many(len(rows))]])
    return chosen


def share_of(share: float) -> Callable[[int], int]:
    """For `per_class`: a share of each class, but at least one image (Appendix B.1 of the paper)."""
    return lambda size: max(1, round(share * size))


def held_out(labels: torch.Tensor, classes: int, share: float, seed: int, repeat: int) -> torch.Tensor | None:
    """The positions of the images that are kept from a repeat's training: `share` of each class.

    None if a class has fewer than two images.
    """
    smallest = int(labels.bincount(minlength=classes).min())
    if smallest < 2:
        return None
    return per_class(labels, classes, share_of(share), generator(seed, "holdout", repeat))


def kept(labels: torch.Tensor, classes: int, share: float, seed: int, repeat: int) -> torch.Tensor:
    """The positions of all images that are not in `held_out`, in ascending order."""
    remains = torch.ones(len(labels), dtype=torch.bool)
    remains[held_out(labels, classes, share, seed, repeat)] = False
    return remains.nonzero().flatten()


def chunks_of(count: int, size: int, steps: int, draws: torch.Generator) -> list[torch.Tensor]:
    """The positions of each step's batch: a permutation cut into chunks, and a new one when it is used up.

    The last chunk of a permutation is the first batch, as in MTT's public code.

    Args:
        count: number of images.
        size: images of a batch; the first one of a permutation may have fewer.
        steps: number of batches.
    """
    chunks: list[torch.Tensor] = []
    while len(chunks) < steps:
        permutation = torch.randperm(count, generator=draws)
        chunks += reversed(permutation.split(size))
    return chunks[:steps]
