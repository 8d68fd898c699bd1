"""What the benchmarks share: the machine and its limits, ways measured and compared, the result as a table and as JSON.

A floor is the time that a computation's operations or bytes take at the rates that the machine was measured to have,
whichever is longer: no code is faster.
"""

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from stages.shared import device
from stages.shared.files import write_json
from stages.shared.settings import param

__all__ = ["FOLDER", "compared", "device_of", "in_process", "machine", "measured", "peak_mib", "rates", "report", "spread", "timed"]

FOLDER = Path("reports/benchmarks")


def machine() -> dict:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": cpu[1] if cpu else platform.processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu, "python": platform.python_version()} | versions


def rates(device: torch.device = torch.device("cpu"), runs: int = 7) -> dict[str, float]:
    """Operations a second of a matrix product, float32 and bfloat16, and bytes a second of a copy: the best of some runs."""
    size = 8192 if device.type == "cuda" else 2048
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        found[f"{name}_operations"] = 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(runs))
    source = torch.randn(2**26, device=device)
    target = torch.empty_like(source)
    found["copied_bytes"] = 2 * source.numel() * 4 / min(timed(lambda: target.copy_(source), device) for _ in range(runs))
    return found


def timed(work: Callable[[], object], device: torch.device = torch.device("cpu")) -> float:
    """Seconds of one call, the GPU's work included."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def device_of(way: str) -> torch.device:
    """The device of params.yaml, or DEVICE. Only our ways have malloc keep its memory, as the stages do; none rounds to TF32, so that they can be compared."""
    with mock.patch.object(device, "keep_freed_memory", device.keep_freed_memory if way.startswith("ours") else lambda: None):
        return device.pick_device(param("device"))


def measured(result: torch.Tensor, work: Callable[[], object], runs: int, file: str, device: torch.device = torch.device("cpu")) -> dict:
    """In a process of its own: `result`, for the comparison of ways, goes to `file`; seconds of each run after one to warm up, and the peak."""
    save_file({"result": result.cpu().contiguous()}, file)
    timed(work, device)
    return {"seconds": [timed(work, device) for _ in range(runs)], "peak_mib": peak_mib(device)}


def in_process(module: str, *words) -> dict:
    """What `python -m <module> --measure <words>` prints as JSON: memory and its settings are a process's."""
    command = [sys.executable, "-m", module, "--measure", *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compared(found: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Of what `measured` has found of each way: seconds and peak memory, also as shares of the plain way's."""
    base, memory = spread(found["plain"]["seconds"])["median"], found["plain"]["peak_mib"]
    return {
        way: {**(seconds := spread(values["seconds"])), "of_plain": seconds["median"] / base, "peak_mib": values["peak_mib"], "peak_of_plain": values["peak_mib"] / memory}
        for way, values in found.items()
    }


def peak_mib(device: torch.device = torch.device("cpu")) -> float:
    """Peak memory of tensors on a GPU, or resident of this process; `ru_maxrss` will not do, for a child begins with its parent's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def report(name: str, settings: dict, results: list[dict]) -> None:
    """Write `reports/benchmarks/<name>.json` with the machine, and print a line a result."""
    write_json(FOLDER / f"{name}.json", {"machine": machine(), "settings": settings, "results": results})
    for result in results:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()))
