"""Files of PyTorch that others have written, read as tensors and nothing else: no code in them is ever run."""

from pathlib import Path

import numpy as np
import torch

from stages.shared.errors import UserError

__all__ = ["read_pt"]

# What NumPy's numbers in a `res_*.pt` (its accuracies) are made of, under NumPy 1's and 2's names; numbers are all they build.
SCALAR = np.float64(0).__reduce__()[0]
NUMBERS = [np.dtype, np.dtypes.Float64DType, *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]


def read_pt(file: Path):
    """The tensors, lists, dicts and numbers of a file of `torch.save`.

    Raises:
        UserError: not such a file, or one that holds anything else.
    """
    try:
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # pickle's, zip's and torch's own kinds
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(f"{file}: cannot be read as tensors: {reason}") from None
