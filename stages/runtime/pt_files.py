"""Files of PyTorch that others have written, read as tensors and nothing else: no code in them is run."""

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


def read_pt(file: Path) -> Any:
    """The tensors, lists, dicts and numbers in a file of `torch.save`.

    Raises:
        UserError: the file is of another kind, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # of pickle's, zip's and torch's own kinds
        lines = str(problem).splitlines()
        reason = lines[0] if lines else type(problem).__name__
        raise UserError(f"{file}: cannot be read as tensors: {reason}") from None
