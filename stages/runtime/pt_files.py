"""Files of PyTorch that others have written, read as tensors and nothing else: no code in them is run."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.runtime.errors import UserError

__all__ = ["read_pt"]

# The accuracies in a `res_*.pt` of DC and DSA are numbers of NumPy. Such a number is made of these, under the
# names of NumPy 1 and of NumPy 2, and nothing but numbers can be made of them.
SCALAR = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [
    np.dtype,
    np.dtypes.Float64DType,
    (SCALAR, "numpy.core.multiarray.scalar"),
    (SCALAR, "numpy._core.multiarray.scalar"),
]

MOST_REPEATS = 1000  # of each number of a file in a tensor, e.g. in images that share their memory


def read_pt(file: Path) -> Any:
    """The tensors, lists, dicts and numbers in a file of `torch.save`.

    Raises:
        UserError: the file is of another kind, or holds anything else.
    """
    try:
        _check_records(file)
        with torch.serialization.safe_globals(NUMBERS):
            content = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensors(content)
        return content
    except Exception as problem:  # of pickle's, zip's and torch's own kinds
        lines = str(problem).splitlines()
        reason = lines[0] if lines else type(problem).__name__
        raise UserError(f"{file}: cannot be read as tensors: {reason}") from None


def _check_records(file: Path) -> None:
    """Check the records of a file of `torch.save`, which is a zip of them without compression.

    `torch.load` does not look at their checksums. Files of PyTorch before 1.6 are no zips and have none.

    Raises:
        ValueError: a record is not what was written, or is compressed.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as records:
        for record in records.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record.filename} is compressed, which torch.save never does")
        damaged = records.testzip()
    if damaged:
        raise ValueError(f"{damaged} is damaged: it has another checksum than when it was written")


def _check_tensors(content: Any) -> None:
    """Check the tensors in lists and dicts: a few bytes may say that they are a tensor of terabytes.

    Raises:
        ValueError: a tensor is of another kind than dense and real, or has far more numbers than the file.
    """
    if isinstance(content, torch.Tensor):
        is_dense = content.layout == torch.strided and content.device.type == "cpu"
        if not is_dense or content.is_quantized or content.is_complex():
            raise ValueError("a tensor is sparse, complex, quantized or without numbers; allowed: all others")
        stored = content.untyped_storage().nbytes()
        if content.numel() * content.itemsize > MOST_REPEATS * stored:
            raise ValueError(f"a tensor of shape {tuple(content.shape)} is made of {stored} bytes")
    elif isinstance(content, dict):
        for value in content.values():
            _check_tensors(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            _check_tensors(value)
