"""What the benchmarks share: the machine and its limits, ways measured in turn, the result as a table and as JSON.

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

import torch

from stages.shared.files import write_json

__all__ = ["in_process", "in_turn", "machine", "peak_mib", "rates", "report", "spread"]

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


def in_turn(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each way, run after run: all warm up once, then take turns, so that a slow minute hits them all."""
    for work in ways.values():
        work()
    found = {name: [] for name in ways}
    for _ in range(runs):
        for name, work in ways.items():
            found[name].append(timed(work))
    return found


def in_process(module: str, *words) -> dict:
    """What `python -m <module> --measure <words>` prints as JSON: memory and its settings are a process's."""
    command = [sys.executable, "-m", module, "--measure", *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_mib() -> float:
    """Peak resident memory of this process; `ru_maxrss` will not do, for a child begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def report(name: str, settings: dict, results: list[dict]) -> None:
    """Write `reports/benchmarks/<name>.json` with the machine, and print a line a result."""
    write_json(FOLDER / f"{name}.json", {"machine": machine(), "settings": settings, "results": results})
    for result in results:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()))
