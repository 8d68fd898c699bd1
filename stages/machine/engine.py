"""How a computation runs: eager or compiled, in one process or in several. Only the speed depends on it."""

import importlib.util
import math
import multiprocessing
import os
import pickle
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import chain
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from tqdm import tqdm

from stages.machine.cores import Start, core_count, in_processes, with_one_thread
from stages.machine.device import cards_of, cluster_name, set_up
from stages.machine.memory import planned_memory, room_of_process
from stages.runtime.errors import is_about_memory
from stages.runtime.files import write_result
from stages.runtime.reuse import former_result

__all__ = [
    "Unit",
    "Work",
    "can_compile",
    "how_many_together",
    "part_size",
    "run_one_by_one",
    "run_stacked",
    "run_units",
    "worth_compiling",
]

# Floating-point operations: two minutes of eager CPU work, where compiling takes 20 to 60 s, and about as
# long on a fast GPU. The latter is an estimate: no GPU was at hand.
COMPILE_PAYS = {"cpu": 2e13, "cuda": 3e15}
SMALL_STEP = 2e9  # operations of a step; below it two processes of one thread beat two threads
CACHED = 9 * 2**20  # bytes of a layer's output that a CPU's cache holds: 16 CIFAR images with 128 channels
FULL_GPU = 2e12  # operations that fill a GPU: about 6,500 CIFAR images forward and backward
LAYERS_ALIVE = 24  # outputs of the largest layer, for an image: a Hessian product has 9, compiled 17


@cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs; one line of notice where something is missing.

    For a CPU it writes C++. For CUDA it writes Triton, which builds launchers from C with Python's headers.
    """
    if device_type not in COMPILE_PAYS:
        return False
    missing = (
        _missing_for_cuda() if device_type == "cuda" else _missing_compiler("CXX", "g++", "c++", "clang++")
    )
    if missing:
        print(f"{missing} not found: running eager, which is slower", file=sys.stderr)
    return not missing


def _missing_for_cuda() -> str:
    """What Triton lacks here; "" if nothing."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        return f"{headers / 'Python.h'}"
    return _missing_compiler("CC", "gcc", "clang")


def _missing_compiler(variable: str, *names: str) -> str:
    """A word for the compiler that is missing; "" if the variable names one or one of the names is there."""
    has_one = os.environ.get(variable) or any(shutil.which(name) for name in names)
    return "" if has_one else f"a compiler ({', '.join(names)}, or {variable} in the environment)"


def worth_compiling(operations: float, device: torch.device) -> bool:
    """Whether compiling saves more time than it takes, for this many floating-point operations."""
    enough = operations > COMPILE_PAYS.get(device.type, float("inf"))
    return enough and can_compile(device.type)


def how_many_together(operations: float, device: torch.device, unit_bytes: int = 0) -> int:
    """How many pieces of work to stack into one, as a small piece does not fill a device.

    Args:
        operations: floating-point operations of one piece.
        unit_bytes: memory of a GPU that one piece needs; 0: not known, so that it sets no limit.
    """
    filling = SMALL_STEP if device.type == "cpu" else FULL_GPU
    most = filling / operations
    if unit_bytes:
        most = min(most, planned_memory(device) / unit_bytes)
    return max(1, int(most))


def part_size(count: int, image_bytes: int, device: torch.device, needed: int = 0) -> int:
    """How many of `count` images to take through a network at a time.

    A CPU takes so few that each layer finds the output of the last one in the cache, which also needs
    little memory (`benchmarks/NOTES.md` has the times). A GPU takes all, or as many as its memory holds.
    Parts are of equal size where that does not make them much smaller.

    Args:
        image_bytes: what one image fills of the largest layer's output.
        needed: bytes that a GPU needs for one image; 0: not known, so `LAYERS_ALIVE` times as many as
            `image_bytes`.
    """
    if device.type == "cpu":
        most = max(1, CACHED // image_bytes)
    else:
        most = max(1, int(min(count, room_of_process(device) / (needed or LAYERS_ALIVE * image_bytes))))
    if count <= most:
        return count
    even = max(size for size in range(1, most + 1) if count % size == 0)
    return even if 2 * even > most else most


class Work(Protocol):
    """Pieces of work with numbers, each of which leaves its result in a folder.

    It can be pickled, for processes of other GPUs.
    """

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


class Unit(NamedTuple):
    """What a unit takes."""

    operations: float  # of a step
    bytes: int  # of a GPU's memory; 0: not known


def run_units(
    work: Work,
    units: Iterable[int],
    operations: float,
    device: torch.device,
    title: str,
    unit_bytes: int = 0,
) -> None:
    """Run lists of units until every unit is done.

    A unit is the number of a piece of work, e.g. of a network to train. Its result depends on the number
    alone: neither the order nor the lists matter. A GPU gets as many units in a list as fill it and fit into
    its memory; `cuda` without a number is every GPU of the machine, each with a process if there are several.
    A CPU gets one unit at a time with all threads; where a step is small, it gets one unit for each core in
    forked processes of one thread, as threads inside a small step gain less than a second step beside it.
    With `device: ray`, lists of units become tasks of a cluster (`cluster.py`).

    Args:
        operations: floating-point operations of a step of one unit.
        title: of the progress bar.
        unit_bytes: memory of a GPU that one unit needs; 0: not known.
    """
    units = list(units)
    unit = Unit(operations, unit_bytes)
    cluster = cluster_name()
    with tqdm(total=len(units), desc=title, disable=None) as bar:
        if cluster:
            from stages.machine.cluster import run_on_cluster  # Ray is an extra

            run_on_cluster(work, units, unit, cluster, bar)
        elif device.type != "cpu":
            cards = cards_of(device)
            if min(len(cards), len(units)) > 1:
                _run_on_cards(work, units, unit, cards, bar)
            else:
                run_stacked(work, units, how_many_together(operations, device, unit_bytes), bar)
        elif operations > SMALL_STEP or min(core_count(), len(units)) < 2 or sys.platform != "linux":
            run_one_by_one(work, units, bar)
        else:
            _run_in_processes(work, units, bar)


def run_stacked(work: Work, units: list[int], together: int, bar: tqdm) -> None:
    """As many units in a call as fill the GPU; where memory runs out, half as many.

    A run that is resumed has no more units in a call than the one before, whose checkpoints it goes on from.

    Args:
        together: how many units fill the GPU.
    """
    file = work.folder / "together.json"
    former = former_result(file)
    size = min(together, former.get("units", together))
    if not former:
        write_result(file, {"units": size})
    while units:
        part = units[:size]
        if _has_room(work, part):
            bar.update(len(part))
            units = units[size:]
        else:
            size = (len(part) + 1) // 2
            torch.cuda.empty_cache()
            write_result(file, {"units": size})
            print(f"out of GPU memory: going on with {size} networks at once", file=sys.stderr)


def _has_room(work: Work, units: list[int]) -> bool:
    """Run units; whether the memory was enough for them.

    When this has returned, nothing holds the tensors of a run that has failed.
    """
    try:
        work.run(units)
    except (MemoryError, RuntimeError) as problem:  # CUDA and its libraries have several kinds
        if len(units) == 1 or not is_about_memory(problem):
            raise
        return False
    return True


def run_one_by_one(work: Work, units: list[int], bar: tqdm) -> None:
    for unit in units:
        work.run([unit])
        bar.update()


def _run_in_processes(work: Work, units: list[int], bar: tqdm) -> None:
    def run(unit: int) -> None:
        work.run([unit])

    in_processes(partial(with_one_thread, torch.set_num_threads, run), units, lambda unit: bar.update())


# All GPUs of the machine


def _run_on_cards(work: Work, units: list[int], unit: Unit, cards: list[torch.device], bar: tqdm) -> None:
    """Lists of units, by one process for each GPU: it takes the next list when it has done one.

    The processes write to the folder of the work, as a single process does.
    """
    together = how_many_together(unit.operations, cards[0], unit.bytes)
    lists = _lists(work.folder, units, min(together, math.ceil(len(units) / len(cards))))
    processes = min(len(cards), len(lists))
    payload = pickle.dumps(work.on(torch.device("cpu")))
    tickets = multiprocessing.get_context("spawn").Queue()
    tickets.cancel_join_thread()  # a process that was killed does not take its ticket
    for card in cards[:processes]:
        tickets.put((card, payload))
    torch.cuda.empty_cache()
    start = Start("spawn", processes, f"{cards[0]} alone needs less: DEVICE={cards[0]} ...")
    in_processes(partial(_on_a_card, tickets, unit), lists, lambda part: bar.update(len(part)), start)


def _lists(folder: Path, units: list[int], size: int) -> list[list[int]]:
    """The units in lists: in a run that is resumed, those of the run before, which have their checkpoints."""
    file = folder / "lists.json"
    former = former_result(file).get("lists", [])
    if set(units) <= set(chain(*former)):
        left = [[unit for unit in part if unit in units] for part in former]
        return [part for part in left if part]
    lists = [units[first : first + size] for first in range(0, len(units), size)]
    write_result(file, {"lists": lists})
    return lists


def _on_a_card(tickets: Queue, unit: Unit) -> Callable[[list[int]], None]:
    """In a process of its own: the function that runs a list of units on the GPU of the next ticket."""
    card, payload = tickets.get()
    set_up(card)
    if card.type == "cuda":
        torch.cuda.set_device(card)
    work = pickle.loads(payload).on(card)
    together = how_many_together(unit.operations, card, unit.bytes)
    return lambda units: run_stacked(work, units, together, tqdm(disable=True))
