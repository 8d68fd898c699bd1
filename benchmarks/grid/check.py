"""The counts of `benchmarks.grid` beside what was measured on CPUs.

Times are predicted as for a card: operations at half the rate of a matrix product that the machine was
measured to have, and, for eager code, bytes at half the rate of a copy. No such rates were measured on the
AMD machine of the rows in reports/. There the rate is fitted: that of the row in the middle. It is no test of
the level, only of whether the counts keep the rows in proportion.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import buffer, distill, train
from benchmarks.counted import CPU, Load, Subject, Training, matching, mtt_load, rtp_load, training
from benchmarks.grid.card import CARD, HOUR, Card
from benchmarks.grid.pieces import buffer_piece, distill_piece, temperature_piece, train_piece
from benchmarks.grid.subjects import built
from benchmarks.measure import FOLDER
from stages.backbones import dc, mtt, rtp
from stages.networks.convnet import ConvNet
from stages.settings.buffer import BufferSettings
from stages.settings.distill import DistillKeys
from stages.settings.network import NetworkSettings
from stages.settings.rows import Buffer, Row
from stages.settings.train import TrainKeys
from stages.training.flat import FlatNetwork
from stages.training.groups import own_settings, train_settings

__all__ = ["Line", "benchmark_lines", "checked", "measured_seconds"]

SHARE = 0.5
CALL = 1e-5  # assumed: seconds of a call on a CPU
CORES = 2  # of all machines here
SHORT = 20  # seconds of a stage that is not looked at: its start is a large part of it
PIECES = (Path("reports/cifar10/pieces.json"), Path("reports/released/pieces.json"))
WITH_RATES = "Intel"  # the processor that the benchmarks have measured rates of
KINDS = ("buffer", "distill", "train", "temperature")


class Line(NamedTuple):
    """A prediction and its measurement, in seconds."""

    work: str
    precision: str
    least: float
    most: float | None  # None: it was not counted
    measured: float


def checked() -> dict[str, Any]:
    """What stands in the JSON: lines of the benchmarks, and of rows by processor."""
    of_rows = {}
    for processor, lines in row_lines().items():
        of_rows[processor] = [line._asdict() for line in lines]
    return {"benchmarks": [line._asdict() for line in benchmark_lines(BENCHMARKS)], "rows": of_rows}


# The benchmarks


def benchmark_lines(names: Iterable[str]) -> list[Line]:
    """The benchmarks of these names, as far as they are of our ways."""
    lines = []
    for name in names:
        load_of = LOADS[name]
        report = json.loads((FOLDER / f"{name}.json").read_text())
        for result in report["results"]:
            if not result["way"].startswith("ours"):
                continue
            work = result.get("setting") or result.get("case") or report["settings"]["setting"]
            precision = "bfloat16" if "bfloat16" in result["way"] + work else "float32"
            card = machine(report["settings"]["rates"], precision)
            load = load_of(work)
            hours = card.least_hours(load), card.most_hours(load)
            lines.append(Line(work, precision, hours[0] * HOUR, hours[1] * HOUR, result["median"]))
    return lines


def machine(rates: dict[str, float], precision: str) -> Card:
    """A CPU as if it were a card."""
    return CARD._replace(
        name="CPU",
        operations=rates[f"{precision}_operations"],
        bandwidth=rates["copied_bytes"],
        share=SHARE,
        call=CALL,
    )


def digits() -> Subject:
    channels, side, classes, width, depth = train.DIGITS
    with_values = FlatNetwork(ConvNet(channels, side, classes, width, depth).to("meta"))
    return Subject(with_values, channels, side, classes)


def cifar() -> Subject:
    return built("convnet", 32, 10, NetworkSettings(width=128, depth=3))


def buffer_load(setting: str) -> Load:
    if setting.startswith("digits"):
        settings = buffer.DIGITS
        work = Training(settings.experts, buffer.DIGITS_IMAGES, settings.epochs, settings.batch)
        return on_all_cores(training(digits(), work, CPU))
    return training(cifar(), Training(1, 256 * buffer.BATCHES, 1, 256), CPU)


def train_load(setting: str) -> Load:
    networks = train.REPEATS * len(train.LOSSES)
    return on_all_cores(training(digits(), Training(networks, 10 * train.IPC, train.EPOCHS, 256), CPU))


def on_all_cores(load: Load) -> Load:
    """Small steps run in a process a core, so that their calls do not wait for each other."""
    return Load(load.operations, load.calls / CORES, load.bytes, load.peak)


def distill_load(name: str) -> Load:
    case = distill.CASES[name]
    subject = cifar() if case.shape == distill.CIFAR else digits()
    if case.backbone == "mtt":
        return mtt_load(subject, mtt.Settings(**case.settings), case.ipc * case.classes)
    if case.backbone == "rtp":
        return rtp_load(subject, rtp.Settings(**case.settings), case.ipc)
    return matching(subject, dc.Settings(**case.settings), case.ipc, case.backbone == "dsa")


BENCHMARKS = ("buffer", "train", "distill")
LOADS = {"buffer": buffer_load, "train": train_load, "distill": distill_load}


# The rows that have run


def row_lines() -> dict[str, list[Line]]:
    """The stages of rows in reports/, by processor."""
    lines: dict[str, list[Line]] = defaultdict(list)
    for (processor, stage), seconds in measured_seconds().items():
        operations, precision = operations_of(stage)
        lines[processor].append(Line(stage, precision, operations, None, seconds))
    predicted = {}
    for processor, of_processor in lines.items():
        rates = rates_of(processor, of_processor)
        predicted[processor] = [
            line._replace(least=line.least / rates[line.precision]) for line in of_processor
        ]
    return predicted


def measured_seconds() -> dict[tuple[str, str], float]:
    """Seconds of the processors over two cores, by processor and stage.

    Stages are left out that are short, that did not finish, or whose pieces have different inputs, and those
    whose networks were tasks of Ray, which `cpu_seconds` does not count.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for file in PIECES:
        for piece in json.loads(file.read_text())["pieces"]:
            if piece["stage"].partition("@")[0] in KINDS:
                groups[short_name(piece["device"]), piece["stage"]].append(piece)
    measured = {}
    for key, pieces in groups.items():
        seconds = sum(piece["cpu_seconds"] for piece in pieces) / CORES
        is_one_work = len({piece["inputs"] for piece in pieces}) == 1
        in_other_processes = seconds * CORES < 0.5 * sum(piece["seconds"] for piece in pieces)
        if is_one_work and not in_other_processes and pieces[-1]["outcome"] == "finished" and seconds > SHORT:
            measured[key] = seconds
    return measured


def rates_of(processor: str, lines: list[Line]) -> dict[str, float]:
    """Operations a second of each precision: half of the measured rate of a product, or fitted.

    Args:
        lines: with operations in place of predicted seconds.
    """
    rates = {}
    measured = json.loads((FOLDER / "buffer.json").read_text())["settings"]["rates"]
    for precision in {line.precision for line in lines}:
        if processor == WITH_RATES:
            rates[precision] = SHARE * measured[f"{precision}_operations"]
        else:
            rates[precision] = statistics.median(
                line.least / line.measured for line in lines if line.precision == precision
            )
    return rates


def short_name(processor: str) -> str:
    return WITH_RATES if processor.startswith("Intel") else "AMD"


def operations_of(stage: str) -> tuple[float, str]:
    """The operations of a stage, and the precision of its products."""
    kind, _, name = stage.partition("@")
    if kind == "buffer":
        settings = Buffer(name).keys(BufferSettings)
        return buffer_piece(Buffer(name), CARD)[0].load.operations, settings.precision
    row = Row(name)
    if kind == "distill":
        operations = distill_piece(row).load.operations
        return operations, row.keys(DistillKeys).distill.get("precision", "float32")
    piece = train_piece(row, CARD) if kind == "train" else temperature_piece(row, CARD)
    return piece.load.operations, own_settings(row.keys(TrainKeys), train_settings()).precision
