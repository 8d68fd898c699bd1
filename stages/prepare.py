"""prepare: images of a data set -> one tensor a split, with the transform that normalises or whitens them.

    python -m stages.prepare <dataset>
"""

from pathlib import Path

import numpy as np
import torch

from stages.shared.archives import data_root
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_json, write_tensors
from stages.shared.images import Transform
from stages.shared.settings import find, param, parse
from stages.shared.sources import ImageSettings, read_images

ZCA_EPS = 0.1


def prepare(settings: ImageSettings, folder: Path, key: str = "images", root: Path = Path("data/raw"), cache: Path | None = None) -> None:
    """Write `{train,test,transform}.safetensors` and `info.json` (classes, shape, counts) to `folder`.

    Args:
        root: where copies of the paper's data sets lie or are fetched to.
        cache: a folder to keep decoded pictures in.

    Raises:
        UserError: the source is not there and cannot be fetched into `root`, or is not usable; see `stages/shared/sources.py`.
    """
    classes, splits = read_images(settings, key, root, cache)
    turned = {name: torch.from_numpy(np.ascontiguousarray(np.rot90(split.images, settings.quarter_turns, (2, 3)))) for name, split in splits.items()}
    for name, split in splits.items():
        write_tensors(folder / f"{name}.safetensors", {"images": turned[name], "labels": torch.from_numpy(split.labels)})
    transform = fit_transform(turned["train"], settings, key)
    write_tensors(folder / "transform.safetensors", transform._asdict())
    counts = {name: torch.from_numpy(split.labels).bincount().tolist() for name, split in splits.items()}
    write_json(folder / "info.json", {"classes": classes, "shape": list(turned["train"].shape[1:]), "counts": counts})


def fit_transform(images: torch.Tensor, settings: ImageSettings, key: str) -> Transform:
    """ZCA whitening fitted on all training images, or a mean and a standard deviation per channel."""
    if settings.whitening == "zca":
        from kornia.enhance import ZCAWhitening

        zca = ZCAWhitening(eps=ZCA_EPS, compute_inv=True).fit(images / 255)
        return Transform(zca.mean_vector.flatten(), zca.transform_matrix, zca.transform_inv)
    channels = images.shape[1]
    for name, value in (("mean", settings.mean), ("std", settings.std)):
        if value is not None and len(value) != channels:
            raise UserError(f"{key}.{name}: {value} has {len(value)} numbers; allowed: one for each of {channels} channels")
    mean, std = (torch.tensor(given) if given else None for given in (settings.mean, settings.std))
    if mean is None or std is None:
        moments = channel_moments(images)
        mean, std = moments[0] if mean is None else mean, moments[1] if std is None else std
    return Transform(mean, 1 / std, std)


def channel_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel of `(N, C, H, W)` uint8 images in [0, 1], from how often each level occurs."""
    levels, counts = torch.arange(256, dtype=torch.float64) / 255, torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for part in images.split(1000):
        counts += torch.stack([part[:, channel].flatten().bincount(minlength=256) for channel in range(images.shape[1])])
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().float()


def main(dataset: str) -> None:
    key = f"datasets.{dataset}.images"
    settings = parse(ImageSettings, find("datasets", dataset)[0].get("images"), key)
    prepare(settings, Path("data/prepare") / dataset, key, data_root(param("data_root")), Path("scratch/decoded"))


if __name__ == "__main__":
    run_stage(main)
