"""Where the computation runs: an execution setting, never a parameter of the results."""

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress

import torch

from stages.machine.names import DEVICES, gpu_share, is_known, is_of_ray
from stages.runtime.errors import UserError

__all__ = ["cards_of", "cluster_name", "keep_freed_memory", "pick_device", "set_up"]

# Names of two options of glibc's `mallopt`, from its malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


_picked = ""  # the name that was picked last


def pick_device(name: str) -> torch.device:
    """The device of a name; DEVICE in the environment wins over the name.

    `ray` is for `run_units` alone, which asks `cluster_name` for it. Everything else runs on the device of
    this machine that `auto` picks, or on the CPU where tasks shall have no GPU (`ray:0`).

    Args:
        name: `auto` (CUDA, else Apple's MPS, else the CPU), `cpu`, `cuda` for all CUDA devices, `cuda:1` for
            one, `mps`, `ray`, or `ray:0.25` for tasks with a quarter of a GPU each.

    Raises:
        UserError: the name is unknown, this machine has no such device, or Ray is not installed.
    """
    global _picked
    name = os.environ.get("DEVICE", name)
    if not is_known(name):
        raise UserError(f"device: {name!r} is unknown; allowed: {DEVICES}")
    if is_of_ray(name) and not importlib.util.find_spec("ray"):
        advice = "install it by `uv sync --extra ray` or `pip install ray`"
        raise UserError(f"device: {name!r} needs the package Ray, which is not here; {advice}")
    device = _device_of(name)
    if not _is_present(device):
        allowed = "auto, cpu, ray or a device of this machine"
        raise UserError(f"device: {name!r} is not on this machine; allowed: {allowed}")
    _picked = name
    set_up(device)
    return device


def cluster_name() -> str | None:
    """The name that was picked last if it is `ray` or `ray:<share>`; None otherwise."""
    return _picked if is_of_ray(_picked) else None


def cards_of(device: torch.device) -> list[torch.device]:
    """The devices for independent work: all of this machine for `cuda`, and one for any other name."""
    if device.type != "cuda" or device.index is not None:
        return [device]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [device]


def set_up(device: torch.device) -> None:
    """Set what PyTorch and the system do by default otherwise.

    Convolutions are kept from rounding their inputs to TF32, which is PyTorch's default on CUDA. On a
    CPU the memory that layers free is kept for the next ones.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on every device
    if device.type == "cpu":
        keep_freed_memory()


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _device_of(name: str) -> torch.device:
    if gpu_share(name) == 0:
        name = "cpu"
    elif name == "auto" or is_of_ray(name):
        name = _best_device()
    with suppress(RuntimeError):  # PyTorch's, for a number that it does not take
        return torch.device(name)
    raise UserError(f"device: {name!r} is unknown; allowed: {DEVICES}")


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        number = device.index or 0
        return 0 <= number < torch.cuda.device_count()  # PyTorch takes 999 for a negative number
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
