"""check: refuse settings that cannot work, before any work starts.

    python -m stages.check

Runs again whenever a setting changes; its output never does, so nothing else re-runs because of it.
"""

import importlib
from pathlib import Path

from stages.architectures import ArchitecturesSettings
from stages.buffer import BufferSettings, ImportedBuffer, trajectory_files
from stages.calibrate import CalibrateRow
from stages.calibrators.settings import CalibrateSettings, SweepSettings
from stages.distill import DistillRow
from stages.evaluate import EvaluateSettings
from stages.features import FeaturesRow, FeaturesSettings
from stages.shared.archives import data_root
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_text
from stages.shared.settings import Ratio, Section, known, listed_suites, parse, read_yaml
from stages.shared.sources import ImageSettings, find_images
from stages.svd import SvdSettings
from stages.train import TrainRow, TrainSettings

__all__ = ["Params", "Row", "Suite", "check"]


class Params(Section):
    """params.yaml."""

    mask_ratio: Ratio | None  # MTS, for every row; null: each row's own
    seed: int
    train: TrainSettings
    calibrate: CalibrateSettings
    sweep: SweepSettings
    evaluate: EvaluateSettings
    inspect: FeaturesSettings
    device: str  # execution only, no stage depends on it
    data_root: str  # likewise


class Dataset(Section):
    """`datasets.<name>` of a suite."""

    suite: str
    images: ImageSettings
    network: NetworkSettings


class Buffer(BufferSettings):
    """`buffers.<name>` of a suite."""

    suite: str


class Imported(ImportedBuffer):
    """`buffers.<name>` of a suite, where it has `files`."""

    suite: str


class Architectures(ArchitecturesSettings):
    """`architectures.<row>` of a suite."""

    suite: str


class Svd(SvdSettings):
    """`svd.<row>` of a suite."""

    suite: str


class Features(FeaturesRow):
    """`features.<row>` of a suite."""

    suite: str


class Row(DistillRow, TrainRow, CalibrateRow):
    """`runs.<name>` of a suite: one distilled set and what is trained on it, a row of the tables."""

    suite: str


class Suite(Section):
    """suites/<suite>.yaml. Every entry names the suite that it stands in, for dvc.yaml to find it by."""

    datasets: dict[str, Dataset]
    buffers: dict[str, dict]  # each a Buffer, or an Imported
    runs: dict[str, Row]
    architectures: dict[str, Architectures]  # by row, as the next two
    svd: dict[str, Svd]
    features: dict[str, Features]


def check(listed: list[Path]) -> None:
    """Check params.yaml and every suite; of those that are listed to be built, also the images.

    Raises:
        UserError: the first mistake found.
    """
    params = parse(Params, read_yaml(Path("params.yaml")), "params.yaml")
    pick_device(params.device)
    for loss in params.train.losses:
        known("params.yaml: train.losses", loss, names_in("losses"))
    if "cross_entropy" not in params.train.losses:
        raise UserError("params.yaml: train.losses: cross_entropy is missing; Raw, TS and MTS are made from its networks")
    low, high = params.calibrate.bounds
    if not low <= params.calibrate.start <= high:
        raise UserError(f"params.yaml: calibrate.start: {params.calibrate.start} lies outside calibrate.bounds {[low, high]}")
    owner = {}
    for path in sorted(Path("suites").glob("*.yaml")):
        suite = parse(Suite, read_yaml(path), str(path))
        buffers = {name: parse(Imported if "files" in values else Buffer, values, f"{path}: buffers.{name}") for name, values in suite.buffers.items()}
        suite = suite.model_copy(update={"buffers": buffers})
        for kind in ("datasets", "buffers", "runs", "architectures", "svd", "features"):
            for name, entry in getattr(suite, kind).items():
                if (kind, name) in owner:
                    raise UserError(f"{path}: {kind}.{name} is in {owner[kind, name]} too; names are unique over all suites")
                owner[kind, name] = path
                known(f"{path}: {kind}.{name}.suite", entry.suite, [path.stem])
        check_suite(suite, path, params)
        if path in listed:
            check_images(suite, path, data_root(params.data_root))
            for name, entry in suite.buffers.items():
                if isinstance(entry, Imported):
                    trajectory_files(entry, f"{path}: buffers.{name}.files")


def check_suite(suite: Suite, path: Path, params: Params) -> None:
    """What needs more than one key to judge: names that refer to others, and the backbones' own keys."""
    for name, buffer in suite.buffers.items():
        known(f"{path}: buffers.{name}.dataset", buffer.dataset, suite.datasets)
    for name, row in suite.runs.items():
        where = f"{path}: runs.{name}"
        if "." in name:
            raise UserError(f"{where}: a row's name is also a stage's and a file's; allowed: no '.'")
        known(f"{where}.dataset", row.dataset, suite.datasets)
        known(f"{where}.backbone", row.backbone, names_in("distillers"))
        own = parse(importlib.import_module(f"stages.distillers.{row.backbone}").Settings, row.distill, f"{where}.distill")
        if (row.ipc is None) != (row.backbone == "full"):
            raise UserError(f"{where}.ipc: {row.ipc} with backbone {row.backbone!r}; allowed: null for full, a number >= 1 for others")
        if row.reads.startswith("buffer/"):
            known(f"{where}.reads", row.reads, [f"buffer/{buffer}" for buffer in suite.buffers])
        if needed := getattr(own, "expert_epochs_read", 0):
            if not row.reads.startswith("buffer/"):
                raise UserError(f"{where}.reads: {row.reads!r}, but backbone {row.backbone!r} reads expert trajectories; allowed: buffer/<name>")
            if needed > (there := suite.buffers[row.reads.removeprefix("buffer/")].epochs):
                raise UserError(f"{where}.distill: max_start_epoch - 1 + expert_epochs = {needed}, but {row.reads} has {there} epochs; allowed: at most that")
    for kind in ("architectures", "svd", "features"):
        for name, entry in getattr(suite, kind).items():
            known(f"{path}: {kind}", name, suite.runs)
            known(f"{path}: {kind}.{name}.dataset", entry.dataset, [suite.runs[name].dataset])
    for name, entry in suite.features.items():
        known(f"{path}: features.{name}.outside", entry.outside, suite.datasets)
        for loss in entry.losses:
            known(f"{path}: features.{name}.losses", loss, params.train.losses)
        if "cross_entropy" not in entry.losses:
            raise UserError(f"{path}: features.{name}.losses: {entry.losses} without cross_entropy; Figures 4 and 6 are of its networks")
    for name, entry in suite.architectures.items():
        for network in entry.networks:
            known(f"{path}: architectures.{name}.networks", network, names_in("networks"))


def check_images(suite: Suite, path: Path, root: Path) -> None:
    """That the images are there, and enough of them; of a data set that `prepare` will fetch, nothing is known yet."""
    found = {name: find_images(dataset.images, f"{path}: datasets.{name}.images", root) for name, dataset in suite.datasets.items()}
    smallest = {name: min(source.counts) for name, source in found.items() if source}
    for name, row in suite.runs.items():
        if row.backbone == "file" and not (Path("data") / row.reads).is_dir():
            raise UserError(f"{path}: runs.{name}.reads: {row.reads!r}, but there is no folder {Path('data') / row.reads}; allowed: one below data/")
        if row.ipc is not None and row.ipc > smallest.get(row.dataset, row.ipc):
            raise UserError(f"{path}: runs.{name}.ipc: {row.ipc} is above the smallest class of {row.dataset}; allowed: 1 to {smallest[row.dataset]}")


def names_in(folder: str) -> list[str]:
    """The methods of a folder: its files."""
    return sorted(file.stem for file in (Path(__file__).parent / folder).glob("*.py") if file.stem != "__init__")


def main() -> None:
    check(listed_suites())
    write_text(Path("data/check/passed"), "passed\n")


if __name__ == "__main__":
    run_stage(main)
