"""The data sets of the suites, which need not be there, and the networks for them."""

from functools import cache
from typing import NamedTuple

import torch

from benchmarks.counted import META, NUMBER, Subject
from stages.networks import alexnet, convnet, mlp, resnet18, vgg11
from stages.settings.images import ImageSettings
from stages.settings.network import NetworkSettings
from stages.settings.rows import Dataset
from stages.settings.section import parse
from stages.training.flat import FlatNetwork

__all__ = ["CHANNELS", "Images", "built", "images_of", "subject_of"]


class Split(NamedTuple):
    """A published data set."""

    classes: int
    side: int | None  # pixels; None: the settings resize it
    train: int  # images
    test: int


SOURCES = {
    "cifar10": Split(10, 32, 50_000, 10_000),
    "cifar100": Split(100, 32, 50_000, 10_000),
    "tinyimagenet": Split(200, 64, 100_000, 10_000),
    "imagenette": Split(10, None, 9_469, 3_925),
    "imagenet-1k": Split(1000, None, 1_281_167, 50_000),
}
CHANNELS = 3
BUILDERS = {
    "alexnet": alexnet.build,
    "convnet": convnet.build,
    "mlp": mlp.build,
    "resnet18": resnet18.build,
    "vgg11": vgg11.build,
}


class Images(NamedTuple):
    """The images of a data set of a suite."""

    classes: int
    side: int
    train: int
    test: int
    whitened: bool  # then they are kept as float32, and as bytes otherwise

    @property
    def numbers(self) -> int:
        """Of one image."""
        return CHANNELS * self.side**2

    @property
    def loaded(self) -> int:
        """Bytes of the training images in the memory of a stage."""
        return self.train * self.numbers * (NUMBER if self.whitened else 1)


def images_of(dataset: Dataset) -> Images:
    settings = parse(ImageSettings, dataset.value("images"), f"datasets.{dataset.name}.images")
    source = SOURCES[settings.source]
    side = settings.resize or source.side
    assert side is not None, f"{dataset.name}: without `resize`"
    train = source.train if settings.per_class is None else settings.per_class * source.classes
    return Images(source.classes, side, train, source.test, settings.whitening != "none")


def subject_of(dataset: Dataset, network: str = "convnet") -> Subject:
    images = images_of(dataset)
    return built(network, images.side, images.classes, dataset.network)


@cache
def built(name: str, side: int, classes: int, settings: NetworkSettings) -> Subject:
    with torch.device(META):
        module = BUILDERS[name](CHANNELS, side, classes, settings)
    return Subject(FlatNetwork(module), CHANNELS, side, classes)
