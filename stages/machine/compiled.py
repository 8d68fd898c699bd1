"""Functions that are compiled and, on CUDA, recorded as CUDA graphs.

A function of a hundred small kernels keeps a GPU waiting, as the CPU launches them one by one. A graph is a
recording of them, which one launch replays. `torch.compile` makes it in its mode "reduce-overhead": for each
size of the arguments the first call warms up, the second one records, and all others replay. How it does that
is in PyTorch's `torch/_inductor/cudagraph_trees.py`.

What `compile_function` sees to, so that its callers need not:

- All graphs share one piece of memory, so a call overwrites what earlier calls have returned, also those of
  other functions. Callers get copies.
- PyTorch has to be told that nobody needs what the last call has returned (`cudagraph_mark_step_begin`), or
  it keeps that memory and records the next call anew.
- A backward pass of autograd would be a graph of its own, and what the way there has kept for it would have
  to outlive other calls. So there is none: functions run without autograd, and what they return has no
  history. They take derivatives inside, by `torch.func`.

What callers with `graphs=True` have to hold:

- All arguments are tensors on the GPU. They may lie elsewhere at each call, as they are copied to where the
  graph reads. A number of Python would become part of the code, so that each number compiles it anew, and a
  tensor on the CPU would forbid the graph.
- The function computes its result from its arguments and does nothing else. A random number or a message of
  Python would happen when it is recorded, and not when it is replayed. Nothing in it may wait for the GPU.
- What it reads beside its arguments stays as it is. That goes for the flags of TF32 too, which the recording
  has in it: `learn` sets them for whole updates, and a function belongs to one distillation.
- There are few sizes, as each is compiled and recorded for itself.
- The work is small. Graphs keep their memory for good, and large work does not wait for launches.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import tree_map

__all__ = ["compile_function", "uses_graphs"]


def uses_graphs(device: torch.device) -> bool:
    """Whether small work is replayed as CUDA graphs; with CUDA_GRAPHS=0 in the environment it is not."""
    return device.type == "cuda" and os.environ.get("CUDA_GRAPHS") != "0"


def compile_function(function: Callable[..., Any], graphs: bool = False) -> Callable[..., Any]:
    """The function, compiled for each size of its arguments.

    Args:
        function: returns a tensor, or a tuple of tensors.
        graphs: replay it as CUDA graphs. What it returns then has no history for autograd.
    """
    if not graphs:
        return torch.compile(function, dynamic=False)
    replay = torch.compile(function, mode="reduce-overhead", dynamic=False)

    @wraps(function)
    def copied(*tensors: torch.Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            return tree_map(torch.clone, replay(*tensors))

    return copied
