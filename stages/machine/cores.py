"""Independent pieces of work on all cores of the machine."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["core_count", "on_all_cores"]

T = TypeVar("T")
R = TypeVar("R")


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_all_cores(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`[function(item) for item in items]`, by one forked process a core, with one thread each.

    The processes inherit the function and the items, so only results are pickled. Systems other than Linux,
    where a fork is not safe, work off one item after the other.
    """
    processes = min(core_count(), len(items))
    if processes < 2 or sys.platform != "linux":
        return [function(item) for item in items]
    global _work
    _work = (function, items)
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, initializer=threadpool_limits, initargs=(1,)) as pool:
        return pool.map(_run, range(len(items)), chunksize=1)


_work: tuple[Callable[[Any], Any], Sequence[Any]]


def _run(number: int) -> Any:
    function, items = _work
    return function(items[number])
