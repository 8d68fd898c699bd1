"""The plan of the grid: its counts are those of PyTorch and of closed forms, and its page is in step."""

import json
import struct
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from project import make_project, run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import counted
from benchmarks.counted import META, NUMBER, Load, Subject, Training
from benchmarks.distill import INNER_STEP, REAL
from benchmarks.grid.card import CARD, Card
from benchmarks.grid.check import benchmark_lines, measured_seconds
from benchmarks.grid.entries import buffer_entry, grid_rows, row_entry
from benchmarks.grid.pieces import disk_of_buffer, fitting
from benchmarks.grid.side_by_side import cards_for, makespan, spread
from benchmarks.grid.tables import printed, summary, tables
from stages.backbones import mtt
from stages.distillation.unroll import InnerLoss
from stages.networks.convnet import ConvNet
from stages.settings.buffer import BufferSettings
from stages.settings.rows import Buffer, Row
from stages.training.flat import FlatNetwork

SMALL = (3, 16, 5, 8, 2)  # channels, pixels, classes, width, depth


def subject(shape: tuple[int, ...] = SMALL) -> Subject:
    channels, side, classes, _, _ = shape
    with torch.device(META):
        module = ConvNet(*shape)
    return Subject(FlatNetwork(module), channels, side, classes)


# The counter


def test_a_convolution_takes_two_operations_for_each_weight_used():
    images = torch.empty(7, 3, 16, 16, device=META)
    weights = torch.empty(8, 3, 3, 3, device=META)
    counts = counted.seen(lambda: F.conv2d(images, weights, padding=1))
    outputs = 7 * 8 * 16 * 16
    assert counts.operations == 2 * outputs * 3 * 3 * 3
    assert counts.calls == 1
    assert counts.bytes == NUMBER * (images.numel() + weights.numel() + outputs)
    assert counts.peak == NUMBER * outputs
    layer = nn.Conv2d(3, 8, 3, padding=1)
    assert FlatNetwork(layer).operations(torch.zeros(1, 3, 16, 16)) == counts.operations / 7


def test_memory_that_is_freed_is_counted_once():
    start = torch.empty(1000, device=META)

    def chain() -> torch.Tensor:
        values = start * 2
        for _ in range(10):
            values = values * 2  # the former values are freed when the next are there
        return values

    counts = counted.seen(chain)
    assert counts.peak == 2 * NUMBER * 1000
    assert counts.alive == 0
    assert counts.calls == 11
    assert counts.bytes == 11 * 2 * NUMBER * 1000


def test_passes_are_those_of_pytorchs_counter():
    without_values = subject()
    network = without_values.network
    module = network.module
    images = without_values.images(4)
    labels = torch.empty(4, dtype=torch.int64, device=META)
    with FlopCounterMode(display=False) as forward:
        module(images)
    assert forward.get_total_flops() == 4 * network.operations(images[:1])
    with FlopCounterMode(display=False) as both:
        F.cross_entropy(module(images), labels).backward()
    first = 4 * 2 * 16 * 16 * 8 * 27  # the gradient of real images is not needed: one product less
    assert both.get_total_flops() == REAL * forward.get_total_flops() - first

    inner = InnerLoss(network)
    theta = torch.empty(network.size, device=META)
    product = counted.seen(partial(inner.products, theta, images, labels, theta))
    passes = (both.get_total_flops() + product.operations) / forward.get_total_flops()
    assert passes == pytest.approx(INNER_STEP, rel=0.15)


def test_each_inner_step_adds_the_same():
    small = subject()
    for steps in (1, 2, 4):
        run_through = counted._mtt(small, 30, 10, steps)
        from_two = counted.by_steps(partial(counted._mtt, small, 30, 10), steps, 2 * small.network.size)
        assert from_two.operations == run_through.operations
        assert from_two.calls == pytest.approx(run_through.calls)
        assert from_two.bytes == pytest.approx(run_through.bytes, rel=0.01)
        assert from_two.peak == pytest.approx(run_through.peak, rel=0.01)


def test_a_training_counts_all_images_of_all_networks():
    small = subject()
    work = Training(networks=3, images=100, epochs=7, batch=32)
    load = counted.training(small, work)
    assert load.operations == REAL * small.forward * 3 * 100 * 7
    longer = counted.training(small, work._replace(epochs=14))
    assert longer.operations == 2 * load.operations
    assert longer.bytes == pytest.approx(2 * load.bytes)
    assert longer.peak == load.peak
    more = counted.training(small, work._replace(networks=6))
    assert more.operations == 2 * load.operations
    assert more.calls < 1.5 * load.calls, "networks side by side share their calls"
    assert load.peak < more.peak


def test_a_distillation_grows_with_iterations_and_steps():
    keys = {"expert_epochs": 1, "max_start_epoch": 1, "lr_img": 1.0, "lr_lr": 0.0, "lr_teacher": 0.1}
    small = subject()
    short = counted.mtt_load(small, mtt.Settings(iterations=2, syn_steps=3, batch_syn=4, **keys), 20)
    assert short.operations == 2 * 3 * 4 * INNER_STEP * small.forward
    all_images = counted.mtt_load(small, mtt.Settings(iterations=2, syn_steps=3, batch_syn=None, **keys), 20)
    assert all_images.operations == 5 * short.operations
    assert all_images.calls == pytest.approx(short.calls)


# Hours


def test_hours_are_those_of_the_rates():
    card = Card("a card", operations=10, bandwidth=4, memory=1, share=0.5, call=2)
    load = Load(operations=5 * 3600, calls=0.5 * 3600, bytes=6 * 3600)
    assert card.least_hours(load) == pytest.approx(1)
    assert card.most_hours(load) == pytest.approx(1 + 3)
    many_calls = Load(load.operations, calls=5 * 3600, bytes=load.bytes)
    assert card.most_hours(many_calls) == pytest.approx(10)


def test_the_networks_of_a_group_are_halved_until_they_fit():
    small = subject()
    work = Training(networks=8, images=64, epochs=1, batch=64)
    peaks = {
        together: counted.training(small, work._replace(networks=together)).peak for together in (8, 4, 2)
    }
    for together, peak in peaks.items():
        piece, fitted = fitting(small, work, 1000.0, CARD._replace(memory=peak + 1000))
        assert fitted == together
        assert piece.card == peak + 1000
        assert piece.load.operations == REAL * small.forward * 8 * 64


def made_grid() -> dict:
    """Experts of 4 hours, and rows of 6, 3 and 3 hours and one of 1 that reads the set of the first."""
    hours = {"long": 6, "b": 3, "c": 3, "reader": 1}
    rows = []
    for name, value in hours.items():
        reads = "distill/long" if name == "reader" else "nothing"
        stages = {"distill": {"most_hours": 0 if name == "reader" else value}}
        rows.append({"name": name, "reads": reads, "most_hours": value, "stages": stages})
    return {"buffers": [{"most_hours": 4}], "rows": rows}


def test_rows_wait_for_the_experts_and_for_the_set_that_they_read():
    made = made_grid()
    assert makespan(made, 1) == 4 + 6 + 3 + 3 + 1
    assert makespan(made, 2) == 4 / 2 + 6 + 1
    assert makespan(made, 4) == 4 / 4 + 6 + 1
    assert cards_for(made, 9) == 2
    assert cards_for(made, 6.5) is None
    assert spread(made, 1) == 17
    assert spread(made, 100) == 6


# Disk


def test_the_trajectories_are_as_large_as_their_file(tmp_path, monkeypatch):
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    run("prepare", "shapes")
    run("buffer", "shapes")
    buffer = Buffer("shapes")
    file = buffer.folder / "trajectories.safetensors"
    (header,) = struct.unpack("<Q", file.read_bytes()[:8])
    settings = buffer.keys(BufferSettings)
    info = json.loads((buffer.dataset.prepared / "info.json").read_text())
    channels, side, _ = info["shape"]
    network = buffer.dataset.network
    weights = FlatNetwork(ConvNet(channels, side, len(info["classes"]), network.width, network.depth)).size
    assert disk_of_buffer(settings.experts, settings.epochs, weights) == file.stat().st_size - 8 - header


# What is committed


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(Path("reports/benchmarks/grid.json").read_text())


def test_the_grid_has_the_rows_of_the_suites(committed):
    assert committed["card"] == CARD._asdict()
    rows = grid_rows()
    assert [entry["name"] for entry in committed["rows"]] == [row.name for row in rows]
    names = {row.name for row in rows}
    assert {
        "cifar10-rtp-ipc50-mdt",
        "cifar100-rtp-ipc1",
        "tinyimagenet-full",
        "imagenette-mtt-ipc10",
    } <= names
    left_out = {"cifar10-mtt-ipc1-quick", "cifar10-mtt-ipc1-cpu", "cifar10-full-cpu", "cifar10-dc-ipc1-set"}
    assert not left_out & names
    readers = [reader for buffer in committed["buffers"] for reader in buffer["read_by"]]
    assert sorted(readers) == sorted(row.name for row in rows if row.value("reads").startswith("buffer/"))
    assert len(readers) == len(set(readers)), "no row is in two buffers"


@pytest.mark.parametrize("name", ["cifar10-random-ipc1", "cifar100-mtt-ipc1-mdt", "cifar10-dsa-ipc10"])
def test_a_row_is_counted_as_it_is_committed(committed, name):
    entry = row_entry(Row(name), CARD)
    (former,) = [row for row in committed["rows"] if row["name"] == name]
    assert entry == json.loads(json.dumps(former)), "run `python -m benchmarks.grid`"


def test_a_buffer_is_counted_as_it_is_committed(committed):
    entry = buffer_entry(Buffer("cifar100"), grid_rows(), CARD)
    (former,) = [buffer for buffer in committed["buffers"] if buffer["name"] == "cifar100"]
    assert entry == former, "run `python -m benchmarks.grid`"


def test_the_page_has_the_tables_of_the_committed_counts(committed):
    page = Path("docs/grid.md").read_text()
    assert printed(page, tables(committed)) == page, "run `python -m benchmarks.grid`"


def test_the_measured_times_are_those_of_the_reports(committed):
    check = committed["check"]
    lines = [line._asdict() for line in benchmark_lines(("buffer", "train"))]
    assert check["benchmarks"][: len(lines)] == lines, "run `python -m benchmarks.grid`"
    measured = measured_seconds()
    assert ("Intel", "distill@cifar10-mtt-ipc1-20") not in measured, "its pieces have different inputs"
    assert ("Intel", "train@cifar10-mtt-ipc10-released") not in measured, "its networks were tasks of Ray"
    for processor, rows in check["rows"].items():
        for line in rows:
            assert measured[processor, line["work"]] == line["measured"]


def test_a_price_is_multiplied(committed):
    at_one = summary(committed, 1.0)
    hours = sum(entry["most_hours"] for entry in [*committed["buffers"], *committed["rows"]])
    assert f"to {float(f'{hours:.3g}'):,.0f}; without RTP" in at_one
    assert "Cost" not in summary(committed, None)


def test_a_page_without_a_place_is_refused():
    page = "<!-- a: made. -->\n<!-- End of a. -->\n"
    assert printed(page, {"a": "x"}) == "<!-- a: made. -->\n\nx\n\n<!-- End of a. -->\n"
    assert printed(printed(page, {"a": "x"}), {"a": "y"}) == printed(page, {"a": "y"})
    with pytest.raises(ValueError, match="0 places for b"):
        printed(page, {"b": "x"})
