"""Decoded pictures, kept so that a second run does not decode them again."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.shared.files import write_tensors

__all__ = ["decoded"]


def decoded(files: list[Path], how: dict, decode: Callable[[], np.ndarray], folder: Path | None) -> np.ndarray:
    """What `decode()` returns for these files, from `folder` where it lies there already.

    Kept under a hash of `how` (whatever the pixels depend on) and of the files' paths, sizes and times of change; may be
    deleted at any time. Without a `folder` nothing is kept.
    """
    if folder is None:
        return decode()
    import torch
    from safetensors.numpy import load_file

    stats = [(str(file.absolute()), (stat := os.stat(file)).st_size, stat.st_mtime_ns) for file in files]
    place = folder / f"{hashlib.sha256(json.dumps([how, stats]).encode()).hexdigest()[:16]}.safetensors"
    if not place.exists():
        write_tensors(place, {"images": torch.from_numpy(decode())}, how)
    return load_file(place)["images"]
