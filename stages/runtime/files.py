"""Files that are whole or absent: everything is written under a temporary name, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["read_about", "replacing", "write_curve", "write_json", "write_tensors", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. On success it replaces `path`; on failure nothing of it is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.stem}.{os.getpid()}{path.suffix}"  # some writers choose the format by the suffix
    temporary = path.with_name(name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Readable JSON. NaN and infinity are refused, because JSON has no such numbers."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def write_curve(path: Path, columns: dict) -> None:
    """A CSV file for `dvc plots`: a line of names, then a line for each point. Numbers have six digits."""
    lines = [",".join(columns)]
    for point in zip(*columns.values()):
        numbers = [f"{value:.6g}" for value in point]
        lines.append(",".join(numbers))
    write_text(path, "\n".join(lines) + "\n")


def write_tensors(path: Path, tensors: dict, about: dict | None = None) -> None:
    """A safetensors file.

    Args:
        tensors: name -> tensor, on any device.
        about: anything that JSON can hold; it becomes the `about` of the file's metadata.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
    """
    from safetensors import SafetensorError  # a stage that writes no tensors does not wait for torch
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"about": json.dumps(about or {})}
    with replacing(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata=metadata)
        except SafetensorError as problem:
            raise OSError(f"{path}: {problem}") from None


def read_about(path: Path) -> dict:
    """The `about` that `write_tensors` has put into the file's metadata."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["about"])
