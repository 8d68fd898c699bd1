"""The settings: params.yaml and suites/<dataset>.yaml, checked as they are read.

A typing mistake (unknown key, wrong type, value out of range) ends in one line that names file, key, value and what is
allowed. Settings of a backbone's own (`distill:`) are checked by the backbone, see `stages/check.py`.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.shared.errors import UserError

__all__ = ["BufferSettings", "DatasetSettings", "Params", "Row", "Section", "Settings", "listed_rows", "load", "parse"]

Ratio = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, and nothing is converted ("5" is not 5)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageSettings(Section):
    """What the images are and how they are normalised (prepare)."""

    source: str  # "digits" (scikit-learn's), or a folder with train/<class>/* and test/<class>/*
    whitening: Literal["zca", "none"] = "none"
    mean: list[float] | None = None  # per channel; null: of the training images. Not used with ZCA
    std: list[Positive] | None = None
    resize: Count | None = None  # shorter side, then a centre crop to a square
    color: Literal["rgb", "gray"] = "rgb"


class NetworkSettings(Section):
    width: Count
    depth: Count


class DatasetSettings(Section):
    images: ImageSettings
    network: NetworkSettings


class BufferSettings(Section):
    """Expert trajectories (buffer). The published training has 50 epochs; a distillation reads only the first few."""

    dataset: str
    experts: Count
    epochs: Count
    lr: Positive
    batch: Count
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: float32 weights, bfloat16 products


class Row(Section):
    """One distilled set and what is trained on it: a row of the tables."""

    dataset: str
    backbone: str
    ipc: Count | None  # images per class; null for all of them (backbone: full)
    reads: str  # below data/: buffer/<name> for trajectories, "nothing" where the backbone needs no more than images
    mdt: Ratio | Annotated[list[Ratio], Field(min_length=2, max_length=2)]  # mask ratio while distilling, or its range
    distill: dict  # the backbone's own settings
    epochs: Count  # of training on the distilled set
    lr: Positive | Literal["learned"]  # learned: the step size that the distillation found
    mask_ratio: Ratio  # of MTS
    note: str = ""


class TrainSettings(Section):
    """Training on a distilled set; every network of a row (train)."""

    repeats: Count
    losses: Annotated[list[str], Field(min_length=1)]
    batch: Count
    momentum: Ratio
    weight_decay: Annotated[float, Field(ge=0)]
    holdout: Annotated[float, Field(gt=0, lt=1)]  # share of the distilled images that TS keeps from training
    mixup_alpha: Positive
    label_smoothing: Ratio
    focal_gamma: Annotated[float, Field(ge=0)]


class CalibrateSettings(Section):
    start: Positive  # first temperature of the LBFGS runs
    lr: Positive
    max_iter: Count
    share: Annotated[float, Field(gt=0, le=1)]  # of the distilled images that MTS fits on, per class
    bounds: Annotated[list[Positive], Field(min_length=2, max_length=2)]  # of every temperature; reported when hit


class EvaluateSettings(Section):
    bins: Count


class Params(Section):
    """params.yaml."""

    mask_ratio: Ratio | None  # MTS, for every row; null: each row's own
    seed: int
    train: TrainSettings
    calibrate: CalibrateSettings
    evaluate: EvaluateSettings
    device: str  # execution only, no stage depends on it


class Suite(Section):
    datasets: dict[str, DatasetSettings]
    buffers: dict[str, BufferSettings]
    runs: dict[str, Row]

    @model_validator(mode="after")
    def names_exist(self):
        for kind, items in (("buffers", self.buffers), ("runs", self.runs)):
            for name, item in items.items():
                known(f"{kind}.{name}.dataset", item.dataset, self.datasets)
        for name, row in self.runs.items():
            if row.reads.startswith("buffer/"):
                known(f"runs.{name}.reads", row.reads, [f"buffer/{buffer}" for buffer in self.buffers])
            if (row.ipc is None) != (row.backbone == "full"):
                raise UserError(f"runs.{name}.ipc: {row.ipc} with backbone {row.backbone!r}; allowed: null for full, a number >= 1 for others")
            if "." in name:
                raise UserError(f"runs.{name}: a row's name is also a stage's and a file's; allowed: no '.'")
        return self


class Settings(Section):
    params: Params
    datasets: dict[str, DatasetSettings]
    buffers: dict[str, BufferSettings]
    runs: dict[str, Row]

    def row(self, name: str) -> tuple[Row, DatasetSettings]:
        known("row", name, self.runs)
        return self.runs[name], self.datasets[self.runs[name].dataset]

    def mask_ratio(self, name: str) -> float:
        """The ratio that MTS uses for a row: params.yaml's for all rows if it is set, else the row's own."""
        return self.runs[name].mask_ratio if self.params.mask_ratio is None else self.params.mask_ratio


def known(key: str, value: str, allowed) -> None:
    if value not in allowed:
        raise UserError(f"{key}: {value!r} is unknown; allowed: {', '.join(allowed) or 'none is defined'}")


def parse(model: type[Section], values, where: str) -> Section:
    """`model(**values)`, with pydantic's complaint turned into one line that begins with `where`."""
    try:
        return model.model_validate(values)
    except ValidationError as problems:
        raise UserError(f"{where}: {_first_mistake(model, problems.errors())}") from None


def _first_mistake(model: type[Section], problems: list[dict]) -> str:
    """One line for the first key that is wrong; where it may be one of several kinds, for the kind that fits best."""

    def keys(problem):  # without pydantic's names for the kinds of a union
        return tuple(part for part in problem["loc"] if isinstance(part, int) or part.isidentifier() or "-" in part and "constrained" not in part)

    about = [problem for problem in problems if keys(problem)[:-1] == keys(problems[0])[:-1] or keys(problem)[: len(keys(problems[0]))] == keys(problems[0])]
    deepest = max(about, key=lambda problem: len(keys(problem)))
    key = ".".join(str(part) for part in keys(deepest))
    if deepest["type"] == "extra_forbidden":
        section = _section(model, deepest["loc"][:-1])
        return f"{key}: unknown key" + (f"; allowed here: {', '.join(section.model_fields)}" if section else "")
    if deepest["type"] == "missing":
        return f"{key}: {deepest['msg']}"
    reasons = dict.fromkeys(problem["msg"] for problem in about if keys(problem) == keys(deepest))
    return f"{key}: {deepest['input']!r} is not allowed: {' or '.join(reasons)}"


def _section(model, path):
    """The section class at a path of keys, for the list of keys that it allows."""
    for part in path:
        kind = model.model_fields[part].annotation if isinstance(model, type) and issubclass(model, Section) else model
        while getattr(kind, "__args__", None) and not (isinstance(kind, type) and issubclass(kind, Section)):
            kind = kind.__args__[-1]
            if kind is type(None):
                return None
        model = kind
    return model if isinstance(model, type) and issubclass(model, Section) else None


def _read(path: Path) -> dict:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as problem:
        raise UserError(f"{path}: not YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values but got {type(values).__name__}")
    return values


def load(folder: Path = Path(".")) -> Settings:
    """params.yaml and every suite below `folder`, listed in dvc.yaml or not."""
    params = parse(Params, _read(folder / "params.yaml"), "params.yaml")
    low, high = params.calibrate.bounds
    if not low <= params.calibrate.start <= high:
        raise UserError(f"params.yaml: calibrate.start: {params.calibrate.start} lies outside calibrate.bounds {[low, high]}")
    merged = {"datasets": {}, "buffers": {}, "runs": {}}
    for path in sorted((folder / "suites").glob("*.yaml")):
        try:
            suite = parse(Suite, _read(path), str(path.relative_to(folder)))
        except UserError as mistake:
            text = str(mistake)
            raise UserError(text if text.startswith("suites") else f"{path.relative_to(folder)}: {text}") from None
        for name, part in merged.items():
            if twice := part.keys() & getattr(suite, name).keys():
                raise UserError(f"{path.relative_to(folder)}: {name}.{min(twice)} is in another suite too; names are unique")
            part |= getattr(suite, name)
        for name in suite.datasets:
            if name != path.stem:
                raise UserError(f"{path.relative_to(folder)}: datasets.{name}: a suite's data set has the file's name; allowed: {path.stem}")
    return Settings(params=params, **merged)


def listed_rows(settings: Settings, folder: Path = Path(".")) -> dict[str, Row]:
    """The rows of the suites that dvc.yaml lists under `vars`, in that order."""
    suites = [entry for entry in _read(folder / "dvc.yaml").get("vars", []) if isinstance(entry, str)]
    return {name: row for suite in suites for name, row in settings.runs.items() if row.dataset == Path(suite).stem}
