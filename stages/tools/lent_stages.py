"""The stages that a row needs, and whether they are done.

A stage is done while its stamp in scratch/lent/ has the hashes of its settings, code, inputs and outputs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.runtime.files import write_result
from stages.runtime.reuse import file_hash, fingerprint, former_result
from stages.settings.calibrate import CalibrateKeys
from stages.settings.distill import DistillKeys
from stages.settings.features import FeaturesKeys
from stages.settings.project import param, params_of_results, read_yaml
from stages.settings.reach import ReachKeys
from stages.settings.rows import Buffer, Dataset, Row
from stages.settings.svd import SvdKeys
from stages.settings.train import TrainKeys

__all__ = [
    "ANALYSES",
    "STAMPS",
    "Stage",
    "buffers_of",
    "inputs_hash",
    "is_done",
    "plan",
    "remove_stamp",
    "write_stamp",
]

STAMPS = Path("scratch/lent")
ANALYSES = ("features", "svd", "choices", "reach")  # of the rows that a suite lists under these names


class Stage(NamedTuple):
    """One command: `python -m stages.<kind> <entry>`."""

    kind: str
    entry: str  # the data set, buffer or row that it works on
    code: str  # the file below data/code with the hashes of its modules
    settings: Any  # what its outputs depend on, beside code and inputs
    inputs: list[Path]  # files and folders
    outputs: list[Path]

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.entry}"


def plan(rows: list[Row], skipped: Sequence[str] = ()) -> list[Stage]:
    """The stages of the first row in the order in which they run, then what the next row still needs.

    `reach` comes after all these, as it tries the temperatures of other rows.

    Args:
        skipped: those of `ANALYSES` that are left out.
    """
    stages: dict[str, Stage] = {}
    for row in rows:
        for stage in slow_stages(row) + quick_stages(row) + analysis_stages(row, skipped):
            stages.setdefault(stage.name, stage)
    for row in rows:
        if is_wanted(row, "reach", skipped):
            stage = reach_stage(row)
            stages.setdefault(stage.name, stage)
    return list(stages.values())


def slow_stages(row: Row) -> list[Stage]:
    """The stages from images to trained networks. Each has only the settings that it reads."""
    return [*stages_of_set(row), train_stage(row), temperature_stage(row)]


def stages_of_set(row: Row) -> list[Stage]:
    """The stages from images to the distilled set, which may be that of another row."""
    stages = [prepare_stage(row.dataset)]
    for buffer in buffers_of(row):
        stages += [prepare_stage(buffer.dataset), buffer_stage(buffer)]
    reads = row.value("reads")
    if reads.startswith("distill/"):
        stages += stages_of_set(Row(reads.removeprefix("distill/")))
    return [*stages, distill_stage(row)]


def prepare_stage(dataset: Dataset) -> Stage:
    images = dataset.value("images")
    return Stage("prepare", dataset.name, "prepare", images, [], [dataset.prepared])


def buffer_stage(buffer: Buffer) -> Stage:
    keys = read_yaml(buffer.suite)["buffers"][buffer.name]
    settings = [param("seed"), buffer.dataset.value("network"), keys]
    outputs = [buffer.folder / "trajectories.safetensors", buffer.folder / "curve.csv"]
    return Stage("buffer", buffer.name, "buffer", settings, [buffer.dataset.prepared], outputs)


def distill_stage(row: Row) -> Stage:
    keys = row.keys(DistillKeys)
    code = f"distill/{keys.backbone}"
    settings = [param("seed"), row.dataset.value("network"), keys.model_dump()]
    outputs = [row.distilled, row.curve]
    return Stage("distill", row.name, code, settings, [row.prepared, row.reads], outputs)


def train_stage(row: Row) -> Stage:
    keys = row.keys(TrainKeys)
    settings = [param("seed"), param("train"), row.dataset.value("network"), keys.model_dump()]
    outputs = [row.weights, row.logits]
    return Stage("train", row.name, "train", settings, [row.prepared, row.distilled], outputs)


def temperature_stage(row: Row) -> Stage:
    params = [param(key) for key in ("seed", "train", "temperature", "calibrate.bounds")]
    settings = [params, row.dataset.value("network"), row.keys(TrainKeys).model_dump()]
    outputs = [row.shipped, row.real_logits]
    return Stage("temperature", row.name, "temperature", settings, [row.prepared, row.distilled], outputs)


def quick_stages(row: Row) -> list[Stage]:
    """The stages that take seconds. They run anew when any key of params.yaml changes, but for execution."""
    settings = [params_of_results(), row.dataset.value("network"), row.keys(CalibrateKeys).model_dump()]

    def stage(kind: str, inputs: list[Path], outputs: list[Path]) -> Stage:
        return Stage(kind, row.name, kind, settings, inputs, outputs)

    return [
        stage("masked", [row.prepared, row.distilled, row.weights], [row.fitting_logits]),
        stage("calibrate", [row.fitting_logits], [row.temperatures]),
        stage("evaluate", [row.logits, row.temperatures, row.shipped], [row.results, row.metrics]),
        stage("ablate", [row.logits, row.fitting_logits, row.shipped], [row.ablation]),
    ]


def analysis_stages(row: Row, skipped: Sequence[str]) -> list[Stage]:
    """Those of the stages `features`, `svd` and `choices` where the row's suite lists the row."""
    stages = []
    if is_wanted(row, "features", skipped):
        stages += features_stages(row)
    if is_wanted(row, "svd", skipped):
        stages.append(svd_stage(row))
    if is_wanted(row, "choices", skipped):
        stages.append(choices_stage(row))
    return stages


def is_wanted(row: Row, kind: str, skipped: Sequence[str]) -> bool:
    """Whether the row's suite has the row under a kind of analysis that is not skipped."""
    return kind not in skipped and row.name in (read_yaml(row.suite).get(kind) or {})


def features_stages(row: Row) -> list[Stage]:
    """The stage `features`, after the images from outside."""
    keys = row.analysis("features", FeaturesKeys)
    outside = Dataset(keys.outside)
    settings = [param("seed"), row.dataset.value("network"), keys.model_dump()]
    inputs = [row.prepared, outside.prepared, row.distilled, row.weights, row.logits]
    return [
        prepare_stage(outside),
        Stage("features", row.name, "features", settings, inputs, [row.features]),
    ]


def svd_stage(row: Row) -> Stage:
    keys = row.analysis("svd", SvdKeys)
    training = row.keys(TrainKeys).model_dump()
    settings = [param("seed"), param("train"), row.dataset.value("network"), training, keys.model_dump()]
    inputs = [row.prepared, row.distilled]
    return Stage("svd", row.name, "svd", settings, inputs, [row.singular_values])


def choices_stage(row: Row) -> Stage:
    keys = row.keys(TrainKeys)
    settings = [params_of_results(), row.dataset.value("network"), keys.model_dump(), row.value("mask_ratio")]
    inputs = [row.prepared, row.distilled, row.logits, row.fitting_logits]
    return Stage("choices", row.name, "choices", settings, inputs, [row.choices])


def reach_stage(row: Row) -> Stage:
    """Of the rows whose temperatures it tries, it takes those that are there."""
    keys = row.analysis("reach", ReachKeys)
    training = row.keys(TrainKeys).model_dump()
    settings = [params_of_results(), row.dataset.value("network"), training, keys.model_dump()]
    temperatures = [row.shipped, *(Row(name).shipped for name in keys.carried)]
    inputs = [row.prepared, row.distilled, row.weights, row.logits, *temperatures]
    return Stage("reach", row.name, "reach", settings, inputs, [row.reach])


def buffers_of(row: Row) -> list[Buffer]:
    """The buffer that a row reads, if it reads one."""
    reads = row.value("reads")
    return [Buffer(reads.removeprefix("buffer/"))] if reads.startswith("buffer/") else []


def hashes(paths: list[Path]) -> dict[str, str]:
    """The hash of every file, also of those in folders."""
    files: list[Path] = []
    for path in paths:
        files += path.rglob("*") if path.is_dir() else [path]
    return {str(file): file_hash(file) for file in sorted(files) if file.is_file()}


def inputs_hash(stage: Stage) -> str:
    """A hash of everything that the stage's outputs depend on."""
    list_of_code = Path("data/code") / f"{stage.code}.json"
    return fingerprint(stage.name, stage.settings, hashes([list_of_code, *stage.inputs]))


def is_done(stage: Stage) -> bool:
    stamp = {"inputs": inputs_hash(stage), "outputs": hashes(stage.outputs)}
    return former_result(stamp_file(stage)) == stamp


def write_stamp(stage: Stage, inputs: str) -> None:
    """Say that the outputs are those of `inputs`, the hash before the stage ran."""
    write_result(stamp_file(stage), {"inputs": inputs, "outputs": hashes(stage.outputs)})


def remove_stamp(stage: Stage) -> None:
    stamp_file(stage).unlink(missing_ok=True)


def stamp_file(stage: Stage) -> Path:
    return STAMPS / f"{stage.name}.json"
