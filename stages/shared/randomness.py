"""Random numbers that depend on what they are for, and on nothing else."""

import hashlib

import torch

__all__ = ["generator"]


def generator(*key: int | str) -> torch.Generator:
    """A generator that is a function of `key` alone, e.g. `generator(seed, "buffer", expert, epoch)`.

    It lives on the CPU whatever the device, so that a laptop and a GPU draw the same numbers, and it needs no
    state in a checkpoint: a run that resumes at epoch 7 asks for epoch 7's generator.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
