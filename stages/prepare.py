"""prepare: images of a data set -> one tensor a split, with the transform that normalises or whitens them.

    python -m stages.prepare <dataset>

The transform is fitted on the training images.
"""

from pathlib import Path

import numpy as np
import torch

from stages.images.archives import data_root
from stages.images.prepared import Transform
from stages.images.sources import read_images
from stages.images.split import Split
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_json, write_tensors
from stages.settings.images import ImageSettings
from stages.settings.project import param
from stages.settings.rows import Dataset
from stages.settings.section import parse

__all__ = ["channel_moments", "fit_transform", "prepare", "prepare_images"]

DECODED = Path("scratch/decoded")
ZCA_EPS = 0.1  # added to the covariance's eigenvalues, as in MTT's code


def prepare(dataset: Dataset) -> None:
    """Write the prepared images of a data set. Its pictures, if it has any, are decoded once and kept."""
    key = f"datasets.{dataset.name}.images"
    settings = parse(ImageSettings, dataset.value("images"), key)
    root = data_root(param("data_root"))
    prepare_images(settings, dataset.prepared, key, root, DECODED)


def prepare_images(
    settings: ImageSettings,
    folder: Path,
    key: str = "images",
    root: Path = Path("data/raw"),
    cache: Path | None = None,
) -> None:
    """Write to `folder`: `{train,test,transform}.safetensors`, and `info.json` (classes, shape, counts).

    Args:
        key: the key of `settings`, for messages.
        root: the folder of the data sets' copies; what is not there is fetched.
        cache: a folder to keep decoded pictures in; None keeps nothing.

    Raises:
        UserError: the images cannot be read, see `read_images`, or `mean` or `std` have the wrong length.
    """
    classes, splits = read_images(settings, key, root, cache)
    images = {name: _turned(split, settings) for name, split in splits.items()}
    counts = {}
    for name, split in splits.items():
        labels = torch.from_numpy(split.labels)
        counts[name] = labels.bincount().tolist()
        write_tensors(folder / f"{name}.safetensors", {"images": images[name], "labels": labels})
    transform = fit_transform(images["train"], settings, key)
    write_tensors(folder / "transform.safetensors", transform._asdict())
    shape = list(images["train"].shape[1:])
    write_json(folder / "info.json", {"classes": classes, "shape": shape, "counts": counts})


def _turned(split: Split, settings: ImageSettings) -> torch.Tensor:
    """The images of a split, rotated by the settings' quarter turns."""
    turned = np.rot90(split.images, settings.quarter_turns, axes=(2, 3))
    return torch.from_numpy(np.ascontiguousarray(turned))


def fit_transform(images: torch.Tensor, settings: ImageSettings, key: str) -> Transform:
    """ZCA whitening, fitted on all training images, or a mean and a standard deviation of each channel.

    Args:
        images: `(N, C, H, W)` uint8.
        key: the key of `settings`, for messages.
    """
    if settings.whitening == "zca":
        return _fit_zca(images)
    channels = images.shape[1]
    mean = _given(settings.mean, channels, f"{key}.mean")
    std = _given(settings.std, channels, f"{key}.std")
    if mean is None or std is None:
        fitted_mean, fitted_std = channel_moments(images)
        mean = fitted_mean if mean is None else mean
        std = fitted_std if std is None else std
    return Transform(mean, 1 / std, std)


def _fit_zca(images: torch.Tensor) -> Transform:
    from kornia.enhance import ZCAWhitening

    zca = ZCAWhitening(eps=ZCA_EPS, compute_inv=True)
    zca.fit(images / 255)
    return Transform(zca.mean_vector.flatten(), zca.transform_matrix, zca.transform_inv)


def _given(values: list[float] | None, channels: int, key: str) -> torch.Tensor | None:
    """The numbers of a key, one for each channel; None if the settings leave them to the images."""
    if values is None:
        return None
    if len(values) != channels:
        allowed = f"one for each of {channels} channels"
        raise UserError(f"{key}: {values} has {len(values)} numbers; allowed: {allowed}")
    return torch.tensor(values)


def channel_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, from how often each of the 256 levels occurs.

    Args:
        images: `(N, C, H, W)` uint8.

    Returns:
        Two `(C,)` tensors, of the images' values in [0, 1].
    """
    channels = images.shape[1]
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in images.split(1000):  # bincount makes int64 copies
        for channel in range(channels):
            counts[channel] += part[:, channel].flatten().bincount(minlength=256)
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().float()


def main(name: str) -> None:
    prepare(Dataset(name))


if __name__ == "__main__":
    run_stage(main)
