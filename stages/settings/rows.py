"""A row: one distilled set, the networks trained on it, and the line that they get in the tables.

Everything of a row is found by its name, which is a key of `runs` in a suite: its settings, the seed, the
device, and the files that the stages keep of it. Every path is said here, and nowhere else.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.runtime.errors import UserError
from stages.settings.network import NetworkSettings
from stages.settings.project import entries_of, listed_suites, param, suite_keys, suite_with
from stages.settings.section import Section, parse

if TYPE_CHECKING:  # stages that only do arithmetic need no torch
    import torch

__all__ = ["DATA", "RECORDS", "REPORTS", "Buffer", "Dataset", "Entry", "Row", "finished_rows", "listed_rows"]

DATA = Path("data")
REPORTS = Path("reports")
RECORDS = REPORTS / "records"  # what each result was made with

S = TypeVar("S", bound=Section)


class Entry:
    """`<kind>.<name>` of the suite that has it.

    Raises:
        UserError: no suite has an entry of this name.
    """

    kind: str

    def __init__(self, name: str):
        self.name = name
        self.suite = suite_with(self.kind, name)

    def value(self, key: str) -> Any:
        """What stands at a key of the entry.

        Raises:
            UserError: the entry has no such key.
        """
        values = suite_keys(self.suite, (self.kind, self.name), [key])
        if key not in values:
            raise UserError(f"{self.suite}: {self.kind}.{self.name}.{key}: Field required")
        return values[key]

    def keys(self, section: type[S]) -> S:
        """The keys that `section` declares; those that other stages read are left alone."""
        return self._section((self.kind, self.name), section)

    def _section(self, entry: tuple[str, ...], section: type[S]) -> S:
        values = suite_keys(self.suite, entry, list(section.model_fields))
        return parse(section, values, ".".join(entry))

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn."""
        return param("seed")

    @property
    def device(self) -> "torch.device":
        """The device of params.yaml; DEVICE in the environment wins."""
        from stages.machine.device import pick_device

        return pick_device(param("device"))


class Dataset(Entry):
    """A data set: `datasets.<name>`."""

    kind = "datasets"

    @property
    def prepared(self) -> Path:
        """The folder of its images as tensors."""
        return DATA / "prepare" / self.name

    @property
    def network(self) -> NetworkSettings:
        return parse(NetworkSettings, self.value("network"), f"datasets.{self.name}.network")


class Buffer(Entry):
    """Expert trajectories: `buffers.<name>`."""

    kind = "buffers"

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.value("dataset"))

    @property
    def folder(self) -> Path:
        """Of `trajectories.safetensors` and `curve.csv`."""
        return DATA / "buffer" / self.name


class Row(Entry):
    """A distilled set and what is made from it: `runs.<name>`."""

    kind = "runs"

    def analysis(self, kind: str, section: type[S]) -> S:
        """The row's keys in the suite's `svd`, `features` or `architectures`."""
        return self._section((kind, self.name), section)

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.value("dataset"))

    @property
    def prepared(self) -> Path:
        """The folder of the data set's images as tensors."""
        return self.dataset.prepared

    @property
    def network(self) -> NetworkSettings:
        """Of the data set."""
        return self.dataset.network

    @property
    def reads(self) -> Path:
        """The file or folder that its backbone reads beside the images, e.g. a buffer."""
        return DATA / self.value("reads")

    @property
    def distilled(self) -> Path:
        """The distilled set: images, labels and, where it was learned, the step size."""
        return DATA / "distill" / self.name / "set.safetensors"

    @property
    def curve(self) -> Path:
        """The loss of the distillation by iteration."""
        return DATA / "distill" / self.name / "curve.csv"

    @property
    def weights(self) -> Path:
        """The networks trained on the set, `(repeats, P)` for each group of them."""
        return DATA / "train" / self.name / "weights.safetensors"

    @property
    def logits(self) -> Path:
        """Their logits on the test images, `(repeats, N, K)` for each group, and the test labels."""
        return DATA / "train" / self.name / "logits.safetensors"

    @property
    def fitting_logits(self) -> Path:
        """Their logits on the images that temperatures are fitted on, by `Fitting.key`."""
        return DATA / "masked" / f"{self.name}.safetensors"

    @property
    def temperatures(self) -> Path:
        return DATA / "calibrate" / f"{self.name}.json"

    @property
    def results(self) -> Path:
        """Every number of every method and repeat."""
        return DATA / "evaluate" / f"{self.name}.json"

    @property
    def metrics(self) -> Path:
        """Accuracy and ECE in percent, for `dvc metrics`."""
        return REPORTS / "metrics" / f"{self.name}.json"

    @property
    def reliability(self) -> Path:
        """The reliability diagram of every method, for `dvc plots`."""
        return REPORTS / "reliability" / f"{self.name}.csv"

    @property
    def ablation(self) -> Path:
        return DATA / "ablate" / f"{self.name}.json"

    @property
    def shipped(self) -> Path:
        """The temperature that is shipped with the set."""
        return DATA / "temperature" / f"{self.name}.json"

    @property
    def real_logits(self) -> Path:
        """The logits that it was fitted on, `(networks, N, K)`, and the labels, `(networks, N)`."""
        return DATA / "temperature" / f"{self.name}.safetensors"

    @property
    def singular_values(self) -> Path:
        return DATA / "svd" / f"{self.name}.json"

    @property
    def features(self) -> Path:
        return DATA / "features" / f"{self.name}.safetensors"

    @property
    def architectures(self) -> Path:
        return DATA / "architectures" / f"{self.name}.json"

    @property
    def architecture_logits(self) -> Path:
        """The logits of the other networks on test images and on real training images."""
        return DATA / "architectures" / f"{self.name}.safetensors"

    @property
    def reach(self) -> Path:
        """How far the shipped temperature goes, and what needs no real image."""
        return DATA / "reach" / f"{self.name}.json"

    @property
    def reach_logits(self) -> Path:
        """The logits of the networks that were trained for it."""
        return DATA / "reach" / f"{self.name}.safetensors"

    @property
    def choices(self) -> Path:
        """What the choices that the paper leaves open do on the row."""
        return DATA / "choices" / f"{self.name}.json"

    @property
    def picture(self) -> Path:
        """The distilled images beside the curve of their distillation."""
        return REPORTS / "distilled" / f"{self.name}.png"


def listed_rows(kind: str = "runs") -> list[Row]:
    """The rows of the suites that dvc.yaml lists, in their order.

    Args:
        kind: "runs" for all rows; "svd", "features", ... for those that a suite lists there.
    """
    rows = []
    for suite in listed_suites():
        rows += [Row(name) for name in entries_of(suite, kind)]
    return rows


def finished_rows(
    stage: str, names: Sequence[str], needs: Callable[[Row], Path], kind: str = "runs"
) -> list[Row]:
    """The rows that a stage for all rows can work on.

    Its files `data/<stage>/<row>.*` of rows that are no longer listed are deleted.

    Args:
        names: the rows to work on alone; empty for all that are listed.
        needs: the file of a row that has to be there.
        kind: as for `listed_rows`.
    """
    if names:
        return [Row(name) for name in names]
    rows = [row for row in listed_rows(kind) if needs(row).exists()]
    kept = {row.name for row in rows}
    folder = DATA / stage
    folder.mkdir(parents=True, exist_ok=True)  # DVC wants it to be there, even without a row
    for file in folder.iterdir():
        if file.is_file() and file.stem not in kept:
            file.unlink()
            print(
                f"{file} is deleted: no listed suite has its row, or the row has lost what it was made from"
            )
    return rows
