"""What ten times the grid would take: ImageNet-1k at 50 images a class."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.counted import NUMBER
from benchmarks.grid.card import Card
from benchmarks.grid.entries import buffer_entry, buffers_of, datasets_of, row_entry
from benchmarks.grid.pieces import LABEL, images_per_set, masked_piece, networks_of
from benchmarks.grid.subjects import images_of
from benchmarks.projects import project
from stages.settings.project import read_yaml
from stages.settings.rows import Dataset, Row

__all__ = ["large_grid"]


def large_suite() -> dict[str, Any]:
    """ImageNet-1k at 50 images a class, in 64 and in 224 pixels.

    The settings are those of the nearest rows that have published ones.
    """
    tiny = read_yaml(Path("suites/tinyimagenet.yaml"))
    row = tiny["runs"]["tinyimagenet-mtt-ipc50"]
    experts = tiny["buffers"]["tinyimagenet"]
    # An iteration sees the same share of the set: 5 times as many classes.
    settings = row["distill"] | {"batch_syn": 5 * row["distill"]["batch_syn"]}
    recurrent = read_yaml(Path("suites/cifar10.yaml"))["runs"]["cifar10-rtp-ipc50-no-memory"]["distill"]
    suite: dict[str, Any] = {"datasets": {}, "buffers": {}, "runs": {}}
    for side, depth in ((64, 4), (224, 5)):
        images = {"source": "imagenet-1k", "whitening": "none", "resize": side}
        name = f"imagenet-{side}"
        suite["datasets"][name] = {"images": images, "network": {"width": 128, "depth": depth}}
        suite["buffers"][name] = experts | {"dataset": name}
        common = row | {"dataset": name, "suite": "benchmark"}
        suite["runs"][f"{name}-mtt"] = common | {"reads": f"buffer/{name}", "distill": settings}
        whole = {key: value for key, value in recurrent.items() if key != "classes"}
        suite["runs"][f"{name}-rtp"] = common | {"backbone": "rtp", "reads": "nothing", "distill": whole}
    return suite


def large_grid(card: Card) -> dict[str, Any]:
    suite = large_suite()
    with tempfile.TemporaryDirectory() as folder, project(Path(folder), suite):
        rows = [Row(name) for name in suite["runs"]]
        buffers = [buffer_entry(buffer, rows, card) for buffer in buffers_of(rows)]
        entries = [row_entry(row, card) for row in rows]
        needs = {dataset.name: large_needs(dataset) for dataset in datasets_of(rows)}
    return {"buffers": buffers, "rows": entries, "needs": needs}


def large_needs(dataset: Dataset) -> dict[str, float]:
    """Bytes of what is kept whole in memory, beside the trajectories."""
    images = images_of(dataset)
    row = Row(f"{dataset.name}-mtt")
    networks = networks_of(row)
    shown = (networks.groups + 1) * networks.repeats * images.test
    return {
        "images": images.train * images.numbers,
        "targets": images.train * images.classes * NUMBER,
        "targets_while_made": images.train * images.classes * (LABEL + NUMBER),
        "set": images_per_set(row) * images.numbers * NUMBER,
        "test_logits": shown * images.classes * NUMBER,
        "masked_logits": masked_piece(row).disk,
    }
