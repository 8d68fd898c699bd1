"""The labels of a distilled set that was made elsewhere: probabilities, or classes."""

import torch
from torch import Tensor

from stages.distillation.backbone import Problem
from stages.distillation.imported_files import ImportedSet
from stages.images.released import SoftKind
from stages.runtime.errors import UserError

__all__ = ["class_labels", "probabilities"]

SUM_TOLERANCE = 0.01  # of probabilities, whose sum is 1; those that are kept in 16 bits miss it by less
ROUNDING = 1e-6  # of a sum in float32; probabilities that miss 1 by less are left as they are


def probabilities(imported: ImportedSet, kind: SoftKind | None) -> Tensor:
    """Soft labels as probabilities `(N, K)` in float32.

    What nobody has said is told from the numbers only if they are probabilities: whether others are logits,
    or something else, cannot be known.

    Raises:
        UserError: the labels are not what they are said to be, or nobody has said it and it cannot be told.
    """
    values = imported.labels.double()
    sums = values.sum(1, keepdim=True)
    are_shares = bool((values >= 0).all()) and bool(((sums - 1).abs() <= SUM_TOLERANCE).all())
    if are_shares and kind != "logits":
        is_rounded = (sums - 1).abs() <= ROUNDING
        return torch.where(is_rounded, values, values / sums).float()
    if not are_shares and kind == "logits":
        return values.softmax(1).float()
    if are_shares:
        problem = "soft labels that are probabilities, but distill.labels is 'logits'"
        raise UserError(f"{imported.source}: {problem}; allowed: 'probabilities'")
    problem = f"soft labels from {float(values.min()):.3g} to {float(values.max()):.3g}"
    problem += f" with sums from {float(sums.min()):.3g} to {float(sums.max()):.3g} are no probabilities"
    allowed = "allowed: numbers >= 0 with a sum of 1, or `distill.labels: logits` if softmax makes them so"
    raise UserError(f"{imported.source}: {problem}\n{allowed}")


def class_labels(imported: ImportedSet, problem: Problem) -> Tensor:
    """Hard labels in int64.

    Raises:
        UserError: labels that are not whole numbers, or labels out of range.
    """
    labels = imported.labels
    classes = problem.real.classes
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"{imported.source}: labels that are not whole numbers")
    labels = labels.long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        limits = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError(f"{imported.source}: labels from {limits}; allowed: 0 to {classes - 1}")
    return labels
