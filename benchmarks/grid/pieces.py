"""What each stage of a row takes, and each buffer: counted work, memory of a card, and disk."""

from typing import NamedTuple

from benchmarks.counted import (
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
from benchmarks.grid.card import Card
from benchmarks.grid.subjects import CHANNELS, images_of, subject_of
from stages.backbones import dc, dsa, kmeans, mtt, random, rtp
from stages.calibrators.fitting import NETWORKS
from stages.images.sampling import share_of
from stages.masked import wanted_by_later_stages
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.buffer import BufferSettings
from stages.settings.distill import DistillKeys
from stages.settings.features import FeaturesKeys
from stages.settings.project import param, read_yaml
from stages.settings.rows import Buffer, Dataset, Row
from stages.settings.svd import SvdKeys
from stages.settings.train import TrainKeys
from stages.training.groups import own_settings, train_settings

__all__ = [
    "LABEL",
    "Piece",
    "buffer_piece",
    "disk_of_buffer",
    "distill_piece",
    "fitting",
    "images_per_set",
    "masked_piece",
    "networks_of",
    "row_piece",
    "temperature_piece",
    "train_piece",
]

LABEL = 8  # bytes of an int64


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
