"""What a backbone is: the interface between `stages/distill.py` and the files of stages/backbones.

A backbone is a file with two names. `Settings` declares the keys of a row's `distill:`, and `start(problem,
settings)` returns a `Backbone`: the synthetic images, the variables that are learned, and a generator that
yields losses and gradients. SGD on the variables, updates that have to be skipped, checkpoints and the
curve are the same for all backbones: learn.py has them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stages.images.masking import Masks
from stages.images.prepared import LabelledImages
from stages.images.sampling import per_class
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork

__all__ = ["Backbone", "Gradients", "Problem", "Update", "Variable"]

Gradients = dict[str, Tensor]  # by variable, each of its variable's shape
Update = tuple[Tensor, Gradients]  # the loss, a scalar, and its gradients


@dataclass(frozen=True)
class Problem:
    """What a backbone is given."""

    real: LabelledImages  # the training images, on the device to compute on
    network: FlatNetwork  # the network to distil for
    ipc: int  # synthetic images per class; 0 with backbone `full`, which takes all real images
    mdt: float | list[float]  # mask ratio while distilling, or the range that it is drawn from
    reads: Path  # the file or folder that the row reads beside the images, e.g. a buffer
    seed: int
    prepared: Path = Path()  # the folder of the prepared images, which also has the class names

    def real_rows(self, number: int = 0) -> Tensor:
        """Positions of `ipc` random real images of each class, `(classes * ipc,)`, class by class.

        MTT and DSA start from the first draw, and `random` keeps several draws as they are.
        """
        draws = generator(self.seed, "real images", *([number] if number else []))
        return per_class(self.real.labels, self.real.classes, lambda size: self.ipc, draws)

    def mask(self, iteration: int) -> Masks:
        """The masks of one iteration.

        MDT has one mask ratio for all iterations; MDT_ds draws a new one from its range at each iteration
        (Sections 4.2 and 5.3 of the paper).
        """
        low, high = self.mdt if isinstance(self.mdt, list) else [self.mdt, self.mdt]
        position = torch.rand((), generator=generator(self.seed, "mdt", iteration))
        ratio = low + (high - low) * float(position)
        return Masks(ratio, (self.seed, "mdt", iteration))


@dataclass
class Variable:
    """A tensor that is learned by SGD with a learning rate and a momentum of its own."""

    value: Tensor
    lr: float
    momentum: float = 0.0
    positive: bool = False  # an update that would leave (0, inf) is skipped


def no_updates(iteration: int) -> Iterator[Update]:
    """The updates of a backbone that learns nothing."""
    yield from ()


@dataclass
class Backbone:
    """A backbone at work on a problem.

    `updates(iteration)` yields a loss and the gradients of all variables, once for each update in an
    iteration. The variables are updated between two yields, so each gradient has to be taken at their
    present values. What it yields has to depend on the iteration and on these values alone, so that a
    killed distillation can go on where it was.

    Args:
        images: returns the synthetic images at present, `(N, C, H, W)`; None stands for all real images.
        labels: of the synthetic images, `(N,)` int64; where labels are soft, the likeliest class of each.
        targets: soft labels, `(N, K)` probabilities; None: labels are hard.
        number: the set of each image, `(N,)` int64, where there are several; None: there is one set.
        positions: of the images among the real ones, `(N,)` int64, where they are real images.
        teacher_step_size: the step size that `step_size` starts from; None: there is none.
        temperature: that came with a set; None: there is none.
        precision: of the products, a value of `Precision` in stages/settings/section.py. `learn` sees to
            "tf32", and the backbone itself to "bfloat16".
        memory: the settings that an update needs less memory with if they are lower, with their values.
        variables: what is learned, by name; a scalar is a column of the curve, and the value of a variable
            `step_size` is saved with the images.
    """

    images: Callable[[], Tensor] | None
    labels: Tensor
    iterations: int = 0
    variables: dict[str, Variable] = field(default_factory=dict)
    updates: Callable[[int], Iterator[Update]] = no_updates
    number: Tensor | None = None
    positions: Tensor | None = None
    teacher_step_size: float | None = None
    temperature: float | None = None
    targets: Tensor | None = None
    precision: str = "float32"
    memory: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_real_images(cls, problem: Problem, sets: list[Tensor]) -> "Backbone":
        """A backbone that keeps real images as they are.

        Args:
            sets: the positions of the images of each set.
        """
        rows = torch.cat(sets)
        number = torch.cat([torch.full((len(of_set),), i) for i, of_set in enumerate(sets)])
        return cls(
            images=lambda: problem.real.images[rows],
            labels=problem.real.labels[rows],
            number=number if len(sets) > 1 else None,
            positions=rows,
        )
