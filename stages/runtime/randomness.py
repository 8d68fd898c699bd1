"""Random numbers that depend on what they are drawn for, and on nothing else."""

import hashlib

import torch

__all__ = ["generator"]


def generator(*key: int | float | str) -> torch.Generator:
    """A generator that is a function of `key` alone, e.g. of `generator(seed, "buffer", expert, epoch)`.

    It lives on the CPU whatever the device is, so a laptop and a GPU draw the same numbers. A checkpoint need
    not keep its state: work that resumes at epoch 7 asks for that epoch's generator.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    seed = int.from_bytes(digest[:8]) >> 1  # 63 bits, so that it fits a signed integer
    return torch.Generator().manual_seed(seed)
