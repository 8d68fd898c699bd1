"""check: refuse settings that cannot work, before any work starts.

    python -m stages.check

It runs again whenever a setting changes. Its output never changes, so no other stage re-runs because of it.
"""

import importlib
import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from stages.images.archives import ARCHIVES, data_root
from stages.images.released import methods, released_set
from stages.images.sources import find_images
from stages.machine.names import DEVICES, is_known
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_text
from stages.runtime.trajectory_files import trajectory_files
from stages.settings.ablate import AblateSettings
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.buffer import BufferSettings, ImportedBuffer
from stages.settings.calibrate import CalibrateKeys, CalibrateSettings
from stages.settings.choices import ChoicesSettings
from stages.settings.distill import DistillKeys
from stages.settings.evaluate import EvaluateSettings
from stages.settings.features import FeaturesKeys
from stages.settings.images import ImageSettings
from stages.settings.network import NetworkSettings
from stages.settings.project import listed_suites, read_yaml
from stages.settings.reach import ReachKeys, ReachSettings
from stages.settings.section import Ratio, Section, known, parse, shortened
from stages.settings.svd import SvdKeys
from stages.settings.tables import TableKeys
from stages.settings.temperature import TemperatureSettings
from stages.settings.train import TrainKeys, TrainSettings

__all__ = ["Params", "RowEntry", "Suite", "check"]

# No module here imports torch, which takes seconds.

# A name is also a stage's, a file's and a word of a command, so no shell, path or option may be in it.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as scikit-learn takes it
MOST_CHARACTERS = 250  # of a path; a file system takes no longer name
SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "tinyimagenet": 64}  # pixels
LEAST_TEMPERATURE = 1e-6  # logits are divided by it


class Params(Section):
    """params.yaml."""

    mask_ratio: Ratio | None  # of MTS, for every row; null: each row's own
    seed: Seed
    train: TrainSettings
    calibrate: CalibrateSettings
    temperature: TemperatureSettings
    ablate: AblateSettings
    reach: ReachSettings
    choices: ChoicesSettings
    evaluate: EvaluateSettings
    device: str  # where to run; no stage depends on it
    data_root: str  # where copies of the data sets lie; no stage depends on it


class Named(Section):
    """What every entry of a suite says, for dvc.yaml to find it by."""

    suite: str


class DatasetEntry(Named):
    """`datasets.<name>` of a suite."""

    images: ImageSettings
    network: NetworkSettings


class BufferEntry(BufferSettings, Named):
    """`buffers.<name>` of a suite."""


class ImportedBufferEntry(ImportedBuffer, Named):
    """`buffers.<name>` of a suite, where it has `files`."""


class RowEntry(DistillKeys, TrainKeys, CalibrateKeys, TableKeys):
    """`runs.<name>` of a suite."""


class AnalysisEntry(Named):
    """What entries of a row's analyses say beside their own keys."""

    dataset: str  # the row's, for dvc.yaml


class ArchitecturesEntry(ArchitecturesKeys, AnalysisEntry):
    """`architectures.<row>` of a suite."""


class SvdEntry(SvdKeys, AnalysisEntry):
    """`svd.<row>` of a suite."""


class FeaturesEntry(FeaturesKeys, AnalysisEntry):
    """`features.<row>` of a suite."""


class ReachEntry(ReachKeys, AnalysisEntry):
    """`reach.<row>` of a suite."""


class ChoicesEntry(AnalysisEntry):
    """`choices.<row>` of a suite: what is tried stands in params.yaml."""


class Suite(Section):
    """suites/<suite>.yaml."""

    shared: dict = {}  # YAML anchors that the entries below take keys from
    datasets: dict[str, DatasetEntry]
    buffers: dict[str, dict]  # a BufferEntry or an ImportedBufferEntry
    runs: dict[str, RowEntry]
    architectures: dict[str, ArchitecturesEntry] = {}
    svd: dict[str, SvdEntry] = {}
    features: dict[str, FeaturesEntry] = {}
    reach: dict[str, ReachEntry] = {}
    choices: dict[str, ChoicesEntry] = {}

    def buffer(self, name: str) -> BufferEntry | ImportedBufferEntry:
        where = f"buffers.{name}"
        values = self.buffers[name]
        if "files" in values:
            return parse(ImportedBufferEntry, values, where)
        return parse(BufferEntry, values, where)

    def named(self) -> dict[str, dict]:
        """All that has a name, by kind."""
        kinds: dict[str, dict] = {"datasets": self.datasets, "buffers": self.buffers, "runs": self.runs}
        return kinds | self.analyses()

    def analyses(self) -> dict[str, dict]:
        return {
            "architectures": self.architectures,
            "svd": self.svd,
            "features": self.features,
            "reach": self.reach,
            "choices": self.choices,
        }


def check(listed: list[Path]) -> None:
    """Check params.yaml and every suite; of the suites that are listed to be built, also the images.

    Raises:
        UserError: the first mistake found.
    """
    params = parse(Params, read_yaml(Path("params.yaml")), "params.yaml")
    check_params(params)
    owners: dict[tuple[str, str], Path] = {}
    for path in sorted(Path("suites").glob("*.yaml")):
        check_spelling(path.stem, "suites")
        suite = parse(Suite, read_yaml(path), str(path))
        for kind, entries in suite.named().items():
            for name in entries:
                check_spelling(name, f"{path}: {kind}")
        check_names(suite, path, owners)
        check_buffers(suite, path)
        for name, row in suite.runs.items():
            where = f"{path}: runs.{name}"
            check_row(name, row, suite, where)
            check_table_keys(row, where)
            check_set_of_another_row(row, suite, where)
            check_released_set(row, suite, where)
            check_step_size(row, where)
        check_analyses(suite, path, params)
        if path in listed:
            check_files(suite, path, data_root(params.data_root))


def check_params(params: Params) -> None:
    """What needs more than one key of params.yaml to judge."""
    if not is_known(params.device):
        device = shortened(repr(params.device))
        raise UserError(f"params.yaml: device: {device} is unknown; allowed: {DEVICES}")
    check_path(params.data_root, "params.yaml: data_root")
    for loss in params.train.losses:
        known("params.yaml: train.losses", loss, names_in("losses"))
    if "cross_entropy" not in params.train.losses:
        raise UserError(
            "params.yaml: train.losses: cross_entropy is missing; Raw, TS and MTS are made from its networks"
        )
    start = params.calibrate.start
    low, high = params.calibrate.bounds
    if not low <= start <= high:
        raise UserError(f"params.yaml: calibrate.start: {start} lies outside calibrate.bounds {[low, high]}")
    if low < LEAST_TEMPERATURE:
        raise UserError(f"params.yaml: calibrate.bounds: {low:g}; allowed: at least {LEAST_TEMPERATURE:g}")


def check_spelling(name: str, where: str) -> None:
    """A name fits into files and commands."""
    if not NAME.fullmatch(name):
        allowed = "letters, digits, '-' and '_', at most 100 of them, and no '-' at the start"
        problem = f"{shortened(ascii(name))} is no name for files and commands"
        raise UserError(f"{where}: {problem}; allowed: {allowed}")


def check_names(suite: Suite, path: Path, owners: dict[tuple[str, str], Path]) -> None:
    """Names are unique over all suites, and every entry names the suite that it stands in.

    Args:
        owners: the suite of each (kind, name) so far; those of this suite are added.
    """
    for kind, entries in suite.named().items():
        for name in entries:
            entry = suite.buffer(name) if kind == "buffers" else entries[name]
            if (kind, name) in owners:
                other = owners[kind, name]
                raise UserError(f"{path}: {kind}.{name} is in {other} too; names are unique over all suites")
            owners[kind, name] = path
            known(f"{path}: {kind}.{name}.suite", entry.suite, [path.stem])


def check_buffers(suite: Suite, path: Path) -> None:
    for name in suite.buffers:
        known(f"{path}: buffers.{name}.dataset", suite.buffer(name).dataset, suite.datasets)


def check_row(name: str, row: RowEntry, suite: Suite, where: str) -> None:
    """The names that a row refers to, and the keys of its backbone."""
    known(f"{where}.dataset", row.dataset, suite.datasets)
    known(f"{where}.backbone", row.backbone, names_in("backbones"))
    backbone = importlib.import_module(f"stages.backbones.{row.backbone}")
    own_keys = parse(backbone.Settings, row.distill, f"{where}.distill")
    if (row.ipc is None) != (row.backbone == "full"):
        raise UserError(
            f"{where}.ipc: {row.ipc} with backbone {row.backbone!r}; "
            "allowed: null for full, a number >= 1 for others"
        )
    check_reads(row.reads, f"{where}.reads")
    reads_buffer = row.reads.startswith("buffer/")
    if reads_buffer:
        known(f"{where}.reads", row.reads, [f"buffer/{buffer}" for buffer in suite.buffers])
    epochs_read = getattr(own_keys, "expert_epochs_read", 0)
    if epochs_read and not reads_buffer:
        raise UserError(
            f"{where}.reads: {row.reads!r}, but backbone {row.backbone!r} reads expert trajectories; "
            "allowed: buffer/<name>"
        )
    if epochs_read:
        epochs = suite.buffer(row.reads.removeprefix("buffer/")).epochs
        if epochs_read > epochs:
            raise UserError(
                f"{where}.distill: max_start_epoch - 1 + expert_epochs = {epochs_read}, "
                f"but {row.reads} has {epochs} epochs; allowed: at most that"
            )


def check_reads(reads: str, where: str) -> None:
    """What a row reads lies below data/."""
    path = PurePosixPath(reads)
    leaves = path.is_absolute() or ".." in path.parts or not path.parts
    if leaves or not reads.isprintable() or len(reads) > MOST_CHARACTERS:
        allowed = "buffer/<name>, sets/<folder>, distill/<row>, or nothing"
        raise UserError(f"{where}: {shortened(ascii(reads))} is no path below data/; allowed: {allowed}")


def check_path(path: str, where: str) -> None:
    """A path that a user names outside of data/."""
    if not path or not path.isprintable() or len(path) > MOST_CHARACTERS:
        allowed = f"1 to {MOST_CHARACTERS} printable characters"
        raise UserError(f"{where}: {shortened(ascii(path))} is no path; allowed: {allowed}")


def check_set_of_another_row(row: RowEntry, suite: Suite, where: str) -> None:
    """A row that reads another row's set says of the set what that row says."""
    if not row.reads.startswith("distill/"):
        return
    if row.backbone != "file":
        raise UserError(
            f"{where}.reads: {row.reads!r} with backbone {row.backbone!r}; "
            "allowed: with backbone 'file' alone"
        )
    backbones = makers_of_sets()
    makers = [f"distill/{name}" for name, other in suite.runs.items() if other.backbone in backbones]
    known(f"{where}.reads", row.reads, makers)
    maker = suite.runs[row.reads.removeprefix("distill/")]
    same = {"dataset": maker.dataset, "ipc": maker.ipc, "mdt": maker.mdt, "made_by": maker.backbone}
    for key, value in same.items():
        own = getattr(row, key)
        if own != value:
            raise UserError(f"{where}.{key}: {own!r}, but the row reads {row.reads}; allowed: {value!r}")


def check_released_set(row: RowEntry, suite: Suite, where: str) -> None:
    """A row with a released set says of the set what the list of released sets says."""
    source = row.distill.get("source") if row.backbone == "file" else None
    if source is None:
        return
    released = released_set(source, f"{where}.distill.source")
    same = {"reads": "nothing", "ipc": released.ipc, "mdt": 0, "made_by": released.method}
    for key, value in same.items():
        own = getattr(row, key)
        if own != value:
            raise UserError(f"{where}.{key}: {own!r}, but the row has {source}; allowed: {value!r}")
    images = suite.datasets[row.dataset].images.source
    if images in ("digits", *ARCHIVES) and images != released.dataset:
        raise UserError(
            f"{where}.dataset: {row.dataset!r} has images of {images}, but the row has {source}; "
            f"allowed: a data set of {released.dataset}"
        )


def check_table_keys(row: RowEntry, where: str) -> None:
    """The keys by which tables put rows beside each other."""
    if row.made_by is not None and row.backbone != "file":
        raise UserError(
            f"{where}.made_by: {row.made_by!r} with backbone {row.backbone!r}; "
            "allowed: with backbone 'file' alone"
        )
    if row.made_by is not None:
        known(f"{where}.made_by", row.made_by, [*makers_of_sets(), *other_makers_of_sets()])
    if row.budget == "reduced" and not row.budget_note:
        raise UserError(f"{where}.budget_note: missing; `budget: reduced` needs words for what is reduced")
    if row.budget_note and row.budget != "reduced":
        raise UserError(
            f"{where}.budget_note: {row.budget_note!r} with budget {row.budget!r}; "
            "allowed: with `budget: reduced` alone"
        )


def check_step_size(row: RowEntry, where: str) -> None:
    """`lr` takes the step size of the set only where the backbone that made the set learns one."""
    if row.lr not in ("learned", "teacher"):
        return
    backbone = row.method if row.reads.startswith("distill/") else row.backbone
    settings = importlib.import_module(f"stages.backbones.{backbone}").Settings
    if not getattr(settings, "has_step_size", False):
        raise UserError(
            f"{where}.lr: {row.lr!r}, but sets of backbone {backbone!r} have no step size; "
            "allowed: a number > 0"
        )


def check_analyses(suite: Suite, path: Path, params: Params) -> None:
    """The names that `architectures`, `svd`, `features`, `reach` and `choices` refer to."""
    for kind, entries in suite.analyses().items():
        for name, entry in entries.items():
            known(f"{path}: {kind}", name, suite.runs)
            known(f"{path}: {kind}.{name}.dataset", entry.dataset, [suite.runs[name].dataset])
    for name, features in suite.features.items():
        known(f"{path}: features.{name}.outside", features.outside, suite.datasets)
        for loss in features.losses:
            known(f"{path}: features.{name}.losses", loss, params.train.losses)
        if "cross_entropy" not in features.losses:
            raise UserError(
                f"{path}: features.{name}.losses: {features.losses} without cross_entropy; "
                "Figures 4 and 6 are of its networks"
            )
    for name, architectures in suite.architectures.items():
        for network in architectures.networks:
            known(f"{path}: architectures.{name}.networks", network, names_in("networks"))
    check_reach(suite, path)


def check_reach(suite: Suite, path: Path) -> None:
    """Only sets have a reach: networks of the full data have seen all the images that it is measured with."""
    for name, reach in suite.reach.items():
        if suite.runs[name].backbone == "full":
            raise UserError(f"{path}: reach.{name}: a row with backbone 'full'; allowed: all other rows")
        for other in reach.carried:
            known(f"{path}: reach.{name}.carried", other, [row for row in suite.runs if row != name])


def check_files(suite: Suite, path: Path, root: Path) -> None:
    """The images, expert trajectories and sets that have to be there, and enough images in every class.

    Of a data set that `prepare` will fetch, nothing is known yet.
    """
    smallest_class = {}
    for name, dataset in suite.datasets.items():
        source = find_images(dataset.images, f"{path}: datasets.{name}.images", root)
        if source:
            smallest_class[name] = min(source.counts)
        check_depth(dataset, f"{path}: datasets.{name}.network.depth")
    for name in suite.buffers:
        buffer = suite.buffer(name)
        if isinstance(buffer, ImportedBufferEntry):
            trajectory_files(buffer, f"{path}: buffers.{name}.files")
    for name, row in suite.runs.items():
        where = f"{path}: runs.{name}"
        folder = Path("data") / row.reads
        elsewhere = row.reads.startswith("distill/") or "source" in row.distill
        if row.backbone == "file" and not elsewhere and not folder.is_dir():
            raise UserError(
                f"{where}.reads: {row.reads!r}, but there is no folder {folder}; allowed: one below data/"
            )
        most = smallest_class.get(row.dataset)
        if row.ipc is not None and most is not None and row.ipc > most:
            raise UserError(
                f"{where}.ipc: {row.ipc} is above the smallest class of {row.dataset}; allowed: 1 to {most}"
            )


def check_depth(dataset: DatasetEntry, where: str) -> None:
    """Each block halves the side of the image, which is known of some data sets."""
    side = dataset.images.resize or SIDES.get(dataset.images.source)
    depth = dataset.network.depth
    if side is not None and side >> depth < 1:
        raise UserError(f"{where}: {depth} blocks halve {side} pixels to nothing; allowed: 2^depth <= {side}")


def makers_of_sets() -> list[str]:
    """The backbones that make or choose images: not `file`, which reads them, nor `full`, which has none."""
    return [name for name in names_in("backbones") if name not in ("file", "full")]


def other_makers_of_sets() -> list[str]:
    """The methods that have made released sets and are no backbone here."""
    return [name for name in methods() if name not in makers_of_sets()]


def names_in(room: str) -> list[str]:
    """The methods of a room: its files."""
    folder = Path(__file__).parent / room
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def main() -> None:
    check(listed_suites())
    write_text(Path("data/check/passed"), "passed\n")


if __name__ == "__main__":
    run_stage(main)
