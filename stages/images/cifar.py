"""CIFAR-10 and CIFAR-100 as their archives unpack.

Alex Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.images.archives import ARCHIVES
from stages.images.split import Split, first_of_each_class, shortened
from stages.runtime.errors import UserError
from stages.settings.images import ImageSettings

if TYPE_CHECKING:  # torchvision imports torch, which takes seconds
    from torchvision.datasets import CIFAR10

__all__ = ["FOLDERS", "Cifar"]

FOLDERS = (ARCHIVES["cifar10"].folder, ARCHIVES["cifar100"].folder)

TRAINING_IMAGES = 50_000  # of all classes together, in equal numbers


class Cifar:
    """One of the two data sets.

    Raises:
        UserError: a file is missing or has another checksum.
    """

    def __init__(self, folder: Path, settings: ImageSettings):
        self.folder = folder
        self.per_class = settings.per_class
        self.classes = self._load(train=True).classes
        count = TRAINING_IMAGES // len(self.classes)
        self.counts = shortened([count] * len(self.classes), self.per_class)

    def read(self, cache: Path | None) -> dict[str, Split]:
        """Both splits. The cache is not used, as there is nothing to decode."""
        return {"train": self._split(train=True), "test": self._split(train=False)}

    def _split(self, train: bool) -> Split:
        data = self._load(train)
        images = data.data.transpose(0, 3, 1, 2)
        labels = np.array(data.targets, np.int64)
        return first_of_each_class(Split(images, labels), self.per_class)

    def _load(self, train: bool) -> "CIFAR10":
        """torchvision's data set, which checks the checksum of every file before it opens it."""
        from torchvision.datasets import CIFAR10, CIFAR100

        kind = CIFAR10 if self.folder.name == CIFAR10.base_folder else CIFAR100
        try:
            return kind(self.folder.parent, train)
        except RuntimeError as problem:
            raise UserError(f"{self.folder}: {problem}") from None
