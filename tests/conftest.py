"""What the tests share: devices and the folders that lie outside the repository."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from types import ModuleType

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: the workers together use all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from stages.machine.device import pick_device

# A shell lets what it runs in the background ignore ctrl-C, and the tests' own processes would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, the tests of a file share one worker, as they share what is set up for them."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # would leave the files of few and long tests to the end
    return LoadFileScheduling(config, log)


def outside(variable: str, default: str) -> Path:
    """A folder beside the repository, or a skip that names it and its environment variable."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set {variable} to the folder")
    return folder


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch) -> torch.device:
    """On CUDA with convolutions that sum in the same order every time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", request.param == "cuda")
    return pick_device(request.param)


@pytest.fixture(scope="session")
def pretend() -> ModuleType:
    """The module that makes tensors on the CPU say that they are on `cuda:0`."""
    file = outside("CUDA_DIR", "cuda") / "pretend.py"
    spec = importlib.util.spec_from_file_location("pretend", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return outside("GOLDEN_DIR", "golden")


@pytest.fixture(scope="session")
def golden_index(golden_dir) -> dict:
    return json.loads((golden_dir / "index.json").read_text())
