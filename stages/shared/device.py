"""Where the computation runs: an execution setting, never a parameter of the results."""

import ctypes
import os
import sys

import torch

from stages.shared.errors import UserError

__all__ = ["pick_device"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def pick_device(name: str) -> torch.device:
    """`auto` (CUDA, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`; DEVICE in the environment wins.

    Convolutions are kept from rounding their inputs to TF32, which is PyTorch's default on CUDA. On a CPU the memory that
    layers free is kept for the next ones.

    Raises:
        UserError: unknown, or not on this machine.
    """
    name = os.environ.get("DEVICE", name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        present = {
            "cpu": lambda: True,
            "cuda": lambda: (device.index or 0) < torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available,
        }[device.type]()
    except (RuntimeError, KeyError):
        raise UserError(f"device: {name!r} is unknown; allowed: auto, cpu, cuda, cuda:<number>, mps") from None
    if not present:
        raise UserError(f"device: {name!r} is not on this machine; allowed: auto, cpu or a device that is here")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on every device
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks below 64 MiB. It gives them back to the system else, and every layer waits for fresh pages."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**26)
