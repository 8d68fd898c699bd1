"""Files that are whole or absent: everything is written under a temporary name, then renamed.

Results and tensors have a checksum, which is checked whenever they are read (`checksums.py`).
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from stages.runtime.checksums import ADVICE, KEY, DamagedError, check, seal, unsealed

if TYPE_CHECKING:  # stages that only do arithmetic need no torch
    import numpy as np
    import torch

__all__ = [
    "naming",
    "read_about",
    "read_arrays",
    "read_curve",
    "read_result",
    "read_tensors",
    "replacing",
    "tensor_names",
    "write_curve",
    "write_json",
    "write_result",
    "write_tensors",
    "write_text",
]

CURVE = "curve"  # the entry of an `about` that has the SHA-256 of a curve


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. On success it replaces `path`; on failure nothing of it is left.

    It is on the disk before it replaces anything: a machine that loses its power keeps one of the two.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.stem}.{os.getpid()}{path.suffix}"  # some writers choose the format by the suffix
    temporary = path.with_name(name)
    _delete_leftovers(path)
    try:
        yield temporary
        _put_on_disk(temporary)
        os.replace(temporary, path)
    except OSError as problem:
        if problem.errno and not problem.filename:  # a full disk does not say what was written
            problem.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _put_on_disk(path: Path) -> None:
    """Wait until the contents of a file are on the disk, which a system does not do by itself for a while."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _delete_leftovers(path: Path) -> None:
    """Delete the temporary files of a path whose process was killed."""
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    for name in os.listdir(path.parent):
        match = pattern.fullmatch(name)
        if match and not _is_running(int(match[1])):
            path.with_name(name).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Readable JSON. NaN and infinity are refused, because JSON has no such numbers."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def write_result(path: Path, values: dict) -> None:
    """JSON that a later stage reads by `read_result`: as `write_json`, with a checksum as its last entry."""
    text = json.dumps(values | {KEY: unsealed(path)}, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")
        seal(temporary)


def read_result(path: Path, default: dict | None = None) -> dict:
    """What `write_result` has written, without the checksum.

    Args:
        default: what stands for a file that is not there; None: it has to be there.

    Raises:
        DamagedError: the file is not as it was written.
        OSError: it is not there.
    """
    if default is not None and not path.exists():
        return default
    check(path)
    values = json.loads(path.read_text())
    del values[KEY]
    return values


def write_curve(path: Path, columns: dict) -> dict[str, str]:
    """A CSV file for `dvc plots`: a line of names, then a line for each point. Numbers have six digits.

    Returns:
        an entry for the `about` of the safetensors file that is made with the curve, where `read_curve` finds
        the curve's SHA-256. A CSV file has no place for a checksum that `dvc plots` would not draw.
    """
    lines = [",".join(columns)]
    for point in zip(*columns.values()):
        numbers = [f"{value:.6g}" for value in point]
        lines.append(",".join(numbers))
    text = "\n".join(lines) + "\n"
    write_text(path, text)
    return {CURVE: hashlib.sha256(text.encode()).hexdigest()}


def read_curve(path: Path, made_with: Path) -> dict[str, list[str]]:
    """The columns of a file of `write_curve`, as text.

    Args:
        made_with: the safetensors file that knows its SHA-256. One of an earlier version does not; the curve
            is not checked then.

    Raises:
        DamagedError: the curve, or that file, is not as it was written.
    """
    contents = path.read_bytes()
    digest = hashlib.sha256(contents).hexdigest()
    if read_about(made_with).get(CURVE, digest) != digest:
        raise DamagedError(f"{path} is damaged: {made_with} says that it has another checksum. {ADVICE}.")
    names, *lines = csv.reader(contents.decode().splitlines())
    return {name: [line[i] for line in lines] for i, name in enumerate(names)}


def write_tensors(path: Path, tensors: dict, about: dict | None = None) -> None:
    """A safetensors file with a checksum.

    Args:
        tensors: name -> tensor, on any device.
        about: a dict that JSON can hold; with the checksum it becomes the `about` of the file's metadata.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
    """
    from safetensors.torch import save_file  # a stage that writes no tensors does not wait for torch

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The checksum has no entry of its own in the metadata, whose entries have no fixed order.
    metadata = {"about": json.dumps((about or {}) | {KEY: unsealed(path)})}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # that of the user's other new files
        with naming(path):
            save_file(on_cpu, temporary, metadata=metadata)
        temporary.chmod(mode)  # safetensors lets nobody else read the file
        seal(temporary)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What safetensors cannot write, e.g. because the disk is full, is an OSError that names the file."""
    try:
        yield
    except SafetensorError as problem:
        raise OSError(f"{path}: {problem}") from None


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a file of `write_tensors`, on the CPU.

    Raises:
        DamagedError: the file is not as it was written.
    """
    from safetensors.torch import load_file

    check(path)
    return load_file(path)


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """As `read_tensors`, without torch."""
    from safetensors.numpy import load_file

    check(path)
    return load_file(path)


def read_about(path: Path) -> dict:
    """The `about` of a file of `write_tensors`.

    Raises:
        DamagedError: the file is not as it was written.
    """
    from safetensors import safe_open

    check(path)
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["about"])
    del about[KEY]
    return about


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors of a file of `write_tensors`.

    Raises:
        DamagedError: the file is not as it was written.
    """
    from safetensors import safe_open

    check(path)
    with safe_open(path, "np") as file:
        return set(file.keys())
