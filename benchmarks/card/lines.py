"""A line of the table: its name, its work, and how work is timed."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.counted import Load
from benchmarks.distill import CIFAR, Shape
from benchmarks.measure import device_of, fastest, peak_mib, product_seconds, spread, timed
from stages.machine.precision import tf32_if_asked

__all__ = [
    "SMALL",
    "LeftOut",
    "Line",
    "Options",
    "UnfinishedError",
    "ceilings",
    "close",
    "measured",
    "precisions",
]

SMALL = Shape(1, 8, 8, 2)
RUNS = 7
BLOCK = 0.2  # seconds that calls in a row take at least, so that a GPU does not wait for the clock


class LeftOut(Exception):  # noqa: N818, it is no error
    """A line cannot be had here; the words say why."""


class UnfinishedError(Exception):
    """A line goes on at the next call."""


class Options(NamedTuple):
    """What the command line says."""

    out: Path
    golden: Path
    public: Path | None
    small: bool
    deadline: float  # seconds since 1970
    rates: dict[str, float]  # as from `ceilings`; empty until they are measured
    only: str = ""  # how the names of the lines begin that are worked off; "": all

    @property
    def device(self) -> torch.device:
        return _device()

    @property
    def shape(self) -> Shape:
        return SMALL if self.small else CIFAR


@cache
def _device() -> torch.device:
    """Picked once: where a device is picked, TF32 is switched off for all that follows."""
    return device_of("ours")


class Line(NamedTuple):
    name: str
    work: Callable[[], dict[str, Any]]  # numbers and words for card.json
    goes_on: bool = False  # at the next call, where it was killed


def ceilings(options: Options) -> dict[str, Any]:
    """Operations a second of a large product in each precision, and bytes a second of a large copy."""
    device = options.device
    size = 8192 if device.type == "cuda" else 2048
    size = 256 if options.small else size
    for precision in precisions(options, "float32", "tf32", "bfloat16"):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        with tf32_if_asked(precision):
            seconds = product_seconds(size, dtype, device, RUNS)
        options.rates[f"{precision}_operations"] = 2 * size**3 / seconds
    source = torch.randn(2**16 if options.small else 2**28, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device, RUNS)
    options.rates["copied_bytes"] = 2 * source.nbytes / seconds  # read and written
    said = "; ".join(f"{name} {rate:.3g} /s" for name, rate in options.rates.items())
    return options.rates | {"said": said.replace("_", " ")}


def precisions(options: Options, *names: str) -> list[str]:
    """Those of the names that the device has: TF32 is for CUDA alone."""
    return [name for name in names if name != "tf32" or options.device.type == "cuda"]


def measured(work: Callable[[], object], load: Load, precision: str, options: Options) -> dict[str, float]:
    """Seconds of a call, peak memory of the tensors on a GPU or of the process, and the floors.

    Args:
        load: of a call; its bytes are those that eager calls read and write.
    """
    device = options.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    first = timed(work, device)  # compiles, and warms up
    calls = 1 if options.small else max(1, round(BLOCK / timed(work, device)))

    def block() -> None:
        for _ in range(calls):
            work()

    seconds = [timed(block, device) / calls for _ in range(3 if options.small else RUNS)]
    numbers = {"first": first, **spread(seconds), "calls": calls, "peak_mib": peak_mib(device)}
    if options.rates:
        numbers["floor"] = load.operations / options.rates[f"{precision}_operations"]
        numbers["floor_of_bytes"] = load.bytes / options.rates["copied_bytes"]
    return numbers


def close(numbers: dict[str, Any], apart: float, bound: float) -> dict[str, Any]:
    """The numbers of a line with how far its result is from the reference's.

    Where that is further than the bound, or not finite, they have an `error` too, which fails the line. Its
    times are kept, as they may be right.
    """
    if not math.isfinite(apart):  # JSON has no such numbers
        return numbers | {"error": f"{apart} apart from the reference"}
    if apart > bound:
        error = f"{apart:.3g} apart from the reference, where {bound:g} is allowed"
        return numbers | {"apart": apart, "error": error}
    return numbers | {"apart": apart}
