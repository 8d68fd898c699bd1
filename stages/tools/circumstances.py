"""Where a result came from: the processor or GPU, the version of PyTorch, and the commit of the code."""

import platform
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from stages.settings.project import param

__all__ = ["circumstances", "device_name", "processor_name"]


def circumstances() -> dict[str, str | None]:
    return {"device": device_name(), "torch": version("torch"), "commit": commit()}


@cache
def device_name() -> str:
    """The model of the GPU or of the processor that the stages run on.

    A process of its own finds it, because torch stays in the memory of a process that has imported it.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_device_name).result()


def _device_name() -> str:
    import torch

    from stages.machine.device import pick_device

    device = pick_device(param("device"))
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def processor_name() -> str:
    """The model of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")  # of Linux
    models = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return models[0] if models else platform.processor()


@cache
def commit() -> str | None:
    """The commit of the code and settings, with "-dirty" where they differ from it; None without git."""
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "stages", "suites", "params.yaml")
    return f"{head}-dirty" if changes else head


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
