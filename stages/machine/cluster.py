"""Units of work as tasks of Ray, on this machine or on all machines of a cluster.

A task takes everything with it: the work with its tensors, and the code of this project. It sends back the
files that its units have left, and they are written here. So other machines need the packages, and no file.
How to start a cluster, and what happens when a machine is lost: docs/machines.md.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from tqdm import tqdm

from stages.machine.cores import core_count
from stages.machine.device import set_up
from stages.machine.engine import Unit, Work, how_many_together, run_one_by_one, run_stacked
from stages.machine.names import gpu_share
from stages.runtime.errors import UserError
from stages.runtime.files import replacing

__all__ = ["run_on_cluster"]

STAGES = Path(__file__).parent.parent  # the code that other machines get
LOST = 10  # times that a task is begun again after its process or its machine was lost

Files = dict[str, bytes]  # by their path in the folder of the work


def run_on_cluster(work: Work, units: list[int], unit: Unit, name: str, bar: tqdm) -> None:
    """Run all units as tasks, and write the files that they leave to the folder of the work.

    Args:
        unit: what each of them takes.
        name: `ray`, or `ray:<share of a GPU>`.

    Raises:
        UserError: there is no such cluster, it has no GPU, or a task was lost too often.
    """
    if not units:
        return
    connect()
    share = share_of(name)
    task = run_task.options(num_cpus=1, num_gpus=share)
    payload = ray.put(work.on(torch.device("cpu")))
    places = {}
    for part in parts(units, unit.operations, share):
        place = work.folder.resolve() / f"task-{part[0]:04}-{len(part)}"
        places[task.remote(payload, part, unit, share, place)] = (part, place)
    try:
        while places:
            (finished, *_), _ = ray.wait(list(places))
            part, place = places.pop(finished)
            write_files(work.folder, result_of(finished))
            shutil.rmtree(place, ignore_errors=True)
            bar.update(len(part))
    finally:
        for task_left in places:
            ray.cancel(task_left, force=True)


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine that ends with this process.

    Raises:
        UserError: there is no cluster at that address.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS") or "local"
    own_cores = core_count() if address == "local" else None  # a cluster that runs knows its own
    code = {"py_modules": [str(STAGES)], "excludes": ["__pycache__"]}
    try:
        ray.init(
            address,
            num_cpus=own_cores,
            include_dashboard=False,
            runtime_env=code,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as problem:
        first_line = str(problem).partition("\n")[0]
        advice = "docs/machines.md says how to start a cluster"
        raise UserError(f"RAY_ADDRESS: {address!r} cannot be joined: {first_line}; {advice}") from None


def share_of(name: str) -> float:
    """The share of a GPU that each task gets: a whole one where the name says nothing and there are GPUs.

    Raises:
        UserError: tasks shall have GPUs, but the cluster has none.
    """
    share = gpu_share(name)
    if share is None:
        return min(1.0, gpus())
    if share > 0 and gpus() == 0:
        allowed = "ray, or ray:0 for tasks without a GPU"
        raise UserError(f"device: {name!r} needs a GPU, and the cluster has none; allowed: {allowed}")
    return share


def gpus() -> float:
    """How many GPUs the cluster has at the moment."""
    return ray.cluster_resources().get("GPU", 0.0)


def parts(units: list[int], operations: float, share: float) -> list[list[int]]:
    """The units of each task: one on a CPU; as many as fill a GPU, if that leaves no GPU without a task."""
    size = 1
    if share > 0:
        tasks_at_once = max(1, int(gpus() / share))
        even = -(-len(units) // tasks_at_once)
        size = min(even, how_many_together(operations, torch.device("cuda")))
    return [units[first : first + size] for first in range(0, len(units), size)]


def result_of(task: ray.ObjectRef) -> Files:
    """The files of a task that has ended.

    Raises:
        UserError: the task has raised one, or was lost too often.
        OSError: the task has raised it.
    """
    try:
        files = ray.get(task)
    except RayTaskError:
        raise
    except RayError as problem:
        first_line = str(problem).partition("\n")[0]
        raise UserError(f"a task was lost {LOST + 1} times on the cluster: {first_line}") from None
    if isinstance(files, Exception):
        raise files
    return files


def write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


# What runs in the tasks


@ray.remote(max_retries=LOST)
def run_task(work: Work, units: list[int], unit: Unit, share: float, place: Path) -> Files | Exception:
    """Run units, as many at a time as its share of the GPU holds, and return the files that they leave.

    A mistake of the user is returned too, because Ray would make a traceback of it.
    """
    device = torch.device("cuda" if share > 0 else "cpu")
    set_up(device)
    with working_folder(place) as folder, being_in(folder):
        work.folder.mkdir(parents=True, exist_ok=True)
        try:
            if device.type == "cuda":
                bytes_of_whole_gpu = round(unit.bytes / share)  # other tasks have the rest of it
                together = how_many_together(unit.operations, device, bytes_of_whole_gpu)
                run_stacked(work.on(device), units, together, tqdm(disable=True))
            else:
                torch.set_num_threads(1)
                run_one_by_one(work, units, tqdm(disable=True))
        except (UserError, OSError) as problem:
            return problem
        return {path.name: path.read_bytes() for path in work.folder.iterdir() if path.is_file()}


@contextmanager
def working_folder(place: Path) -> Iterator[Path]:
    """A folder in which a task finds its former checkpoint, if this machine has the folder of the work.

    Every task has a folder of its own, because a machine that is taken for lost may still be writing.
    """
    if place.parent.is_dir():
        place.mkdir(exist_ok=True)
        yield place
    else:
        with TemporaryDirectory() as folder:
            yield Path(folder)


@contextmanager
def being_in(folder: Path) -> Iterator[None]:
    """Make a folder the working directory, and leave it for one that surely exists.

    The one before may be gone: Ray deletes folders that its processes were started in.
    """
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(gettempdir())
