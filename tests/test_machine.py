"""Devices and engines: memory that a CPU keeps, and networks that do not fit into the memory of a GPU."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

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

    folder = Path("scratch")

    def __init__(self, run):
        self.run = run

    def on(self, device):
        return self


def test_a_full_gpu_is_given_half_as_many_networks(capsys):
    """No GPU is needed: the work is given a list of numbers, and itself says that memory has run out."""
    tried = []
    finished = []

    def run(units):
        tried.append(len(units))
        if len(units) > 3:
            raise torch.OutOfMemoryError
        finished.extend(units)

    run_units(Counting(run), range(10), 0, torch.device("cuda"), "test")
    assert finished == list(range(10))
    assert tried == [10, 5, 3, 3, 3, 1]
    assert "out of GPU memory: going on with 3 networks at once" in capsys.readouterr().err


def test_a_network_that_does_not_fit_alone_is_an_error():
    def run(units):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run_units(Counting(run), range(2), 0, torch.device("cuda"), "test")


@pytest.mark.parametrize("operations", [0, 1e12])
def test_a_cpu_runs_every_unit_alone(operations, tmp_path):
    """In processes of their own where a step is small, one after the other where it is large."""

    def run(units):
        (number,) = units
        (tmp_path / str(number)).touch()

    run_units(Counting(run), range(5), operations, torch.device("cpu"), "test")
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == list(range(5))
