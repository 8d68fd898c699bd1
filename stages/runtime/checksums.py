"""Checksums inside files, so that no stage reads a damaged file as if it were whole.

DVC does not hash a file again whose size and time of change are the same, and it does not know `scratch/`.
So a file says itself what it should be: `<path> <digest>`. The digest is the SHA-256 of all bytes of the
file, taken with zeros in the digest's own place. The path is that below the project's folder, so that files
which have been swapped are noticed too. A safetensors file has this in its `about`, a JSON file as its last
entry.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stages.runtime.errors import UserError

__all__ = [
    "ADVICE",
    "KEY",
    "DamagedError",
    "check",
    "check_brought",
    "digest_of",
    "is_whole",
    "seal",
    "unsealed",
]

KEY = "checksum"
ZEROS = "0" * 64  # stands for the digest, while it is taken
LENGTH = 8  # bytes at the start of a safetensors file, which say how long its header is
ADVICE = (
    "Delete it and run `dvc repro`, which restores it or makes it anew.\n"
    "If it is damaged again, DVC's own copy is damaged: `python -m stages.tools.objects` deletes that"
)

# Of what is no JSON, or has other entries.
NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class DamagedError(UserError):
    """A file is not as a stage has written it."""


# Writing


def unsealed(path: Path) -> str:
    """The checksum of a file before its digest is known, for `seal`.

    Args:
        path: where the file will be. Only a path below `data/` or `scratch/` becomes a part of the checksum,
            because other files may be moved.
    """
    return f"{_place(path)} {ZEROS}".strip()


def seal(path: Path) -> None:
    """Put the digest into a file that has the checksum of `unsealed`."""
    with path.open("r+b") as file:
        head = _head(file, path)
        digest = _digest(head, file)
        file.seek(head.rindex(ZEROS.encode()))
        file.write(digest.encode())


def _place(path: Path) -> str:
    """The path below the working directory if it is a file of `data/` or `scratch/`; "" otherwise.

    Sets in `data/sets` are exported, and may be moved.
    """
    relative = Path(os.path.relpath(path))
    stays = relative.parts[0] in ("data", "scratch") and relative.parts[:2] != ("data", "sets")
    return relative.as_posix() if stays else ""


# Reading


class _Checksum(NamedTuple):
    place: str  # where the file was written; "": anywhere
    digest: str


def check(path: Path) -> None:
    """Check that a file of a stage is what was written to this path.

    Raises:
        DamagedError: it is not, or it has no checksum.
        OSError: there is no such file.
    """
    place = _checked(path).place
    own_place = _place(path)
    if place and own_place and place != own_place:
        raise DamagedError(f"{path} is what was written to {place}. {ADVICE}.")


def check_brought(path: Path) -> None:
    """Check a file that the user has brought: its digest, if it has any.

    Raises:
        DamagedError: it is not what was written.
    """
    with path.open("rb") as file:
        try:
            _checksum(_head(file, path), path)
        except NOT_OURS:  # whoever reads it next says what is wrong with it, if anything is
            return
    _checked(path)


def digest_of(path: Path) -> str:
    """The digest that a file of a stage says of itself, which is not compared with its contents.

    "" where it says none.
    """
    try:
        with path.open("rb") as file:
            return _checksum(_head(file, path), path).digest
    except NOT_OURS:
        return ""


def is_whole(path: Path) -> bool:
    """Whether a file of `scratch/` is there and undamaged.

    A damaged one is deleted, with a line that says so.
    """
    if not path.exists():
        return False
    try:
        check(path)
    except DamagedError:
        print(f"{path} is damaged: it is deleted, and its work is done again", file=sys.stderr)
        path.unlink(missing_ok=True)
        return False
    return True


def _checked(path: Path) -> _Checksum:
    """The checksum of a file, whose digest is right."""
    with path.open("rb") as file:
        try:
            head = _head(file, path)
            checksum = _checksum(head, path)
            own_digest = _digest(_without(checksum.digest, head), file)
        except NOT_OURS:
            problem = "is damaged, or has no checksum because an earlier version has written it"
            raise DamagedError(f"{path} {problem}. {ADVICE}.") from None
        except OSError as problem:  # of the disk, which names no file
            problem.filename = str(path)
            raise
    if own_digest != checksum.digest:
        raise DamagedError(f"{path} is damaged: its contents have another checksum than it says. {ADVICE}.")
    return checksum


def _head(file: BinaryIO, path: Path) -> bytes:
    """The part of a file that has the checksum: the header of safetensors, or the whole JSON."""
    if path.suffix != ".safetensors":
        return file.read()
    length = file.read(LENGTH)
    size = int.from_bytes(length, "little")
    if size > path.stat().st_size:
        raise ValueError("the header is longer than the file")
    return length + file.read(size)


def _checksum(head: bytes, path: Path) -> _Checksum:
    """What a file says of itself."""
    if path.suffix == ".safetensors":
        metadata = json.loads(head[LENGTH:])["__metadata__"]
        values = json.loads(metadata["about"])
    else:
        values = json.loads(head)
    place, _, digest = values[KEY].rpartition(" ")
    return _Checksum(place, digest)


def _without(digest: str, head: bytes) -> bytes:
    """The head with zeros in place of its digest."""
    at = head.rindex(digest.encode())
    return head[:at] + ZEROS.encode() + head[at + len(digest) :]


def _digest(head: bytes, file: BinaryIO) -> str:
    """SHA-256 of the head and of what follows it in the file.

    It is the fastest of the standard library's cryptographic hashes where the processor knows it.
    """
    whole = hashlib.sha256(head)
    hashlib.file_digest(file, lambda: whole)  # type: ignore[arg-type, return-value]
    return whole.hexdigest()
