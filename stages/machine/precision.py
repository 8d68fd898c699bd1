"""TensorFloat-32: CUDA rounds the inputs of convolutions and matrix products to 10 bits, and is faster."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from stages.machine.device import cluster_name

__all__ = ["say_what_is_used", "tf32_if_asked"]


@contextmanager
def tf32_if_asked(precision: str) -> Iterator[None]:
    """Let CUDA round to TF32 inside, if that is the precision; other processors take no notice.

    With any other precision it does not round to TF32. Outside, everything is as it was before.
    """
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def say_what_is_used(precision: str, device: torch.device) -> None:
    """One line of notice where the device does not have the precision that is asked for."""
    if precision == "tf32" and device.type != "cuda" and cluster_name() is None:
        _say_float32(device.type)


@cache
def _say_float32(device_type: str) -> None:
    notice = f"precision: tf32 is for CUDA alone: float32 is used on this device ({device_type})"
    print(notice, file=sys.stderr)
