"""How the cost grows with experts, image size, images a class, inner steps, classes and networks.

    python -m benchmarks.growth [buffer | distill | train | calibrate ...] [--runs N]

The same ways as in the benchmark of that name, each in a process of its own, at sizes that end where the
plain way takes 1 to 13 seconds. The results of both ways are compared at every size, to the tolerances of
`AXES`, and nothing is written where they differ. Nothing is compiled, so that the sizes differ in nothing
else. Writes reports/benchmarks/growth-<benchmark>.json, .svg and .csv.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks import buffer, calibrate, distill, train
from benchmarks.measure import (
    CPU,
    FOLDER,
    Prepared,
    compared,
    device_of,
    distance,
    each_way,
    main_or_measure,
    measured,
    report,
)
from stages.reporting.drawing import Drawn, write_figure

__all__ = ["AXES", "Axis"]

STYLES: dict[str, dict[str, Any]] = {
    "plain": {"color": "#D55E00", "marker": "o"},
    "ours": {"color": "#0072B2", "marker": "s"},
}


class Axis(NamedTuple):
    title: str
    values: tuple[int, ...]
    prepare: Callable[[str, Path, int], Prepared]  # of a way and a size, in an empty folder
    apart: float = 1e-2  # that the two ways may be, relative


def mtt(way: str, folder: Path, ipc: int, steps: int) -> Prepared:
    settings = distill.MTT | {"syn_steps": steps}
    return distill.prepared(distill.Case("mtt", ipc, settings, distill.CIFAR, False, 0), way, folder)


def mtt_images(way: str, folder: Path, ipc: int) -> Prepared:
    return mtt(way, folder, ipc, steps=5)


def mtt_steps(way: str, folder: Path, steps: int) -> Prepared:
    return mtt(way, folder, 1, steps)


def rtp_steps(way: str, folder: Path, steps: int) -> Prepared:
    settings = distill.RTP | {"syn_steps": steps}
    return distill.prepared(distill.Case("rtp", 1, settings, distill.CIFAR, False, 0), way, folder)


def dc_classes(way: str, folder: Path, classes: int) -> Prepared:
    settings = distill.MATCHING | {"batch_real": 32}
    case = distill.Case("dc", 1, settings, distill.CIFAR, False, 0, classes)
    return distill.prepared(case, way, folder)


def experts(way: str, folder: Path, count: int) -> Prepared:
    """Compared after an epoch: later rounding grows."""
    work, trajectories = buffer.digits(way, folder, count)
    return Prepared(work, trajectories[:, :2])


def pixels(way: str, _: Path, side: int) -> Prepared:
    """32 pixels as CIFAR, 64 as Tiny ImageNet, 128 as ImageNette: the depth grows with the size."""
    depth = side.bit_length() - 3
    epoch = buffer.Batches(side, depth, 32, 2, compiled=False)
    return buffer.random_images("plain" if way == "plain" else "ours, float32", epoch)


def repeats(way: str, folder: Path, count: int) -> Prepared:
    return train.networks(way, folder, count, 100)


def logit_classes(way: str, _: Path, classes: int) -> Prepared:
    return calibrate.temperature(way, 20_000, classes)


def logit_images(way: str, _: Path, images: int) -> Prepared:
    return calibrate.temperature(way, images, 100)


AXES = {
    "buffer": {
        "digits, 15 epochs": Axis("experts", (1, 4, 16), experts, 1e-3),
        "two batches of 32, ConvNet 128": Axis("pixels of a side", (32, 64, 128), pixels, 1e-3),
    },
    "distill": {
        "MTT, CIFAR-10, 5 steps": Axis("images a class", (1, 3, 10), mtt_images),
        "MTT, CIFAR-10, IPC 1": Axis("inner steps", (10, 30, 100), mtt_steps),
        "RTP, CIFAR-10, IPC 1": Axis("inner steps", (10, 30, 100), rtp_steps),
        "DC, CIFAR's size, IPC 1, 32 real a class": Axis("classes", (10, 30, 100), dc_classes),
    },
    "train": {
        "digits, IPC 10, 100 epochs, 4 losses": Axis("repeats", (1, 2, 5), repeats, 1e-4),
    },
    "calibrate": {
        "20,000 images": Axis("classes", (10, 100, 1000), logit_classes, 1e-3),
        "100 classes": Axis("images", (1_000, 10_000, 100_000), logit_images, 1e-3),
    },
}


def measure(benchmark: str, setting: str, value: str, way: str, runs: str, file: str) -> None:
    device = CPU if benchmark == "calibrate" else device_of(way)
    with tempfile.TemporaryDirectory() as folder:
        prepared = AXES[benchmark][setting].prepare(way, Path(folder), int(value))
        measured(prepared, int(runs), file, device)


def grown(benchmark: str, runs: int) -> list[dict[str, Any]]:
    """The results of a benchmark at every size."""
    results = []
    for setting, axis in AXES[benchmark].items():
        for value in axis.values:
            results += at_size(benchmark, setting, value, runs)
    return results


def at_size(benchmark: str, setting: str, value: int, runs: int) -> list[dict[str, Any]]:
    """Both ways at one size."""
    axis = AXES[benchmark][setting]
    ways, made = each_way("benchmarks.growth", ("plain", "ours"), runs, benchmark, setting, value)
    apart = distance(made["ours"], made["plain"])
    assert apart < axis.apart, f"{setting}, {value} {axis.title}: the two ways differ by {apart}"
    size = {"setting": setting, "axis": axis.title, "value": value}
    return [{**size, "way": way, **numbers, "apart": apart} for way, numbers in compared(ways).items()]


def draw_growth(data: pd.DataFrame) -> Figure:
    """Seconds above, memory below, a column for each setting."""
    settings = list(dict.fromkeys(data["setting"]))
    size = (2.4 * len(settings) + 0.6, 4)
    figure, axes = plt.subplots(
        2, len(settings), figsize=size, squeeze=False, sharex="col", layout="constrained"
    )
    for (seconds, memory), setting in zip(axes.T, settings):
        points = data[data["setting"] == setting]
        draw_seconds(seconds, points, setting)
        draw_memory(memory, points)
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak memory (MiB)")
    axes[0][0].legend(frameon=False)
    return figure


def draw_seconds(axis: Axes, points: pd.DataFrame, title: str) -> None:
    """Medians, with the range of the runs."""
    for way, style in STYLES.items():
        line = points[points["way"] == way]
        below = line["median"] - line["min"]
        above = line["max"] - line["median"]
        axis.errorbar(line["value"], line["median"], [below, above], label=way, **style)
    axis.set(xscale="log", yscale="log")
    axis.set_title(title, size=7)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def draw_memory(axis: Axes, points: pd.DataFrame) -> None:
    for way, style in STYLES.items():
        line = points[points["way"] == way]
        axis.plot(line["value"], line["peak_mib"], **style)
    sizes = sorted(set(points["value"]))
    highest = points["peak_mib"].max()
    axis.set(xlabel=points["axis"].iloc[0], ylim=(0, 1.1 * highest))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axis.set_xticks([], minor=True)


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=f"{', '.join(AXES)}; none: all")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(words)
    for benchmark in options.benchmarks:
        if benchmark not in AXES:
            parser.error(f"{benchmark}: no such benchmark; allowed: {', '.join(AXES)}")
    for benchmark in options.benchmarks or AXES:
        results = grown(benchmark, options.runs)
        report(f"growth-{benchmark}", {"runs": options.runs, "unit": "seconds, MiB"}, results)
        write_figure(Drawn(pd.DataFrame(results), draw_growth, {}), FOLDER / f"growth-{benchmark}")


if __name__ == "__main__":
    main_or_measure(main, measure)
