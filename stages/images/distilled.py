"""The distilled set of a row, as it lies on disk. A row may also have several sets, one after the other."""

from pathlib import Path
from typing import NamedTuple

import torch

from stages.images.prepared import LabelledImages, class_names, load_split
from stages.runtime.files import read_tensors

__all__ = ["DistilledSet", "load_set", "number_in"]


class DistilledSet(NamedTuple):
    """Synthetic or chosen images, on the CPU, with the step sizes that came with them."""

    data: LabelledImages  # of all sets, one after the other
    step_size: float | None  # that was learned with the images
    teacher_step_size: float | None  # that the learned one started from
    number: torch.Tensor | None  # (N,) int64: the set of each image, from 0 on; None: there is one set
    positions: torch.Tensor | None = None  # (N,) int64 among the training images, if they are real images
    temperature: float | None = None  # that came with the set
    is_whole: bool = False  # whether it is the whole training split, as with backbone `full`

    @property
    def sets(self) -> int:
        """How many sets there are."""
        return 1 if self.number is None else int(self.number.max()) + 1

    def rows(self, repeat: int) -> torch.Tensor | None:
        """The positions of the images of a repeat, which has the set `repeat % sets`; None: all images."""
        if self.number is None:
            return None
        return torch.nonzero(self.number == repeat % self.sets).flatten()

    def rows_of(self, repeats: int) -> list[torch.Tensor] | None:
        """The positions of the images of each repeat; None: all have all images."""
        if self.number is None:
            return None
        return [torch.nonzero(self.number == repeat % self.sets).flatten() for repeat in range(repeats)]

    def of_repeat(self, repeat: int) -> LabelledImages:
        """The set of a repeat."""
        rows = self.rows(repeat)
        if rows is None:
            return self.data
        return self.data.at(rows)


def load_set(file: Path, prepared: Path) -> DistilledSet:
    """The distilled set in a file of the stage `distill`.

    A set of the backbone `full` has no images of its own: it is the whole training split.
    """
    tensors = read_tensors(file)
    if "images" in tensors:
        classes = len(class_names(prepared))
        data = LabelledImages(tensors["images"], tensors["labels"], classes, tensors.get("targets"))
        positions = tensors.get("positions")
    else:
        data = load_split(prepared, "train")
        positions = None
    return DistilledSet(
        data=data,
        step_size=number_in(tensors, "step_size"),
        teacher_step_size=number_in(tensors, "teacher_step_size"),
        number=tensors.get("set"),
        positions=positions,
        temperature=number_in(tensors, "temperature"),
        is_whole="images" not in tensors,
    )


def number_in(tensors: dict[str, torch.Tensor], name: str) -> float | None:
    """A scalar among tensors, if it is there."""
    return float(tensors[name]) if name in tensors else None
