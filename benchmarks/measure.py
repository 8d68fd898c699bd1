"""What the benchmarks share: the machine and its limits, how ways are compared, and results as JSON.

A floor is the time that a computation's operations or bytes take at the rates that the machine was
measured to have, whichever is longer: no code is faster.
"""

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from stages.machine import device as devices
from stages.runtime.files import write_json
from stages.settings.project import param
from stages.tools.circumstances import commit, processor_name

__all__ = [
    "CPU",
    "FOLDER",
    "Prepared",
    "compared",
    "device_of",
    "distance",
    "each_way",
    "in_process",
    "machine",
    "main_or_measure",
    "measured",
    "peak_mib",
    "rates",
    "report",
    "spread",
    "timed",
]

FOLDER = Path("reports/benchmarks")
CPU = torch.device("cpu")


class Prepared(NamedTuple):
    """A way that is ready to be measured."""

    work: Callable[[], object]  # what is timed
    result: torch.Tensor  # what has to be the same in every way, from the same work or a shorter one


def machine() -> dict[str, Any]:
    """What a measurement was made on, and the commit of the code."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "commit": commit(),
    }


def rates(device: torch.device = CPU, runs: int = 7, size: int | None = None) -> dict[str, float]:
    """Operations per second of a matrix product, and bytes per second of a copy: the best of some runs.

    Args:
        size: rows and columns of the matrices; None: as many as keep the device busy.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    best = {}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        seconds = product_seconds(size, dtype, device, runs)
        best[f"{name}_operations"] = 2 * size**3 / seconds
    source = torch.randn(2**26, device=device)  # 256 MiB: more than any cache holds
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device, runs)
    best["copied_bytes"] = 2 * source.numel() * source.element_size() / seconds  # read and written
    return best


def product_seconds(size: int, dtype: torch.dtype, device: torch.device, runs: int) -> float:
    """Of the product of two square matrices."""
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    return fastest(lambda: left @ right, device, runs)


def fastest(work: Callable[[], object], device: torch.device, runs: int) -> float:
    return min(timed(work, device) for _ in range(runs))


def timed(work: Callable[[], object], device: torch.device = CPU) -> float:
    """Seconds of one call, with the GPU's work."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def device_of(way: str) -> torch.device:
    """The device of params.yaml, or DEVICE.

    Only our ways have malloc keep its memory, as the stages do. No way rounds to TF32, so that all ways
    can be compared.
    """
    name = param("device")
    if way.startswith("ours"):
        return devices.pick_device(name)
    with mock.patch.object(devices, "keep_freed_memory"):
        return devices.pick_device(name)


def distance(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """How far two results are apart, relative to the plain one."""
    return float((ours - plain).norm() / plain.norm())


def measured(prepared: Prepared, runs: int, file: str, device: torch.device = CPU) -> None:
    """Write the result to a file, and print the seconds of each run and the peak memory of this process.

    One run before the others warms up.
    """
    save_file({"result": prepared.result.cpu().contiguous()}, file)
    timed(prepared.work, device)
    seconds = [timed(prepared.work, device) for _ in range(runs)]
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(device)}))


def in_process(module: str, *words: object) -> dict[str, Any]:
    """What `python -m <module> --measure <words>` prints as JSON: peak memory is that of a process."""
    command = [sys.executable, "-m", module, "--measure", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def each_way(
    module: str, ways: Iterable[str], runs: object, *words: object
) -> tuple[dict[str, dict[str, Any]], dict[str, torch.Tensor]]:
    """Run each way in a process of its own: what `measured` prints of it, and its result.

    Args:
        words: that `measure` of the module has before the way.
    """
    numbers = {}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            file = f"{folder}/{way}"
            numbers[way] = in_process(module, *words, way, runs, file)
            results[way] = load_file(file)["result"]
    return numbers, results


def main_or_measure(main: Callable[..., None], measure: Callable[..., None]) -> None:
    """Call `measure` with the words after `--measure`, or else `main` with the words of the command line."""
    words = sys.argv[1:]
    if words[:1] == ["--measure"]:
        measure(*words[1:])
    else:
        main(*words)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compared(ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of each way, also as shares of the plain way's.

    Args:
        ways: what `measured` has printed, by way.
    """
    plain = ways["plain"]
    plain_median = statistics.median(plain["seconds"])
    numbers = {}
    for way, values in ways.items():
        seconds = spread(values["seconds"])
        numbers[way] = {
            **seconds,
            "of_plain": seconds["median"] / plain_median,
            "peak_mib": values["peak_mib"],
            "peak_of_plain": values["peak_mib"] / plain["peak_mib"],
        }
    return numbers


def peak_mib(device: torch.device = CPU) -> float:
    """Peak memory of the tensors on a GPU, or of this process.

    `ru_maxrss` will not do for a process, because that of a child begins with its parent's.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status").read_text()
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kib) / 1024


def report(name: str, settings: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write reports/benchmarks/<name>.json with the machine, and print a line for each result."""
    write_json(FOLDER / f"{name}.json", {"machine": machine(), "settings": settings, "results": results})
    for result in results:
        cells = []
        for key, value in result.items():
            cells.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
        print("  ".join(cells))
