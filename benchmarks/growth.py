"""How the cost grows with experts, image size, images a class, inner steps, classes, networks: a figure per benchmark.

    python -m benchmarks.growth [buffer | distill | train | calibrate ...] [--runs N]

The same ways as in the benchmark of that name, each in a process of its own, at sizes that end where the plain way takes
about ten seconds. What is compared before it is timed, and its tolerance, is that benchmark's too, at every size. Nothing is
compiled, so that the sizes differ in nothing else. Writes reports/benchmarks/growth-<benchmark>.json, .svg, .png and .csv.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.ticker import LogLocator, NullFormatter
from safetensors.torch import load_file

from benchmarks import buffer, calibrate, distill, train
from benchmarks.measure import FOLDER, compared, device_of, in_process, measured, report
from stages.figures import Drawn, write_figures

Prepared = tuple[Callable[[], object], torch.Tensor]  # the work, and what is compared


class Axis(NamedTuple):
    title: str
    values: tuple[int, ...]
    prepare: Callable[[str, Path, int], Prepared]  # way, an empty folder, size
    apart: float = 1e-2  # that the two ways may be, relative


def update(way: str, folder: Path, case: distill.Case) -> Prepared:
    here = distill.problem(case, folder, device_of(way))
    return distill.WAYS[way](case, here), distill.WAYS[way](distill.shortened(case), here)()


def mtt(ipc: int, steps: int) -> distill.Case:
    return distill.Case("mtt", ipc, distill.MTT | {"syn_steps": steps}, distill.CIFAR, False, 0)


def rtp(steps: int) -> distill.Case:
    return distill.Case("rtp", 1, {"iterations": 1, "syn_steps": steps, "batch_syn": None}, distill.CIFAR, False, 0)


def dc(classes: int) -> distill.Case:
    return distill.Case("dc", 1, distill.MATCHING | {"batch_real": 32}, distill.CIFAR, False, 0, classes)


def experts(way: str, folder: Path, count: int) -> Prepared:
    work, trajectories = buffer.digits(way, folder, count)
    return work, trajectories[:, :2]  # after an epoch: later rounding grows


def batches(way: str, size: int) -> Prepared:
    """32 pixels as CIFAR, 64 as Tiny ImageNet, 128 as ImageNette: the depth grows with the size."""
    return buffer.random_images("plain" if way == "plain" else "ours, float32", size, size.bit_length() - 3, 32, 2, compiled=False)


def networks(way: str, folder: Path, repeats: int) -> Prepared:
    return train.networks(way, folder, repeats, 100), train.networks(way, folder, 1, 5)()


def temperature(way: str, images: int, classes: int) -> Prepared:
    work = calibrate.fit(way, images, classes)
    return work, work()


AXES = {
    "buffer": {
        "digits, 15 epochs": Axis("experts", (1, 4, 16), experts, 1e-3),
        "two batches of 32, ConvNet 128": Axis("pixels of a side", (32, 64, 128), lambda way, _, n: batches(way, n), 1e-3),
    },
    "distill": {
        "MTT, CIFAR-10, 5 steps": Axis("images a class", (1, 3, 10), lambda way, folder, n: update(way, folder, mtt(n, 5))),
        "MTT, CIFAR-10, IPC 1": Axis("inner steps", (10, 30, 100), lambda way, folder, n: update(way, folder, mtt(1, n))),
        "RTP, CIFAR-10, IPC 1": Axis("inner steps", (10, 30, 100), lambda way, folder, n: update(way, folder, rtp(n))),
        "DC, CIFAR's size, IPC 1, 32 real a class": Axis("classes", (10, 30, 100), lambda way, folder, n: update(way, folder, dc(n))),
    },
    "train": {"digits, IPC 10, 100 epochs, 4 losses": Axis("repeats", (1, 2, 5), networks, 1e-4)},
    "calibrate": {
        "20,000 images": Axis("classes", (10, 100, 1000), lambda way, _, n: temperature(way, 20_000, n), 1e-3),
        "100 classes": Axis("images", (1_000, 10_000, 100_000), lambda way, _, n: temperature(way, n, 100), 1e-3),
    },
}


def measure(benchmark: str, setting: str, value: int, way: str, runs: int, file: str) -> None:
    """In a process of its own; see `measured`."""
    device = torch.device("cpu") if benchmark == "calibrate" else device_of(way)
    with tempfile.TemporaryDirectory() as folder:
        work, result = AXES[benchmark][setting].prepare(way, Path(folder), value)
        print(json.dumps(measured(result, work, runs, file, device)))


def grown(benchmark: str, runs: int) -> list[dict]:
    results = []
    for setting, axis in AXES[benchmark].items():
        for value in axis.values:
            with tempfile.TemporaryDirectory() as folder:
                found = {way: in_process("benchmarks.growth", benchmark, setting, value, way, runs, f"{folder}/{way}") for way in ("plain", "ours")}
                plain, ours = (load_file(f"{folder}/{way}")["result"] for way in found)
            apart = float((ours - plain).norm() / plain.norm())
            assert apart < axis.apart, f"{setting}, {value} {axis.title}: the two ways differ by {apart}"
            results += [{"setting": setting, "axis": axis.title, "value": value, "way": way, **values, "apart": apart} for way, values in compared(found).items()]
    return results


def drawn(results: list[dict]) -> Drawn:
    """Seconds above, memory below, a column a setting."""
    data = pd.DataFrame(results)
    settings = list(dict.fromkeys(data["setting"]))
    figure, axes = plt.subplots(2, len(settings), figsize=(2.4 * len(settings) + 0.6, 4), squeeze=False, sharex="col", layout="constrained")
    for (top, bottom), setting in zip(axes.T, settings):
        some = data[data["setting"] == setting]
        for way, color, marker in (("plain", "#D55E00", "o"), ("ours", "#0072B2", "s")):
            one = some[some["way"] == way]
            top.errorbar(one["value"], one["median"], [one["median"] - one["min"], one["max"] - one["median"]], color=color, marker=marker, label=way)
            bottom.plot(one["value"], one["peak_mib"], color=color, marker=marker)
        top.set(title=setting, xscale="log", yscale="log")
        top.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        top.yaxis.set_major_formatter("{x:g}")
        top.yaxis.set_minor_formatter(NullFormatter())
        bottom.set(xlabel=some["axis"].iloc[0], ylim=(0, None))
        bottom.set_xticks(sorted(set(some["value"])), [f"{value:,}" for value in sorted(set(some["value"]))], minor=False)
        bottom.set_xticks([], minor=True)
        top.title.set_size(7)
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak memory (MiB)")
    axes[0][0].legend(frameon=False)
    return Drawn(figure, data)


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=f"{', '.join(AXES)}; none: all")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(words)
    if unknown := [name for name in options.benchmarks if name not in AXES]:
        parser.error(f"{unknown[0]}: no such benchmark; allowed: {', '.join(AXES)}")
    for benchmark in options.benchmarks or AXES:
        results = grown(benchmark, options.runs)
        report(f"growth-{benchmark}", {"runs": options.runs, "unit": "seconds, MiB"}, results)
        write_figures({f"growth-{benchmark}": drawn(results)}, FOLDER)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        benchmark, setting, value, way, runs, file = sys.argv[2:]
        measure(benchmark, setting, int(value), way, int(runs), file)
    else:
        main(*sys.argv[1:])
