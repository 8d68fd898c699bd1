"""What the paper's full grid takes: counted operations, hours of a card, memory and disk, row by row.

    python -m benchmarks.grid [--share S] [--call MICROSECONDS] [--price PRICE]

It reads the suites and runs no stage. It writes `reports/benchmarks/grid.json` and the tables of
docs/grid.md; under other assumptions it prints the tables and writes nothing. Nothing of it has been measured
on a GPU. Operations, calls and bytes are counted (`benchmarks/counted.py`); the card's rates are published
peaks, of which a share is assumed.
"""

import argparse
import heapq
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.counted import (
    META,
    NUMBER,
    Load,
    Subject,
    Training,
    forward,
    matching,
    mtt_load,
    rtp_load,
    training,
)
from benchmarks.measure import FOLDER
from benchmarks.projects import project
from stages.backbones import dc, dsa, kmeans, mtt, random, rtp
from stages.calibrators.fitting import NETWORKS
from stages.images.sampling import share_of
from stages.masked import wanted_by_later_stages
from stages.networks import alexnet, convnet, mlp, resnet18, vgg11
from stages.runtime.files import write_json, write_text
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.buffer import BufferSettings
from stages.settings.distill import DistillKeys
from stages.settings.features import FeaturesKeys
from stages.settings.images import ImageSettings
from stages.settings.network import NetworkSettings
from stages.settings.project import entries_of, param, read_yaml
from stages.settings.rows import Buffer, Dataset, Row
from stages.settings.section import parse
from stages.settings.svd import SvdKeys
from stages.settings.tables import TableKeys
from stages.settings.train import TrainKeys
from stages.training.flat import FlatNetwork
from stages.training.groups import own_settings, train_settings

__all__ = ["CARD", "Card", "buffer_piece", "counted_grid", "disk_of_buffer", "main", "makespan", "row_piece"]

SUITES = ("cifar10", "cifar100", "tinyimagenet", "imagenette")
PAGE = Path("docs/grid.md")
HOUR = 3600
DAY = 24
LABEL = 8  # bytes of an int64
CARDS = (1, 4, 8, 16, 32)
LARGEST_PLAN = 64  # cards


class Card(NamedTuple):
    """A card as its maker describes it, and what is assumed of it."""

    name: str
    operations: float  # a second, of float32 products: the published dense peak
    bandwidth: float  # bytes a second of its memory: published
    memory: float  # bytes
    share: float  # assumed: of both rates, that our code reaches
    call: float  # assumed: seconds that a call takes on the host, if nothing else takes longer

    def least_hours(self, load: Load) -> float:
        """If products are all that takes time."""
        return load.operations / (self.share * self.operations) / HOUR

    def most_hours(self, load: Load) -> float:
        """If nothing overlaps and no call is fused with another."""
        moved = load.bytes / (self.share * self.bandwidth) / HOUR
        return max(self.least_hours(load) + moved, load.calls * self.call / HOUR)


CARD = Card("H100 SXM, 80 GB", 67e12, 3.35e12, 80e9, 0.5, 5e-6)


# The data sets, which need not be there


class Split(NamedTuple):
    """A published data set."""

    classes: int
    side: int | None  # pixels; None: the settings resize it
    train: int  # images
    test: int


SOURCES = {
    "cifar10": Split(10, 32, 50_000, 10_000),
    "cifar100": Split(100, 32, 50_000, 10_000),
    "tinyimagenet": Split(200, 64, 100_000, 10_000),
    "imagenette": Split(10, None, 9_469, 3_925),
    "imagenet-1k": Split(1000, None, 1_281_167, 50_000),
}
CHANNELS = 3
BUILDERS = {
    "alexnet": alexnet.build,
    "convnet": convnet.build,
    "mlp": mlp.build,
    "resnet18": resnet18.build,
    "vgg11": vgg11.build,
}


class Images(NamedTuple):
    """The images of a data set of a suite."""

    classes: int
    side: int
    train: int
    test: int
    whitened: bool  # then they are kept as float32, and as bytes otherwise

    @property
    def numbers(self) -> int:
        """Of one image."""
        return CHANNELS * self.side**2

    @property
    def loaded(self) -> int:
        """Bytes of the training images in the memory of a stage."""
        return self.train * self.numbers * (NUMBER if self.whitened else 1)


def images_of(dataset: Dataset) -> Images:
    settings = parse(ImageSettings, dataset.value("images"), f"datasets.{dataset.name}.images")
    source = SOURCES[settings.source]
    side = settings.resize or source.side
    assert side is not None, f"{dataset.name}: without `resize`"
    train = source.train if settings.per_class is None else settings.per_class * source.classes
    return Images(source.classes, side, train, source.test, settings.whitening != "none")


def subject_of(dataset: Dataset, network: str = "convnet") -> Subject:
    images = images_of(dataset)
    return built(network, images.side, images.classes, dataset.network)


@cache
def built(name: str, side: int, classes: int, settings: NetworkSettings) -> Subject:
    with torch.device(META):
        module = BUILDERS[name](CHANNELS, side, classes, settings)
    return Subject(FlatNetwork(module), CHANNELS, side, classes)


# Pieces of the grid


class Piece(NamedTuple):
    """A stage of a row, or a buffer."""

    load: Load
    card: float = 0.0  # bytes that it needs on the card at once
    disk: float = 0.0  # bytes of its outputs


def disk_of_buffer(experts: int, epochs: int, weights: int) -> int:
    """Bytes of the trajectories, without the header of their file."""
    return experts * (epochs + 1) * weights * NUMBER


def fitting(subject: Subject, work: Training, resident: float, card: Card) -> tuple[Piece, int]:
    """Networks in as large groups as fit into a card's memory, and how many are in a group.

    The engine plans with the free memory (`stages/machine/memory.py`); here all are halved until they fit.

    Args:
        resident: bytes on the card beside the networks and what they compute.
    """
    together = work.networks
    while True:
        load = training(subject, work._replace(networks=together))
        on_card = load.peak + resident
        if on_card <= card.memory or together == 1:
            return Piece(load.times(work.networks / together), on_card), together
        together = (together + 1) // 2


def buffer_piece(buffer: Buffer, card: Card) -> tuple[Piece, int]:
    """A buffer, and how many of its experts the card takes side by side."""
    settings = buffer.keys(BufferSettings)
    images = images_of(buffer.dataset)
    subject = subject_of(buffer.dataset)
    resident = images.loaded + images.train * images.classes * NUMBER  # with the targets
    work = Training(settings.experts, images.train, settings.epochs, settings.batch)
    piece, together = fitting(subject, work, resident, card)
    disk = disk_of_buffer(settings.experts, settings.epochs, subject.network.size)
    snapshots = disk_of_buffer(together, settings.epochs, subject.network.size)
    return piece._replace(card=piece.card + snapshots, disk=disk), together


def images_per_set(row: Row) -> int:
    keys = row.keys(DistillKeys)
    images = images_of(row.dataset)
    return images.train if keys.ipc is None else keys.ipc * images.classes


def sets_of(keys: DistillKeys) -> int:
    """How many sets a row has."""
    if keys.backbone == "random":
        return random.Settings(**keys.distill).sets
    if keys.backbone == "kmeans":
        return kmeans.Settings(**keys.distill).sets
    return 1


def distill_piece(row: Row) -> Piece:
    """The distillation of a row; `random`, `kmeans`, `full` and `file` compute nothing on a card."""
    keys = row.keys(DistillKeys)
    images = images_of(row.dataset)
    subject = subject_of(row.dataset)
    count = images_per_set(row)
    set_bytes = count * images.numbers * NUMBER
    resident = images.loaded + 3 * set_bytes  # values, velocity and the next values
    disk = 0.0 if keys.backbone == "full" else sets_of(keys) * (set_bytes + count * LABEL)
    if keys.backbone == "mtt":
        load = mtt_load(subject, mtt.Settings(**keys.distill), count)
        settings = Buffer(row.value("reads").removeprefix("buffer/")).keys(BufferSettings)
        resident += disk_of_buffer(settings.experts, settings.epochs, subject.network.size)
    elif keys.backbone == "rtp":
        assert keys.ipc is not None
        load = rtp_load(subject, rtp.Settings(**keys.distill), keys.ipc)
    elif keys.backbone in ("dc", "dsa"):
        assert keys.ipc is not None
        is_siamese = keys.backbone == "dsa"
        settings_of = dsa.Settings if is_siamese else dc.Settings
        load = matching(subject, settings_of(**keys.distill), keys.ipc, is_siamese)
    else:
        return Piece(Load(), 0.0, disk)
    return Piece(load, load.peak + resident, disk)


class Networks(NamedTuple):
    """How the networks of a row are trained."""

    repeats: int
    groups: int  # of networks on all images: one a loss
    images: int
    held_out: int  # of these images, from the networks of TS; 0: there are no such networks
    epochs: int
    batch: int
    augment: bool

    def work(self, networks: int, images: int | None = None, epochs: int | None = None) -> Training:
        return Training(networks, images or self.images, epochs or self.epochs, self.batch, self.augment)


def networks_of(row: Row) -> Networks:
    keys = row.keys(TrainKeys)
    settings = own_settings(keys, train_settings())
    images = images_of(row.dataset)
    count = trained_images(row)
    of_a_class = count // images.classes
    held_out = share_of(settings.holdout)(of_a_class) * images.classes if of_a_class > 1 else 0
    return Networks(
        settings.repeats, len(settings.losses), count, held_out, keys.epochs, settings.batch, keys.augment
    )


def trained_images(row: Row) -> int:
    """How many images a network of the row is trained on.

    Memory addressing has more than `ipc` of each class.
    """
    keys = row.keys(DistillKeys)
    reads = row.value("reads")
    if reads.startswith("distill/"):
        return trained_images(Row(reads.removeprefix("distill/")))
    if keys.backbone == "rtp" and keys.ipc is not None:
        settings = rtp.Settings(**keys.distill)
        if settings.n_basis is not None:
            images = images_of(row.dataset)
            basis = settings.n_basis * CHANNELS * (images.side // 2) ** 2
            room = keys.ipc * images.classes * images.numbers - basis
            return room // (images.classes * settings.n_basis) * images.classes
    return images_per_set(row)


def train_piece(row: Row, card: Card) -> Piece:
    """The networks of every loss, those of TS, and the logits of all of them on the test images."""
    networks = networks_of(row)
    images = images_of(row.dataset)
    subject = subject_of(row.dataset)
    shown = (networks.images + images.test) * images.numbers * NUMBER
    piece, _ = fitting(subject, networks.work(networks.repeats), shown, card)
    load = piece.load.times(networks.groups)
    groups = networks.groups
    if networks.held_out:
        groups += 1
        kept = networks.images - networks.held_out
        load = load + fitting(subject, networks.work(networks.repeats, kept), shown, card)[0].load
    count = groups * networks.repeats
    load = load + forward(subject, count * images.test)
    disk = NUMBER * count * (subject.network.size + images.test * images.classes)
    return Piece(load, piece.card, disk)


def temperature_piece(row: Row, card: Card) -> Piece:
    """Further networks, and their logits on real training images."""
    networks = networks_of(row)
    images = images_of(row.dataset)
    subject = subject_of(row.dataset)
    count = param("temperature.networks")
    real = min(param("temperature.images"), images.train)
    shown = (networks.images + real) * images.numbers * NUMBER
    piece, _ = fitting(subject, networks.work(count), shown, card)
    disk = count * real * (images.classes * NUMBER + LABEL)
    return Piece(piece.load + forward(subject, count * real), piece.card, disk)


def further_piece(row: Row, card: Card) -> Piece:
    """The stages `masked`, `svd`, `architectures` and `features`, as far as the row is in them."""
    suite = read_yaml(row.suite)
    pieces = [masked_piece(row)]
    if row.name in suite.get("svd", {}):
        pieces.append(svd_piece(row, card))
    if row.name in suite.get("architectures", {}):
        pieces.append(architectures_piece(row, card))
    if row.name in suite.get("features", {}):
        pieces.append(features_piece(row))
    load = Load()
    for piece in pieces:
        load = load + piece.load
    return Piece(load, max(piece.card for piece in pieces), sum(piece.disk for piece in pieces))


def masked_piece(row: Row) -> Piece:
    networks = networks_of(row)
    images = images_of(row.dataset)
    shown = 0
    for wanted in wanted_by_later_stages(row):
        if networks.held_out or NETWORKS[wanted.method] != "holdout":
            shown += share_of(wanted.share)(networks.images // images.classes) * images.classes
    shown *= networks.repeats
    return Piece(forward(subject_of(row.dataset), shown), 0.0, shown * (images.classes * NUMBER + LABEL))


def svd_piece(row: Row, card: Card) -> Piece:
    networks = networks_of(row)
    keys = row.analysis("svd", SvdKeys)
    work = networks.work(networks.repeats, epochs=keys.epochs)
    piece, _ = fitting(subject_of(row.dataset), work, 0.0, card)
    return piece._replace(load=piece.load.times(len(keys.drop)))


def architectures_piece(row: Row, card: Card) -> Piece:
    networks = networks_of(row)
    images = images_of(row.dataset)
    shown = networks.repeats * (images.test + min(param("temperature.images"), images.train))
    load = Load()
    on_card = 0.0
    names = row.analysis("architectures", ArchitecturesKeys).networks
    for name in names:
        subject = subject_of(row.dataset, name)
        piece, _ = fitting(subject, networks.work(networks.repeats), 0.0, card)
        load = load + piece.load + forward(subject, shown)
        on_card = max(on_card, piece.card)
    return Piece(load, on_card, NUMBER * len(names) * shown * images.classes)


def features_piece(row: Row) -> Piece:
    networks = networks_of(row)
    keys = row.analysis("features", FeaturesKeys)
    shown = images_of(Dataset(keys.outside)).test + networks.images * (1 + len(keys.ratios))
    return Piece(forward(subject_of(row.dataset), networks.repeats * shown))


def row_piece(row: Row, card: Card) -> dict[str, Piece]:
    """What each stage of a row takes."""
    return {
        "distill": distill_piece(row),
        "train": train_piece(row, card),
        "temperature": temperature_piece(row, card),
        "further": further_piece(row, card),
    }


# The grid


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


# Cards side by side

Plan = Callable[[dict[str, Any], int], float]


def makespan(grid: dict[str, Any], cards: int, key: str = "most_hours") -> float:
    """Hours until all is done, where each card takes the longest row that is left.

    The experts of a buffer are divided among all cards. A row runs on one card. It starts when the buffers
    are done, and a row that reads another row's set when that row is done.
    """
    start = sum(buffer[key] for buffer in grid["buffers"]) / cards
    first = [row for row in grid["rows"] if not row["reads"].startswith("distill/")]
    later = [row for row in grid["rows"] if row["reads"].startswith("distill/")]
    free = [start] * cards
    ends: dict[str, float] = {}  # of a row, by what others read of it
    for rows in (first, later):
        for row in sorted(rows, key=lambda row: -row[key]):
            begin = max(heapq.heappop(free), ends.get(row["reads"], 0.0))
            ends[f"distill/{row['name']}"] = begin + row[key]
            heapq.heappush(free, begin + row[key])
    return max(free)


def spread(grid: dict[str, Any], cards: int, key: str = "most_hours") -> float:
    """Hours that are needed at least, if the networks of a row are divided among cards as well.

    A distillation runs on one card all the same, and no card does two things at once.
    """
    entries = [*grid["buffers"], *grid["rows"]]
    longest = max(row["stages"]["distill"][key] for row in grid["rows"])
    return max(sum(entry[key] for entry in entries) / cards, longest)


def cards_for(grid: dict[str, Any], hours: float, plan: Plan = makespan) -> int | None:
    """The smallest number of cards that are done in this time; None: no number is.

    Args:
        plan: the hours that so many cards take.
    """
    for cards in range(1, LARGEST_PLAN + 1):
        if plan(grid, cards) <= hours:
            return cards
    return None


def without_rtp(grid: dict[str, Any]) -> dict[str, Any]:
    return {**grid, "rows": [row for row in grid["rows"] if row["method"] != "rtp"]}


# Ten times that


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


# The program

PLANS: dict[str, Plan] = {"": makespan, ", networks spread": spread}


def counted(card: Card) -> dict[str, Any]:
    """What `main` writes as JSON."""
    grid = counted_grid(card)
    groups = {"everything": grid, "without RTP": without_rtp(grid)}
    times = {}
    limits: dict[str, dict[str, int | None]] = {"day": {}, "week": {}}
    for name, group in groups.items():
        for words, plan in PLANS.items():
            times[f"{name}{words}"] = {str(cards): plan(group, cards) for cards in CARDS}
            limits["day"][f"{name}{words}"] = cards_for(group, DAY, plan)
            limits["week"][f"{name}{words}"] = cards_for(group, 7 * DAY, plan)
    return {
        "card": card._asdict(),
        **grid,
        "hours_by_cards": times,
        "cards_for": limits,
        "ten_times": large_grid(card),
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid")
    parser.add_argument("--share", type=float, default=CARD.share, help="of the card's peak rates")
    parser.add_argument("--call", type=float, help="microseconds of a call")
    parser.add_argument("--price", type=float, help="of an hour of a card, in any currency")
    return parser.parse_args()


def main() -> None:
    from benchmarks.grid_check import checked
    from benchmarks.grid_tables import printed, tables

    words = parsed()
    call = CARD.call if words.call is None else 1e-6 * words.call
    card = CARD._replace(share=words.share, call=call)
    numbers = counted(card) | {"check": checked()}
    if card == CARD:  # other assumptions are printed, and change no file
        write_json(FOLDER / "grid.json", numbers)
        write_text(PAGE, printed(PAGE.read_text(), tables(numbers)))
    print(*tables(numbers, words.price).values(), sep="\n\n")


if __name__ == "__main__":
    main()
