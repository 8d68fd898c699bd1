"""prepare: images of a data set -> one tensor a split, with the transform that normalises or whitens them.

    python -m stages.prepare <dataset>

The transform is fitted on the training images.
"""

from pathlib import Path

import numpy as np
import torch

from stages.images.archives import data_root
from stages.images.prepared import Transform, at_contrast
from stages.images.sources import read_images
from stages.images.split import Split
from stages.images.standardised import channel_moments
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import write_result, write_tensors
from stages.settings.images import ImageSettings
from stages.settings.project import param
from stages.settings.rows import Dataset
from stages.settings.section import parse
from stages.tools.records import recorded

__all__ = ["channel_moments", "fit_transform", "prepare", "prepare_images"]

DECODED = Path("scratch/decoded")
ZCA_EPS = 0.1  # added to the covariance's eigenvalues, as in MTT's code
GCN_ZCA_SHARE = 0.1  # of the mean eigenvalue, which is added to each eigenvalue, as in RTP's code
FITTED_TOGETHER = 10_000  # images; more at once need more memory for their copies in float64


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
    fitted = {key: tensor for key, tensor in transform._asdict().items() if tensor is not None}
    write_tensors(folder / "transform.safetensors", fitted)
    shape = list(images["train"].shape[1:])
    write_result(folder / "info.json", {"classes": classes, "shape": shape, "counts": counts})


def _turned(split: Split, settings: ImageSettings) -> torch.Tensor:
    """The images of a split, rotated by the settings' quarter turns."""
    turned = np.rot90(split.images, settings.quarter_turns, axes=(2, 3))
    return torch.from_numpy(np.ascontiguousarray(turned))


def fit_transform(images: torch.Tensor, settings: ImageSettings, key: str) -> Transform:
    """The whitening that the settings name, fitted on all training images.

    Args:
        images: `(N, C, H, W)` uint8.
        key: the key of `settings`, for messages.

    Raises:
        UserError: a channel is the same in all images, so that nothing can be divided by its deviation.
    """
    spread = images.amax((0, 2, 3)) - images.amin((0, 2, 3))
    constant = (spread == 0).nonzero().flatten().tolist()
    if constant:
        raise UserError(f"{key}.source: channel {constant[0]} has the same value in all training images")
    if settings.whitening == "zca":
        return _fit_zca(images)
    if settings.whitening == "gcn-zca":
        return _fit_gcn_zca(images)
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


def _fit_gcn_zca(images: torch.Tensor) -> Transform:
    """Global contrast normalisation, then ZCA whitening.

    Source: `preprocess` in utils/data_utils.py of
    https://github.com/princetonvisualai/RememberThePast-DatasetDistillation. There each image, with the mean
    of all its values subtracted and divided by its L2 norm, is multiplied by `V (E + 0.1 mean(E))^-1/2 V^T`.
    `V` and `E` are the eigenvectors and eigenvalues of the mean of `x^T x`; no mean image is subtracted.

    Here images are scaled to the mean norm of the training images instead of 1, and the matrix is divided by
    it. The product is the same, and `Transform.backward` gives pictures that can be looked at.
    """
    size = images[0].numel()
    moments = torch.zeros(size, size, dtype=torch.float64)
    brightness = torch.zeros((), dtype=torch.float64)
    contrast = torch.zeros((), dtype=torch.float64)
    for part in images.split(FITTED_TOGETHER):
        pixels = part.double() / 255
        flat = pixels.flatten(1)
        brightness += flat.mean(1).sum()
        contrast += flat.std(1, correction=0).sum() * size**0.5  # the norms of the centred images
        normalised = at_contrast(pixels, 1.0).flatten(1)
        moments += normalised.T @ normalised
    count = len(images)
    brightness = brightness / count
    contrast = contrast / count
    eigenvalues, vectors = torch.linalg.eigh(moments / count)
    scales = (eigenvalues + GCN_ZCA_SHARE * eigenvalues.mean()).sqrt()
    matrix = (vectors / scales) @ vectors.T / contrast
    inverse = (vectors * scales) @ vectors.T * contrast
    return Transform(brightness.repeat(size).float(), matrix.float(), inverse.float(), contrast.float())


def _given(values: list[float] | None, channels: int, key: str) -> torch.Tensor | None:
    """The numbers of a key, one for each channel; None if the settings leave them to the images."""
    if values is None:
        return None
    if len(values) != channels:
        allowed = f"one for each of {channels} channels"
        raise UserError(f"{key}: {values} has {len(values)} numbers; allowed: {allowed}")
    return torch.tensor(values)


def main(name: str) -> None:
    prepare(Dataset(name))


if __name__ == "__main__":
    run_stage(recorded(main))
