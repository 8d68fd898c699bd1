"""Where the computation runs: an execution setting, never a parameter of the results."""

import ctypes
import os
import sys
from contextlib import suppress

import torch

from stages.runtime.errors import UserError

__all__ = ["keep_freed_memory", "pick_device"]

KINDS = ("cpu", "cuda", "mps")

# Names of two options of glibc's `mallopt`, from its malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def pick_device(name: str) -> torch.device:
    """The device of a name; DEVICE in the environment wins over the name.

    Convolutions are kept from rounding their inputs to TF32, which is PyTorch's default on CUDA. On a
    CPU the memory that layers free is kept for the next ones.

    Args:
        name: `auto` (CUDA, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        UserError: the name is unknown, or this machine has no such device.
    """
    name = os.environ.get("DEVICE", name)
    if name == "auto":
        name = _best_device()
    device = _device_of(name)
    if not _is_present(device):
        allowed = "auto, cpu or a device of this machine"
        raise UserError(f"device: {name!r} is not on this machine; allowed: {allowed}")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on every device
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _device_of(name: str) -> torch.device:
    with suppress(RuntimeError):  # PyTorch's, for a name that it does not know
        device = torch.device(name)
        if device.type in KINDS:
            return device
    raise UserError(f"device: {name!r} is unknown; allowed: auto, cpu, cuda, cuda:<number>, mps")


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return True


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks below 64 MiB for the process.

    By default it gives them back to the system, and every layer waits for fresh pages.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have no such option
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the largest value: never
        libc.mallopt(M_MMAP_THRESHOLD, 2**26)
