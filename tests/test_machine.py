"""Devices and engines: memory that a CPU keeps, and networks that do not fit into the memory of a GPU."""

import platform
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from stages.machine import engine, memory
from stages.machine.engine import run_units

COUNT_PAGE_FAULTS = """
import resource
import torch
from stages.machine.device import pick_device

def work():
    for _ in range(10):
        layers = [torch.ones(2**21) for _ in range(12)]
        del layers

pick_device("cpu")
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_a_layer_frees_is_there_for_the_next():
    """On a CPU with glibc, a dozen blocks of 8 MiB are freed and taken again without help of the system."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # without it: 245,000, or none where the heap's end happens to be in use


class Counting:
    """Work that has no results: it calls a function with lists of units."""

    def __init__(self, run, folder: Path = Path("scratch")):
        self.run = run
        self.folder = folder

    def on(self, device):
        return self


def run_on_gpu(run, folder: Path, units: int = 10, operations: float = 1.0, unit_bytes: int = 0) -> None:
    """No GPU is needed: the work is given lists of numbers, and itself says that memory has run out."""
    run_units(Counting(run, folder), range(units), operations, torch.device("cuda"), "test", unit_bytes)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_full_gpu_is_given_half_as_many_networks(problem, capsys, tmp_path):
    tried = []
    finished = []

    def run(units):
        tried.append(len(units))
        if len(units) > 3:
            raise problem
        finished.extend(units)

    run_on_gpu(run, tmp_path)
    assert finished == list(range(10))
    assert tried == [10, 5, 3, 3, 3, 1]
    assert "out of GPU memory: going on with 3 networks at once" in capsys.readouterr().err
    tried.clear()
    run_on_gpu(run, tmp_path)  # resumed
    assert tried == [3, 3, 3, 1]


def test_a_gpu_begins_with_as_many_networks_as_fill_it(tmp_path):
    tried = []
    run_on_gpu(lambda units: tried.append(len(units)), tmp_path, operations=engine.FULL_GPU / 4)
    assert tried == [4, 4, 2]


def test_the_memory_of_what_did_not_fit_is_free_before_the_next_try(tmp_path, monkeypatch):
    """The traceback of an error holds the tensors of the functions that it went through."""
    held = []
    gone = []

    def run(units):
        if len(units) > 5:
            tensor = torch.zeros(1)
            held.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(held[0]() is None))
    run_on_gpu(run, tmp_path)
    assert gone == [True]


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError(), RuntimeError("a mistake")])
def test_a_network_that_does_not_fit_alone_is_an_error(problem, tmp_path):
    def run(units):
        raise problem

    with pytest.raises(type(problem)):
        run_on_gpu(run, tmp_path, units=2)


def test_a_mistake_is_no_lack_of_memory(tmp_path):
    tried = []

    def run(units):
        tried.append(len(units))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run_on_gpu(run, tmp_path)
    assert tried == [10]


# Memory that is planned with

CUDA = torch.device("cuda")


def test_a_gpu_begins_with_as_many_networks_as_its_memory_holds(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(engine, "planned_memory", lambda device: 10.0)
    run_on_gpu(lambda units: tried.append(len(units)), tmp_path / "a", unit_bytes=3)
    assert tried == [3, 3, 3, 1]
    tried.clear()
    run_on_gpu(lambda units: tried.append(len(units)), tmp_path / "b", units=2, unit_bytes=11)
    assert tried == [1, 1], "one is tried in any case"
    tried.clear()
    full = engine.FULL_GPU / 2
    run_on_gpu(lambda units: tried.append(len(units)), tmp_path / "c", 4, operations=full, unit_bytes=3)
    assert tried == [2, 2], "two fill the GPU, though it has memory for three"


def test_a_resumed_run_does_not_take_more_networks_than_its_checkpoints_have(tmp_path, monkeypatch):
    tried = []

    def run(units):
        tried.append(len(units))
        raise KeyboardInterrupt

    for free, taken in [(10.0, 3), (100.0, 3), (6.0, 2)]:
        monkeypatch.setattr(engine, "planned_memory", lambda device, free=free: free)
        with pytest.raises(KeyboardInterrupt):
            run_on_gpu(run, tmp_path, unit_bytes=3)
        assert tried.pop() == taken


@pytest.fixture
def card(monkeypatch):
    """A GPU of 1,000 bytes, of which 300 are free and PyTorch keeps 200 that are in no tensor."""
    asked = []

    def info(device):
        asked.append(device)
        return 300, 1000

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    memory.room_of_process.cache_clear()
    yield asked
    memory.room_of_process.cache_clear()


def test_memory_is_planned_with_a_margin(card):
    assert memory.planned_memory(CUDA) == pytest.approx(memory.SHARE * 500)
    assert 0.5 < memory.SHARE < 0.95
    assert memory.planned_memory(torch.device("cpu")) == float("inf")


def test_a_gpu_takes_a_batch_at_once_or_in_parts_that_its_memory_holds(card):
    room = int(memory.SHARE * 500)
    assert engine.part_size(8, 1, CUDA, needed=room // 8) == 8
    assert engine.part_size(20, 1, CUDA, needed=room // 10) == 10
    assert engine.part_size(23, 1, CUDA, needed=room // 10) == 10
    assert engine.part_size(12, 1, CUDA, needed=room // 5) == 4, "three equal parts"
    assert engine.part_size(5, 1, CUDA, needed=2 * room) == 1, "an image is tried in any case"
    unknown = engine.part_size(10**6, 1, CUDA)
    assert unknown * engine.LAYERS_ALIVE <= room < (unknown + 1) * engine.LAYERS_ALIVE
    assert len(card) == 1, "the driver is asked once"
    assert engine.part_size(10**6, 1, torch.device("meta")) == 10**6


@pytest.mark.parametrize("lacking", ["triton", "Python.h", "compiler", None])
def test_nothing_is_compiled_for_cuda_without_what_triton_needs(lacking, monkeypatch, tmp_path, capsys):
    (tmp_path / "Python.h").touch()
    headers = tmp_path / "nothing" if lacking == "Python.h" else tmp_path
    compiler = None if lacking == "compiler" else "/usr/bin/gcc"
    package = None if lacking == "triton" else object()
    monkeypatch.setattr(engine.sysconfig, "get_path", lambda name: str(headers))
    monkeypatch.setattr(engine.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: package)
    monkeypatch.delenv("CC", raising=False)
    engine.can_compile.cache_clear()
    try:
        assert engine.can_compile("cuda") is (lacking is None)
    finally:
        engine.can_compile.cache_clear()
    notice = capsys.readouterr().err
    assert (lacking in notice and notice.count("\n") == 1) if lacking else not notice


@pytest.mark.parametrize("operations", [0, 1e12])
def test_a_cpu_runs_every_unit_alone(operations, tmp_path):
    """In processes of their own where a step is small, one after the other where it is large."""

    def run(units):
        (number,) = units
        (tmp_path / str(number)).touch()

    run_units(Counting(run), range(5), operations, torch.device("cpu"), "test")
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == list(range(5))
