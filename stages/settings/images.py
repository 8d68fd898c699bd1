"""`datasets.<name>.images`: what the images of a data set are and how they are normalised."""

from typing import Literal

from stages.settings.section import Count, Positive, Section

__all__ = ["ImageSettings"]


class ImageSettings(Section):
    """Keys of `datasets.<name>.images`."""

    source: (
        str  # digits, cifar10, cifar100, tinyimagenet, imagenette; or a folder with {train,test}/<class>/*
    )
    # gcn-zca: each image is centred and divided by its norm before ZCA, as in RTP's code
    whitening: Literal["gcn-zca", "zca", "none"] = "none"
    mean: list[float] | None = None  # of each channel; null: of the training images. Not used with ZCA
    std: list[Positive] | None = None  # likewise
    resize: Count | None = None  # pixels of the shorter side, before a centre crop to a square
    color: Literal["rgb", "gray"] = "rgb"
    per_class: Count | None = (
        None  # images of each class to keep in either split, the first by name; null: all
    )
    quarter_turns: Literal[0, 1, 2, 3] = (
        0  # by which every image is rotated: images from outside a distribution
    )
