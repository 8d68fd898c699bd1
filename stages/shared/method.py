"""What a distillation backbone is: the interface between `stages/distill.py` and the files of `stages/distillers`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages
from stages.shared.masking import mask_images
from stages.shared.randomness import generator
from stages.shared.sampling import per_class

__all__ = ["Method", "Problem", "Variable"]

Gradients = dict[str, torch.Tensor]


@dataclass
class Variable:
    """A tensor that is learned, with its own SGD."""

    value: torch.Tensor
    lr: float
    momentum: float = 0.0
    positive: bool = False  # an update that would leave (0, inf) is skipped


@dataclass(frozen=True)
class Problem:
    """What a backbone is given."""

    real: LabelledImages  # the training images, on the device
    network: FlatNetwork
    ipc: int | None
    mdt: float | list[float]  # mask ratio of the synthetic images while distilling, or the range it is drawn from
    reads: Path  # the file or folder that the row reads, e.g. a buffer
    seed: int
    prepared: Path = Path()  # the prepared data set: its class names and its transform

    def real_rows(self) -> torch.Tensor:
        """`ipc` random real images of each class: where backbones start, and what `random` keeps."""
        draw = generator(self.seed, "real images")
        return per_class(self.real.labels, self.real.classes, lambda _: self.ipc, draw)

    def mask(self, iteration: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """The mask operator of one iteration: `mask(images, step)` multiplies by step's own binary mask.

        MDT has one ratio for all iterations, MDT_ds draws it uniformly from its range at each (Sections 4.2 and 5.3).
        """
        low, high = (self.mdt, self.mdt) if isinstance(self.mdt, (int, float)) else self.mdt
        ratio = low + (high - low) * float(torch.rand((), generator=generator(self.seed, "mdt", iteration)))
        return lambda images, step: mask_images(images, ratio, generator(self.seed, "mdt", iteration, step))


@dataclass
class Method:
    """A backbone at work.

    `steps(iteration)` yields `(loss, gradients by variable)` once per update; the variables are updated in place between
    yields. `images()` gives the synthetic images `(N, C, H, W)` for the variables' present values.
    """

    images: Callable[[], torch.Tensor] | None  # None: the training split itself, which is not copied
    labels: torch.Tensor  # (N,) int64
    iterations: int = 0
    variables: dict[str, Variable] = field(default_factory=dict)
    steps: Callable[[int], Iterator[tuple[torch.Tensor, Gradients]]] | None = None
