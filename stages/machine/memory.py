"""How much memory of a GPU may be planned with, so that the first try fits."""

from functools import cache

import torch

__all__ = ["planned_memory", "room_of_process"]

SHARE = 0.8  # of the free memory; the rest is for what cuDNN takes, and for gaps between tensors


def planned_memory(device: torch.device) -> float:
    """Bytes that new tensors may fill, at this moment; infinity for a device that does not tell.

    It asks the driver, which is not for loops: see `room_of_process`.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    kept_by_pytorch = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return SHARE * (free + kept_by_pytorch)


@cache
def room_of_process(device: torch.device) -> float:
    """As `planned_memory` was when this process asked first, so that equal work is always parted equally."""
    return planned_memory(device)
