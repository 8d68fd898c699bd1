"""How a computation runs: eager or compiled, in one process or in several. Only the speed depends on it."""

import os
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from stages.machine.cores import core_count, in_processes
from stages.machine.device import cluster_name

__all__ = [
    "Work",
    "can_compile",
    "how_many_together",
    "part_size",
    "run_one_by_one",
    "run_stacked",
    "run_units",
    "worth_compiling",
]

COMPILE_PAYS = 2e13  # floating-point operations; two minutes of eager CPU work, where compiling takes 20-60 s
SMALL_STEP = 2e9  # operations of a step; below it two processes of one thread beat two threads
CACHED = 9 * 2**20  # bytes of a layer's output that a CPU's cache holds: 16 CIFAR images with 128 channels
FULL_GPU = 2e12  # operations that fill a GPU: about 6,500 CIFAR images forward and backward


@cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs; one line of notice where a compiler is missing."""
    if device_type == "cuda":
        return True
    if device_type != "cpu":
        return False
    compilers = ("g++", "c++", "clang++")
    if os.environ.get("CXX") or any(shutil.which(compiler) for compiler in compilers):
        return True
    print("no C++ compiler found: running eager, about two to four times slower", file=sys.stderr)
    return False


def worth_compiling(operations: float, device: torch.device) -> bool:
    """Whether compiling saves more time than it takes, for this many floating-point operations."""
    return operations > COMPILE_PAYS and can_compile(device.type)


def how_many_together(operations: float, device: torch.device) -> int:
    """How many pieces of work to stack into one, as a small piece does not fill a device.

    Args:
        operations: floating-point operations of one piece.
    """
    filling = SMALL_STEP if device.type == "cpu" else FULL_GPU
    return max(1, int(filling / operations))


def part_size(count: int, image_bytes: int, device: torch.device) -> int:
    """How many of `count` images to take through a network at a time.

    A CPU takes so few that each layer finds the output of the last one in the cache, which also needs
    little memory (`benchmarks/NOTES.md` has the times). Parts are of equal size where that does not make
    them much smaller.

    Args:
        image_bytes: what one image fills of the largest layer's output.
    """
    most = max(1, CACHED // image_bytes)
    if device.type != "cpu" or count <= most:
        return count
    even = max(size for size in range(1, most + 1) if count % size == 0)
    return even if 2 * even > most else most


class Work(Protocol):
    """Pieces of work with numbers, each of which leaves its result in a folder."""

    @property
    def folder(self) -> Path:
        """Where the results and the checkpoints of all units lie, below the project's folder."""
        ...

    def run(self, units: list[int]) -> None:
        """Do the units of these numbers, and write the result of each."""
        ...

    def on(self, device: torch.device) -> "Work":
        """The same work on another device."""
        ...


def run_units(work: Work, units: Iterable[int], operations: float, device: torch.device, title: str) -> None:
    """Run lists of units until every unit is done.

    A unit is the number of a piece of work, e.g. of a network to train. Its result depends on the number
    alone: neither the order nor the lists matter. A GPU gets as many units in a list as fit into its memory.
    A CPU gets one unit at a time with all threads; where a step is small, it gets one unit for each core in
    forked processes of one thread, as threads inside a small step gain less than a second step beside it.
    With `device: ray`, lists of units become tasks of a cluster (`cluster.py`).

    Args:
        operations: floating-point operations of a step of one unit.
        title: of the progress bar.
    """
    units = list(units)
    cluster = cluster_name()
    with tqdm(total=len(units), desc=title, disable=None) as bar:
        if cluster:
            from stages.machine.cluster import run_on_cluster  # Ray is an extra

            run_on_cluster(work, units, operations, cluster, bar)
        elif device.type != "cpu":
            run_stacked(work, units, bar)
        elif operations > SMALL_STEP or min(core_count(), len(units)) < 2 or sys.platform != "linux":
            run_one_by_one(work, units, bar)
        else:
            _run_in_processes(work, units, bar)


def run_stacked(work: Work, units: list[int], bar: tqdm) -> None:
    """All units in one call; where memory runs out, half as many."""
    size = len(units)
    while units:
        try:
            work.run(units[:size])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = (size + 1) // 2
            torch.cuda.empty_cache()
            print(f"out of GPU memory: going on with {size} networks at once", file=sys.stderr)
            continue
        bar.update(len(units[:size]))
        units = units[size:]


def run_one_by_one(work: Work, units: list[int], bar: tqdm) -> None:
    for unit in units:
        work.run([unit])
        bar.update()


def _run_in_processes(work: Work, units: list[int], bar: tqdm) -> None:
    in_processes(lambda unit: work.run([unit]), units, torch.set_num_threads, bar.update)
