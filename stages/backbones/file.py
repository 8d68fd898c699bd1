"""A distilled set that was made elsewhere, from the folder that the row reads. The folder holds one of

- `images_best.pt` and `labels_best.pt`, as MTT's code and its successors write them, or one pair with a
  number in place of `best`; beside them `lr_best.pt` with the step size, if a successor has written it;
- one `res_*.pt`, as the code of DC and DSA writes it (of several experiments in it, the last is taken);
- `set.safetensors`, as `distill` and `python -m stages.tools.export` write it;
- a folder of pictures for each class.

Images of the first three kinds are what the network saw: whitened or normalised as the row's data set is.
Pictures are whitened here. Files of PyTorch are loaded as tensors and nothing else: no code in them is ever
run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.settings.section import Positive, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`."""

    step_size: Positive | None = None  # for a row with `lr: learned`, if the folder has none


def start(problem: Problem, settings: Settings) -> Backbone:
    """Read the set, and check that it fits the row and its data set.

    Raises:
        UserError: the folder holds none of the four; a file cannot be read as tensors; the images are of
            another shape or not finite, labels are out of range, or a class does not have the row's `ipc`
            images.
    """
    import torch

    from stages.distillation.backbone import Backbone, Variable
    from stages.distillation.imported_set import read_set

    imported = read_set(problem)
    device = problem.real.images.device
    images = imported.images.to(device)
    labels = imported.labels.to(device)
    step_size = settings.step_size if imported.step_size is None else imported.step_size
    variables = {}
    if step_size is not None:
        value = torch.tensor(float(step_size), device=device)
        variables["step_size"] = Variable(value, lr=0.0)
    return Backbone(images=lambda: images, labels=labels, variables=variables)
