"""Independent pieces of work on all cores of the machine."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from stages.runtime.orphans import end_with_parent

__all__ = ["core_count", "in_processes", "on_all_cores"]

T = TypeVar("T")
R = TypeVar("R")


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_all_cores(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`[function(item) for item in items]`, by one forked process a core, with one thread each.

    Systems other than Linux, where a fork is not safe, work off one item after the other.
    """
    if min(core_count(), len(items)) < 2 or sys.platform != "linux":
        return [function(item) for item in items]
    return in_processes(function, items, threadpool_limits)


def in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    set_threads: Callable[[int], object],
    progress: Callable[[], object] = lambda: None,
) -> list[R]:
    """`[function(item) for item in items]`, by forked processes, which end when this process ends.

    The processes inherit the function and the items, so only results are pickled.

    Args:
        set_threads: is called with 1 in each process.
        progress: is called after each item.

    Raises:
        ChildProcessError: a process was killed.
    """
    global _work
    _work = (function, items)
    processes = min(core_count(), len(items))
    context = multiprocessing.get_context("fork")
    begin = (set_threads, os.getpid())
    results = []
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=begin) as pool:
        try:
            futures = [pool.submit(_run, number) for number in range(len(items))]
            for future in futures:
                results.append(future.result())
                progress()
        except BrokenProcessPool:
            reason = "probably because memory ran out (fewer cores need less: taskset -c 0 ...)"
            raise ChildProcessError(f"a process of this stage was killed, {reason}") from None
        except BaseException:  # an error or ctrl-C: nobody waits for the other items
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return results


_work: tuple[Callable[[Any], Any], Sequence[Any]]


def _begin(set_threads: Callable[[int], object], parent: int) -> None:
    """Start a forked process. The system kills it as soon as its parent has ended.

    A terminal sends ctrl-C to all processes; the parent answers to it, and sends SIGTERM to the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    set_threads(1)


def _run(number: int) -> Any:
    function, items = _work
    signal.signal(signal.SIGTERM, _leave)
    try:
        return function(items[number])
    except SystemExit:  # the pool would go on with the next item
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(_number: int, _frame: object) -> None:
    """End the work, so that no temporary file is left."""
    sys.exit(1)
