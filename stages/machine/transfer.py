"""How tensors travel to the device: many in one copy, which nobody waits for."""

from typing import TypeVar

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["send"]

Values = TypeVar("Values")


def send(values: Values, device: torch.device) -> Values:
    """The same values with all their tensors on a device; those of one dtype travel in one copy.

    Args:
        values: lists, tuples and dicts, in each other, of tensors on the CPU and of anything else.
    """
    if device.type == "cpu":
        return values
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    sent: list[torch.Tensor] = list(tensors)
    for dtype in {tensor.dtype for tensor in tensors}:
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[place].flatten() for place in places])
        parts = _copy(flat, device).split([tensors[place].numel() for place in places])
        for place, part in zip(places, parts):
            sent[place] = part.view(tensors[place].shape)
    in_order = iter(sent)
    return tree_map_only(torch.Tensor, lambda tensor: next(in_order), values)


def _copy(flat: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that CUDA makes while the CPU goes on, as it reads from pinned memory."""
    if device.type == "cuda" and torch.cuda.is_available():
        return flat.pin_memory().to(device, non_blocking=True)
    return flat.to(device)
