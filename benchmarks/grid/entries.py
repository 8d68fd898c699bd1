"""Which rows and buffers belong to the grid, and the numbers that stand in the JSON for each."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.counted import NUMBER
from benchmarks.grid.card import Card
from benchmarks.grid.pieces import LABEL, Piece, buffer_piece, row_piece
from benchmarks.grid.subjects import images_of
from stages.settings.project import entries_of
from stages.settings.rows import Buffer, Dataset, Row
from stages.settings.tables import TableKeys

__all__ = [
    "buffer_entry",
    "buffers_of",
    "counted_grid",
    "datasets_of",
    "grid_rows",
    "row_entry",
    "totals",
    "without_rtp",
]

SUITES = ("cifar10", "cifar100", "tinyimagenet", "imagenette")


def is_of_the_grid(row: Row) -> bool:
    """Whether a row belongs to the paper's grid.

    Left out are rows that run in minutes, and those of smaller budgets. RTP has no published budget for
    CIFAR-100; its rows there belong to the grid with the budget that they have.
    """
    keys = row.keys(TableKeys)
    return keys.budget in (None, "published") or (keys.budget == "reduced" and keys.method == "rtp")


def grid_rows() -> list[Row]:
    rows = []
    for suite in SUITES:
        rows += [Row(name) for name in entries_of(Path(f"suites/{suite}.yaml"), "runs")]
    return [row for row in rows if is_of_the_grid(row)]


def buffers_of(rows: Iterable[Row]) -> list[Buffer]:
    """The buffers that rows read, each once."""
    reads = dict.fromkeys(row.value("reads") for row in rows)
    return [Buffer(name.removeprefix("buffer/")) for name in reads if name.startswith("buffer/")]


def datasets_of(rows: Iterable[Row]) -> list[Dataset]:
    """The data sets of rows, each once."""
    names = dict.fromkeys(row.dataset.name for row in rows)
    return [Dataset(name) for name in names]


def disk_of_dataset(dataset: Dataset) -> int:
    """Bytes of the prepared images, their labels and their whitening."""
    images = images_of(dataset)
    whitening = 2 * images.numbers**2 * NUMBER if images.whitened else 0
    return (images.train + images.test) * (images.numbers + LABEL) + whitening


def numbers_of(piece: Piece, card: Card) -> dict[str, float]:
    return {
        "operations": piece.load.operations,
        "calls": piece.load.calls,
        "bytes": piece.load.bytes,
        "least_hours": card.least_hours(piece.load),
        "most_hours": card.most_hours(piece.load),
        "card_bytes": piece.card,
        "disk_bytes": piece.disk,
    }


def totals(entries: Iterable[dict[str, float]]) -> dict[str, float]:
    """The sums of entries; for memory, the largest."""
    sums: dict[str, float] = defaultdict(float)
    for entry in entries:
        for key, value in entry.items():
            sums[key] = max(sums[key], value) if key == "card_bytes" else sums[key] + value
    return dict(sums)


def buffer_entry(buffer: Buffer, rows: list[Row], card: Card) -> dict[str, Any]:
    piece, together = buffer_piece(buffer, card)
    readers = [row.name for row in rows if row.value("reads") == f"buffer/{buffer.name}"]
    return {"name": buffer.name, "read_by": readers, "together": together, **numbers_of(piece, card)}


def row_entry(row: Row, card: Card) -> dict[str, Any]:
    keys = row.keys(TableKeys)
    stages = {stage: numbers_of(piece, card) for stage, piece in row_piece(row, card).items()}
    about = {"name": row.name, "suite": row.suite.stem, "method": keys.method, "ipc": keys.ipc}
    made_here = keys.backbone not in ("file", "random", "kmeans", "full")
    return {**about, "reads": keys.reads, "distilled": made_here, "stages": stages, **totals(stages.values())}


def counted_grid(card: Card) -> dict[str, Any]:
    """Everything that is counted of the grid."""
    rows = grid_rows()
    buffers = [buffer_entry(buffer, rows, card) for buffer in buffers_of(rows)]
    entries = [row_entry(row, card) for row in rows]
    prepared = {dataset.name: disk_of_dataset(dataset) for dataset in datasets_of(rows)}
    return {"buffers": buffers, "rows": entries, "prepared": prepared}


def without_rtp(grid: dict[str, Any]) -> dict[str, Any]:
    return {**grid, "rows": [row for row in grid["rows"] if row["method"] != "rtp"]}
