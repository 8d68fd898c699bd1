"""A distilled set that was made elsewhere: a released one by its name, or one from the folder that the row
reads. The folder holds one of

- `images_best.pt` and `labels_best.pt`, as MTT's code and its successors write them, or one pair with nothing
  or a number in place of `best`; beside them `lr_best.pt` (`lr.pt`, ...) with the step size, if a successor
  has written it;
- one `res_*.pt`, as the code of DC and DSA writes it; the sets of its experiments are sets of the row, and
  each repeat of training has the next one;
- `set.safetensors`, as `distill` and `python -m stages.tools.export` write it;
- a folder of pictures for each class.

A set may come with its temperature: in `set.safetensors`, or as a number in `temperature.txt` beside it.

Images of the first three kinds are what the network saw: whitened or normalised as the row's data set is.
Pictures are whitened here. Labels are a class for each image, `(N,)`, or soft: numbers `(N, K)` for all
classes. Files of PyTorch are loaded as tensors and nothing else: no code in them is ever run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from stages.images.archives import data_root
from stages.images.released import SoftKind, folder_of, released_set
from stages.settings.project import param
from stages.settings.section import Positive, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`."""

    has_step_size: ClassVar[bool] = True  # so a row may have `lr: learned` or `lr: teacher`

    source: str | None = None  # `released/<name>` of stages/images/released.yaml; null: the folder of `reads`
    step_size: Positive | None = None  # for a row with `lr: learned`, if the folder has none
    teacher_step_size: Positive | None = None  # for a row with `lr: teacher`, likewise
    labels: SoftKind | None = None  # what soft labels are; null: it is told from the numbers, if it can be


def start(problem: Problem, settings: Settings) -> Backbone:
    """Read the set, and check that it fits the row and its data set. A released set may be fetched.

    Raises:
        UserError: the folder holds none of the four; a file cannot be read as tensors; the images are of
            another shape or not finite, labels are out of range, or a class does not have the row's `ipc`
            images; it cannot be told what soft labels are; a released set is not there and cannot be fetched,
            or is another one than published.
    """
    import torch

    from stages.distillation.backbone import Backbone, Variable
    from stages.distillation.imported_set import read_set

    kind = settings.labels
    if settings.source is not None:
        key = "distill.source"
        folder = folder_of(settings.source, data_root(param("data_root")), key)
        problem = replace(problem, reads=folder)
        kind = kind or released_set(settings.source, key).soft_kind
    imported = read_set(problem, kind)
    device = problem.real.images.device
    images = imported.images.to(device)
    step_size = settings.step_size if imported.step_size is None else imported.step_size
    variables = {}
    if step_size is not None:
        value = torch.tensor(float(step_size), device=device)
        variables["step_size"] = Variable(value, lr=0.0)
    teacher = settings.teacher_step_size
    return Backbone(
        images=lambda: images,
        labels=imported.labels.to(device),
        targets=imported.targets,
        variables=variables,
        number=imported.number,
        positions=imported.positions,
        temperature=imported.temperature,
        teacher_step_size=teacher if imported.teacher_step_size is None else imported.teacher_step_size,
    )
