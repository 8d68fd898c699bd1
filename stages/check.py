"""check: refuse settings that cannot work, before any work starts.

    python -m stages.check

It runs again whenever a setting changes. Its output never changes, so no other stage re-runs because of it.
"""

from pathlib import Path
from typing import Any

from stages.images.archives import data_root
from stages.images.sources import find_images
from stages.machine.names import DEVICES, is_known
from stages.rules.names import check_path, check_spelling, names_in
from stages.rules.rows import check_row
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_result, write_text
from stages.runtime.trajectory_files import trajectory_files
from stages.settings.project import entries_of, listed_suites, read_yaml
from stages.settings.rows import DATA
from stages.settings.section import known, parse, shortened
from stages.settings.suite import DatasetEntry, ImportedBufferEntry, Params, Suite

__all__ = ["check"]

# No module here imports torch, which takes seconds.

SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "tinyimagenet": 64}  # pixels
LEAST_TEMPERATURE = 1e-6  # logits are divided by it


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
            check_row(row, suite, f"{path}: runs.{name}")
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

    Images and trajectories need not be there where they were taken in before, as in a clone that has pulled.
    """
    smallest_class = {}
    for name, dataset in suite.datasets.items():
        counts = counts_of(name, dataset, path, root)
        if counts:
            smallest_class[name] = min(counts)
        check_depth(dataset, f"{path}: datasets.{name}.network.depth")
    for name in suite.buffers:
        buffer = suite.buffer(name)
        if isinstance(buffer, ImportedBufferEntry):
            own = entries_of(path, "buffers")[name]
            if not is_made(f"buffer@{name}", path, f"buffers.{name}", own):
                trajectory_files(buffer.files, f"{path}: buffers.{name}.files")
    for name, row in suite.runs.items():
        where = f"{path}: runs.{name}"
        folder = DATA / row.reads
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


def counts_of(name: str, dataset: DatasetEntry, path: Path, root: Path) -> list[int] | None:
    """How many training images a data set has of each class; None of one that `prepare` will fetch.

    Where its images are not here, but `prepare` has read them before, they are those that it has found.
    """
    key = f"datasets.{name}.images"
    prepared = DATA / "prepare" / name / "info.json"
    try:
        source = find_images(dataset.images, f"{path}: {key}", root)
    except UserError:
        own = entries_of(path, "datasets")[name]["images"]
        if prepared.exists() and is_made(f"prepare@{name}", path, key, own):
            return read_result(prepared)["counts"]["train"]
        raise
    return source.counts if source else None


def is_made(stage: str, path: Path, key: str, value: Any) -> bool:
    """Whether dvc.lock has a stage that was run with this value of a key of a suite."""
    lock = Path("dvc.lock")
    if not lock.exists():
        return False
    made = read_yaml(lock).get("stages", {}).get(stage, {})
    return made.get("params", {}).get(path.as_posix(), {}).get(key) == value


def check_depth(dataset: DatasetEntry, where: str) -> None:
    """Each block halves the side of the image, which is known of some data sets."""
    side = dataset.images.resize or SIDES.get(dataset.images.source)
    depth = dataset.network.depth
    if side is not None and side >> depth < 1:
        raise UserError(f"{where}: {depth} blocks halve {side} pixels to nothing; allowed: 2^depth <= {side}")


def main() -> None:
    check(listed_suites())
    write_text(Path("data/check/passed"), "passed\n")


if __name__ == "__main__":
    run_stage(main)
