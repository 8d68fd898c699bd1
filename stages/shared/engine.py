"""Which engine runs a computation: eager or compiled, one process or several. Speed only, same numbers."""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import torch
from tqdm import tqdm

__all__ = ["can_compile", "how_many_together", "part_size", "run_units", "worth_compiling"]

COMPILE_PAYS = 2e13  # floating-point operations (about two minutes of eager CPU work; compiling takes 20-60 s)
SMALL_STEP = 2e9  # floating-point operations a step below which two single-threaded processes beat two threads
CACHED = 9 * 2**20  # bytes of a layer's output up to which it stays in a CPU's cache: 16 images of CIFAR, 128 channels
FULL_GPU = 2e12  # floating-point operations that fill a GPU: about 6,500 CIFAR images forward and backward


@cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs; one line of notice where it has not."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), None)
    if device_type == "cpu" and compiler is None:
        print("no C++ compiler found: running eager, about two to four times slower", file=sys.stderr)
    return device_type == "cuda" or (device_type == "cpu" and compiler is not None)


def worth_compiling(operations: float, device: torch.device) -> bool:
    return operations > COMPILE_PAYS and can_compile(device.type)


def how_many_together(operations: float, device: torch.device) -> int:
    """How many pieces of work of this many operations to stack into one: small ones do not fill a device alone."""
    return max(1, int((SMALL_STEP if device.type == "cpu" else FULL_GPU) / operations))


def part_size(count: int, image_bytes: int, device: torch.device) -> int:
    """How many of `count` images to take through a network at a time, where one fills a layer with `image_bytes`.

    A CPU takes few enough for a layer to find the last one's output in its cache, and to need little memory
    (`benchmarks/NOTES.md` has the times). It takes a divisor of `count` where there is one that is not much smaller.
    """
    most = max(1, CACHED // image_bytes)
    if device.type != "cpu" or count <= most:
        return count
    even = max(size for size in range(1, most + 1) if count % size == 0)
    return even if 2 * even > most else most


def run_units(run: Callable[[list[int]], None], units: Iterable[int], step_operations: float, device: torch.device, title: str) -> None:
    """Call `run` on lists that together make up `units`; it writes each unit's result itself.

    A unit's result depends on its number alone, so neither order nor grouping matters. On a GPU as many as fit run
    stacked in one call: where memory runs out the list is halved. On a CPU they run one at a time with all threads,
    or, where a step is small, in forked processes of one thread each: threads inside a small step gain less than a
    second step beside it.
    """
    units = list(units)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(cores, len(units))
    with tqdm(total=len(units), desc=title, disable=None) as bar:
        if device.type != "cpu":
            _run_stacked(run, units, bar)
        elif step_operations > SMALL_STEP or workers < 2 or sys.platform != "linux":
            for unit in units:
                run([unit])
                bar.update()
        else:
            global _forked
            _forked = run  # inherited by the fork: nothing is pickled
            context = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in pool.map(_run_forked, units):
                    bar.update()


def _run_stacked(run, units, bar):
    chunk = len(units)
    while units:
        try:
            run(units[:chunk])
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            chunk = (chunk + 1) // 2
            torch.cuda.empty_cache()
            print(f"out of GPU memory: going on with {chunk} networks at once", file=sys.stderr)
            continue
        bar.update(len(units[:chunk]))
        units = units[chunk:]


_forked: Callable[[list[int]], None] | None = None


def _run_forked(unit: int) -> None:
    _forked([unit])
