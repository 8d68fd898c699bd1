"""The keys of params.yaml and of a suite, and what each may be."""

from typing import Annotated

from pydantic import Field

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
from stages.settings.reach import ReachKeys, ReachSettings
from stages.settings.section import Ratio, Section, parse
from stages.settings.svd import SvdKeys
from stages.settings.tables import TableKeys
from stages.settings.temperature import TemperatureSettings
from stages.settings.train import TrainKeys, TrainSettings

__all__ = ["BufferEntry", "DatasetEntry", "ImportedBufferEntry", "Params", "RowEntry", "Suite"]

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as scikit-learn takes it


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
