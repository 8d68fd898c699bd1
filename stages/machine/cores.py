"""Independent pieces of work in processes of their own, such as one for each core of the machine."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from threadpoolctl import threadpool_limits

from stages.runtime.orphans import end_with_parent

__all__ = ["Start", "core_count", "in_processes", "on_all_cores", "with_one_thread"]

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
    return in_processes(partial(with_one_thread, threadpool_limits, function), items)


def with_one_thread(set_threads: Callable[[int], object], function: Callable[[T], R]) -> Callable[[T], R]:
    """The function, after `set_threads(1)`."""
    set_threads(1)
    return function


class Start(NamedTuple):
    """How processes are started."""

    method: str  # "fork", or "spawn" for processes that use CUDA
    processes: int
    advice: str  # what to try where one of them was killed


def in_processes(
    prepare: Callable[[], Callable[[T], R]],
    items: Sequence[T],
    progress: Callable[[T], object] = lambda item: None,
    start: Start | None = None,
) -> list[R]:
    """`[function(item) for item in items]`, by processes that end when this process ends.

    Forked processes inherit what they need, so only results are pickled. Spawned ones begin anew: what they
    are given is pickled too.

    Args:
        prepare: is called once in each process, and returns the function.
        progress: is called with each item that is done, in their order.
        start: None: a forked process for each core.

    Raises:
        ChildProcessError: a process was killed.
    """
    start = start or Start("fork", core_count(), "fewer cores need less: taskset -c 0 ...")
    processes = min(start.processes, len(items))
    context = multiprocessing.get_context(start.method)
    begin = (prepare, items, os.getpid())
    results = []
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=begin) as pool:
        try:
            with ctrl_c_later():
                futures = [pool.submit(_run, number) for number in range(len(items))]
                pool.submit(os.getpid)  # the pool would not watch a process that is spawned last
            for item, future in zip(items, futures):
                results.append(future.result())
                progress(item)
        except BrokenProcessPool:
            reason = f"probably because memory ran out ({start.advice})"
            raise ChildProcessError(f"a process of this stage was killed, {reason}") from None
        except BaseException:  # an error or ctrl-C: nobody waits for the other items
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return results


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Hold back ctrl-C, also from processes that are started meanwhile, which would end in a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# What runs in the processes

_function: Callable[[], Callable[[Any], Any]]
_items: Sequence[Any]


def _begin(prepare: Callable[[], Callable[[Any], Any]], items: Sequence[Any], parent: int) -> None:
    """Start a process. The system kills it as soon as its parent has ended.

    A terminal sends ctrl-C to all processes; the parent answers to it, and sends SIGTERM to the others.
    """
    global _function, _items
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    _function = cache(prepare)  # is called with the first item, as an error here would have no way back
    _items = items


def _run(number: int) -> Any:
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _function()(_items[number])
    except SystemExit:  # the pool would go on with the next item
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(_number: int, _frame: object) -> None:
    """End the work, so that no temporary file is left."""
    sys.exit(1)
