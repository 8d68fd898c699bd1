"""Files that are whole or absent: everything is written under a temporary name, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["read_about", "replacing", "write_curve", "write_json", "write_tensors", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it takes `path`'s place, on failure nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # keeps the suffix: some writers go by it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value) -> None:
    """Readable JSON; NaN and infinity are refused, they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_curve(path: Path, columns: dict) -> None:
    """A CSV file with a line of names and a line a point, as `dvc plots` reads it; numbers to six digits."""
    lines = [",".join(columns), *(",".join(f"{value:.6g}" for value in row) for row in zip(*columns.values()))]
    write_text(path, "\n".join(lines) + "\n")


def write_tensors(path: Path, tensors: dict, about: dict | None = None) -> None:
    """safetensors, with `about` as JSON text in the file's metadata."""
    from safetensors import SafetensorError  # here, so that stages without tensors need no torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"about": json.dumps(about or {})})
        except SafetensorError as problem:  # a full disk
            raise OSError(f"{path}: {problem}") from None


def read_about(path: Path) -> dict:
    """The `about` that `write_tensors` put into a file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"])
