"""The weights after each epoch, in files of their own beside a checkpoint.

A checkpoint that held all of them would grow with every epoch. Each file has those of the epochs between two
saves. The checkpoint names the files that belong to it, with their digests: one of an earlier attempt, or one
that a killed run had just written, is not among them.
"""

import sys
from glob import escape
from pathlib import Path

import torch

from stages.runtime.checksums import digest_of, is_whole
from stages.runtime.files import read_tensors, write_tensors

__all__ = ["are_whole", "delete_checkpoint", "read_snapshots", "write_snapshots"]


def write_snapshots(checkpoint: Path, first: int, snapshots: list[torch.Tensor]) -> dict[str, str]:
    """Write snapshots, each `(S, P)`, to a file, and return its name with its digest.

    Args:
        first: the number of the first of them: 0 is that of the initial weights.
    """
    file = checkpoint.with_name(f"{checkpoint.stem}.snapshots-{first}.safetensors")
    write_tensors(file, {"snapshots": torch.stack(snapshots)})
    return {file.name: digest_of(file)}


def are_whole(checkpoint: Path, files: dict[str, str]) -> bool:
    """Whether the files that a checkpoint names are there and are those that were written.

    If not, the checkpoint is deleted, and one line says why.
    """
    for name, digest in files.items():
        file = checkpoint.with_name(name)
        if not file.exists():
            _say(file, "is missing", checkpoint)
        elif is_whole(file):  # it says so itself where a file is damaged
            if digest_of(file) == digest:
                continue
            _say(file, "is of another attempt", checkpoint)
        checkpoint.unlink()
        return False
    return True


def _say(file: Path, problem: str, checkpoint: Path) -> None:
    print(f"{file} {problem}: the work of {checkpoint} is done again", file=sys.stderr)


def read_snapshots(checkpoint: Path, files: dict[str, str], device: torch.device) -> list[torch.Tensor]:
    """All snapshots of a checkpoint, each `(S, P)`."""
    snapshots: list[torch.Tensor] = []
    for name in files:
        stacked = read_tensors(checkpoint.with_name(name))["snapshots"]
        snapshots += stacked.to(device).unbind()
    return snapshots


def delete_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint and its snapshots, as its work is finished."""
    checkpoint.unlink(missing_ok=True)
    for file in checkpoint.parent.glob(f"{escape(checkpoint.stem)}.snapshots-*.safetensors"):
        file.unlink()
