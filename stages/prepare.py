"""prepare: images of a data set -> one tensor a split, with the transform that normalises or whitens them.

    python -m stages.prepare <dataset>
"""

from pathlib import Path

import torch

from stages.shared.archives import data_root
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_json, write_tensors
from stages.shared.images import Transform
from stages.shared.settings import find, param, parse
from stages.shared.sources import ImageSettings, read_images

ZCA_EPS = 0.1


def prepare(settings: ImageSettings, folder: Path, key: str = "images", root: Path = Path("data/raw")) -> None:
    """Write `{train,test,transform}.safetensors` and `info.json` (classes, shape, counts) to `folder`.

    Raises:
        UserError: the source is not there and cannot be fetched into `root`, or is not usable; see `stages/shared/sources.py`.
    """
    classes, splits = read_images(settings, key, root)
    for name, split in splits.items():
        images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        write_tensors(folder / f"{name}.safetensors", {"images": images, "labels": labels})
    transform = fit_transform(torch.from_numpy(splits["train"].images), settings, key)
    write_tensors(folder / "transform.safetensors", transform._asdict())
    counts = {name: torch.from_numpy(split.labels).bincount().tolist() for name, split in splits.items()}
    write_json(folder / "info.json", {"classes": classes, "shape": list(images.shape[1:]), "counts": counts})


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
    pixels = images.transpose(0, 1).flatten(1)
    mean = torch.tensor(settings.mean) if settings.mean else torch.stack([p.double().mean() for p in pixels]).float() / 255
    std = torch.tensor(settings.std) if settings.std else torch.stack([p.double().std() for p in pixels]).float() / 255
    return Transform(mean, 1 / std, std)


def main(dataset: str) -> None:
    key = f"datasets.{dataset}.images"
    settings = parse(ImageSettings, find("datasets", dataset)[0].get("images"), key)
    prepare(settings, Path("data/prepare") / dataset, key, data_root(param("data_root")))


if __name__ == "__main__":
    run_stage(main)
