"""What training minimises: the loss of a network on a batch. The accuracy is computed beside it."""

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import NamedTuple

import torch

from stages.settings.section import Section
from stages.training.flat import FlatNetwork

__all__ = ["Loss", "Objective"]


class Loss(NamedTuple):
    """A module of `stages/losses` with its settings.

    The module has two functions: `mix(images, targets, drawn, settings)` changes batches before the
    networks see them, and `loss(logits, targets, settings)` is the mean loss of a batch. What `mix` needs at
    random comes from a third, `draw(count, draws, settings)`, if there is one. A module whose loss makes no
    sense with soft labels has `NEEDS_CLASSES = True` besides.
    """

    module: ModuleType
    settings: Section | None = None  # has the keys that the module reads; None: it reads no key

    def draw(self, count: int, draws: torch.Generator) -> dict[str, torch.Tensor]:
        """Random tensors on the CPU for `mix`, for a batch of `count` images."""
        draw = getattr(self.module, "draw", None)
        return draw(count, draws, self.settings) if draw else {}

    def mix(
        self, images: torch.Tensor, targets: torch.Tensor, drawn: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change the batches `(..., N, C, H, W)` and `(..., N, K)` of one or more networks.

        Args:
            drawn: as from `draw`, with the same dimensions in front.
        """
        return self.module.mix(images, targets, drawn, self.settings)

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.module.loss(logits, targets, self.settings)

    @property
    def needs_classes(self) -> bool:
        """Whether every image has to have one class as its label."""
        return getattr(self.module, "NEEDS_CLASSES", False)

    @property
    def key(self) -> tuple[str, str]:
        """The name of the module and its settings as text, which are equal for equal losses."""
        settings = self.settings.model_dump_json() if self.settings else ""
        return self.module.__name__, settings

    def __reduce__(self) -> tuple:
        """For pickle, which takes no modules: the module by its name."""
        return _loss_of, (self.module.__name__, self.settings)


def _loss_of(module: str, settings: Section | None) -> Loss:
    return Loss(importlib.import_module(module), settings)


class Objective:
    """The mean loss and the accuracy of a network on a batch, both as scalars.

    The batch is `(B, C, H, W)` images and `(B, K)` targets.

    Args:
        precision: of the network's products; the loss is float32 in any case. "bfloat16" is seen to here,
            "tf32" by the loop of the training.
    """

    def __init__(self, network: FlatNetwork, loss: Loss, precision: str = "float32"):
        self.network = network
        self.loss = loss
        self.precision = precision

    def of_forward(
        self, forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For a function from images to logits."""
        return self.of_logits(self.logits(forward, images), targets)

    def logits(self, forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """What a function makes of images, in their dtype whatever the precision is."""
        low_precision = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            return forward(images).to(images.dtype)

    def of_logits(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For logits `(B, K)`."""
        right = logits.argmax(1) == targets.argmax(1)
        return self.loss(logits, targets), right.float().mean()

    def of_weights(
        self, theta: torch.Tensor, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For weights `(P,)`, as a pure function of them."""
        return self.of_forward(partial(self.network, theta), images, targets)

    @property
    def key(self) -> tuple[str, ...]:
        """Text that is equal for equal objectives of one network."""
        return *self.loss.key, self.precision
