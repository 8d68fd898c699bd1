"""Drawing images class by class, so that no class is missing or over-represented."""

from collections.abc import Callable

import torch

from stages.shared.randomness import generator

__all__ = ["chunks_of", "class_rows", "held_out", "kept", "per_class", "share_of"]


def class_rows(labels: torch.Tensor, classes: int) -> list[torch.Tensor]:
    """Positions of each class's images, from `(N,)` labels and on their device."""
    return [torch.nonzero(labels == k).flatten() for k in range(classes)]


def per_class(labels: torch.Tensor, classes: int, how_many: Callable[[int], int], draw: torch.Generator) -> torch.Tensor:
    """Positions of `how_many(size of the class)` random images of each class, class by class.

    Args:
        labels: `(N,)` int64.

    Returns:
        `(M,)` int64 on the labels' device.
    """
    chosen = [rows[torch.randperm(len(rows), generator=draw)[: how_many(len(rows))]] for rows in class_rows(labels.cpu(), classes)]
    return torch.cat(chosen).to(labels.device)


def share_of(share: float) -> Callable[[int], int]:
    """A share of a class, at least one image (Appendix B.1 of the paper)."""
    return lambda size: max(1, round(share * size))


def held_out(labels: torch.Tensor, classes: int, share: float, seed: int, repeat: int) -> torch.Tensor | None:
    """Positions of the images that a repeat's training does without, `share` of each class; None at one a class."""
    if int(labels.bincount(minlength=classes).min()) < 2:
        return None
    return per_class(labels, classes, share_of(share), generator(seed, "holdout", repeat))


def kept(labels: torch.Tensor, classes: int, share: float, seed: int, repeat: int) -> torch.Tensor:
    """Positions of the images that `held_out` leaves, in their order."""
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[held_out(labels, classes, share, seed, repeat)] = False
    return rest.nonzero().flatten()


def chunks_of(count: int, size: int, steps: int, draws: torch.Generator) -> list[torch.Tensor]:
    """Row numbers of each step's batch: a permutation cut into chunks, and a new one when it is used up."""
    chunks = []
    while len(chunks) < steps:
        chunks += torch.randperm(count, generator=draws).split(size)
    return chunks[:steps]
