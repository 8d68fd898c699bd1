"""Devices and engines: memory that a CPU keeps, and networks that do not fit into the memory of a GPU."""

import os
import platform
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from project import PARAMS

from stages.images.prepared import LabelledImages
from stages.losses import mixup
from stages.machine import device, engine, memory
from stages.machine.engine import run_units
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.files import write_text
from stages.runtime.randomness import generator
from stages.settings.train import TrainSettings
from stages.training import groups
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule
from stages.training.objective import Loss

SETTINGS = TrainSettings(**PARAMS["train"])

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


# Several GPUs, for which the CPU stands


@dataclass(frozen=True)
class Noting:
    """Work whose units each leave a file with the process and the other units of its list."""

    folder: Path
    behaviour: str = ""

    def on(self, device):
        return self

    def run(self, units):
        if self.behaviour == "mistake" and 0 in units:
            raise UserError("row: lr is too large")
        if self.behaviour == "killed" and 0 in units:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(500 if self.behaviour == "" else 0):  # until both processes have a list
            if len(list(self.folder.glob("began-*"))) > 1:
                break
            write_text(self.folder / f"began-{os.getpid()}", "")
            time.sleep(0.1)
        for unit in units:
            write_text(self.folder / f"{unit}.txt", f"{os.getpid()} {units}")


@pytest.fixture
def two_cards(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(engine, "cards_of", lambda device: [cpu, cpu])


def lists_of(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text().partition(" ")[2] for file in folder.glob("*.txt")}


def test_units_are_spread_over_all_gpus(two_cards, tmp_path):
    run_units(Noting(tmp_path), range(5), 1.0, CUDA, "test")
    processes = {file.read_text().split()[0] for file in tmp_path.glob("*.txt")}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    first, second = "[0, 1, 2]", "[3, 4]"
    assert lists_of(tmp_path) == {"0": first, "1": first, "2": first, "3": second, "4": second}


def test_one_gpu_or_one_unit_needs_no_process(two_cards, tmp_path, monkeypatch):
    run_units(Noting(tmp_path, "alone"), [7], 1.0, CUDA, "test")
    monkeypatch.setattr(engine, "cards_of", lambda device: [torch.device("cuda:0")])
    run_units(Noting(tmp_path, "alone"), [8, 9], 1.0, CUDA, "test")
    assert {file.read_text().split()[0] for file in tmp_path.glob("*.txt")} == {str(os.getpid())}


def test_a_mistake_in_a_process_of_a_gpu_comes_back(two_cards, tmp_path):
    with pytest.raises(UserError, match="^row: lr is too large$"):
        run_units(Noting(tmp_path, "mistake"), range(4), 1.0, CUDA, "test")


def test_a_process_of_a_gpu_that_is_killed_is_named_and_the_next_run_goes_on(two_cards, tmp_path):
    with pytest.raises(ChildProcessError, match="was killed, probably because memory ran out .*DEVICE="):
        run_units(Noting(tmp_path, "killed"), range(6), 1.0, CUDA, "test")
    for file in tmp_path.glob("*.txt"):
        file.unlink()
    run_units(Noting(tmp_path, "again"), [1, 2, 4, 5], 1.0, CUDA, "test")
    first, second = "[1, 2]", "[4, 5]"
    assert lists_of(tmp_path) == {"1": first, "2": first, "4": second, "5": second}, "the lists of before"


def test_a_device_with_a_number_is_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cards = [torch.device("cuda", number) for number in range(3)]
    assert device.cards_of(CUDA) == cards
    assert device.cards_of(cards[1]) == [cards[1]]
    assert device.cards_of(torch.device("mps")) == [torch.device("mps")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device.cards_of(CUDA) == [CUDA]


def test_networks_do_not_depend_on_the_number_of_gpus(tmp_path, monkeypatch):
    """Lists of two networks, in this process and in two others."""
    labels = torch.arange(12) % 3
    data = LabelledImages(torch.randn(12, 1, 8, 8, generator=generator("data")), labels, 3)
    cpu = torch.device("cpu")
    schedule = Schedule(epochs=2, lr=0.05, batch=6)
    setup = groups.Setup("row", "row", data, None, data, schedule, repeats=4, seed=0, device=cpu)
    network = FlatNetwork(ConvNet(1, 8, 3, 4, 1))
    trained = {"mixup": groups.Group(network, Loss(mixup, SETTINGS))}

    def on_gpus(work, units, operations, device, title, unit_bytes):
        engine.run_units(work, units, engine.FULL_GPU / 2, CUDA, title)

    monkeypatch.setattr(groups, "run_units", on_gpus)
    monkeypatch.setattr(engine, "SMALL_STEP", engine.FULL_GPU)
    results = []
    for count in (1, 2):
        monkeypatch.setattr(engine, "cards_of", lambda device, count=count: [cpu] * count)
        torch.set_num_threads(1)
        results.append(groups.train_groups(trained, setup, tmp_path / str(count)))
        assert (tmp_path / str(count) / "lists.json").exists() == (count == 2)
    one, two = (result.weights["mixup"] for result in results)
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)
    assert one.shape == two.shape == (4, network.size)
