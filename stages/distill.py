"""distill: make a small synthetic set from the real images, by the backbone of the row.

    python -m stages.distill <row>

stages/distillation/backbone.py says what a backbone is.
"""

import importlib
from pathlib import Path

import torch

from stages.distillation.backbone import Backbone, Problem
from stages.distillation.learn import learn
from stages.images.prepared import load_split
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_curve, write_tensors
from stages.settings.distill import DistillKeys
from stages.settings.rows import Row
from stages.settings.section import parse
from stages.tools.records import recorded
from stages.training.flat import flat_convnet

__all__ = ["distill"]


def distill(row: Row) -> None:
    """Write the distilled set of a row, and the curve of its loss.

    The set has `images`, as the network sees them, and `labels`; with soft labels also `targets`, the
    probabilities; if a step size was learned, `step_size` and `teacher_step_size`; if the row has several
    sets, `set` with the number of each image's set; of real images `positions` among the training images; and
    if one came with it, `temperature`. The set of a row of all training images has no `images`: they are the
    training split.

    Raises:
        UserError: the settings do not fit the data, or the loss or a variable keeps leaving the finite
            numbers.
    """
    keys = row.keys(DistillKeys)
    module = importlib.import_module(f"stages.backbones.{keys.backbone}")
    settings = parse(module.Settings, keys.distill, f"runs.{row.name}.distill")
    problem = problem_of(row, keys)
    # `scratch` hashes the code that is loaded by then; `start` loads the rest of the backbone's.
    backbone: Backbone = module.start(problem, settings)
    about = {
        "backbone": keys.backbone,
        "dataset": row.dataset.name,
        "ipc": keys.ipc,
        "mdt": keys.mdt,
        "distill": keys.distill,
        "network": row.network.model_dump(),
        "seed": row.seed,
    }
    with scratch(f"distill-{row.name}", about, input_files(row)) as folder:
        learned = learn(backbone, folder / "state.safetensors", row.name, row.curve)
        checksum = write_curve(row.curve, learned.curve)
        about_set = {**about, **checksum, "skipped_updates": learned.skipped}
        write_tensors(row.distilled, tensors_of(backbone), about_set)


def tensors_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    """What is kept of a backbone that has done its work."""
    tensors = {"labels": backbone.labels}
    if backbone.images is not None:
        tensors["images"] = backbone.images()
    if backbone.targets is not None:
        tensors["targets"] = backbone.targets
    if "step_size" in backbone.variables:
        tensors["step_size"] = backbone.variables["step_size"].value
    if backbone.teacher_step_size is not None:
        tensors["teacher_step_size"] = torch.tensor(backbone.teacher_step_size)
    if backbone.number is not None:
        tensors["set"] = backbone.number
    if backbone.positions is not None:
        tensors["positions"] = backbone.positions
    if backbone.temperature is not None:
        tensors["temperature"] = torch.tensor(backbone.temperature, dtype=torch.float64)
    return tensors


def problem_of(row: Row, keys: DistillKeys) -> Problem:
    """The real images of the row, on its device, and what else its backbone is given.

    Raises:
        UserError: `ipc` is above the number of images in the smallest class.
    """
    device = row.device
    data = load_split(row.prepared, "train")
    smallest = int(data.labels.bincount(minlength=data.classes).min())
    if keys.ipc is not None and keys.ipc > smallest:
        raise UserError(
            f"runs.{row.name}.ipc: {keys.ipc} is above the smallest class of {row.dataset.name}; "
            f"allowed: 1 to {smallest}"
        )
    real = data._replace(images=data.images.to(device), labels=data.labels.to(device))
    return Problem(
        real=real,
        network=flat_convnet(row.network, data, device),
        ipc=keys.ipc or 0,
        mdt=keys.mdt,
        reads=row.reads,
        seed=row.seed,
        prepared=row.prepared,
    )


def input_files(row: Row) -> list[Path]:
    """The files that the set is made from."""
    images = list(row.prepared.glob("[!.]*.safetensors"))
    if row.reads.is_dir():
        return images + list(row.reads.glob("[!.]*.safetensors"))
    return [*images, row.reads]


def main(name: str) -> None:
    distill(Row(name))


if __name__ == "__main__":
    run_stage(recorded(main))
