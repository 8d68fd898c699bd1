"""export: write a distilled set in the forms that other people's code reads.

    python -m stages.tools.export <row> <folder>

- `set.safetensors`: images as the network sees them, labels, the learned step size, and the settings as
  metadata;
- `images_best.pt`, `labels_best.pt`: the pair that MTT's code and its successors load, with the same images;
- `pictures/<class>/<n>.png`: the images in 8 bits a channel, with the whitening undone and values cut to
  [0, 255], so that some of what they hold is lost.

It is no stage of the pipeline: it takes sets out of it. A row with `backbone: file` takes them in.
"""

import os
import shutil
from pathlib import Path

import torch
from PIL import Image

from stages.images.prepared import class_names, load_set, load_transform
from stages.runtime.errors import UserError, run_stage
from stages.settings.rows import Row

__all__ = ["export"]


def export(row: Row, folder: Path) -> None:
    """Write all forms of the row's distilled set to `folder`, which must not exist yet.

    Raises:
        UserError: the folder exists, or the set does not.
    """
    if not row.distilled.exists():
        raise UserError(f"{row.distilled} is not there yet; dvc repro distill@{row.name} makes it")
    if folder.exists():
        raise UserError(f"{folder}: exists; allowed: a new folder")
    data, _ = load_set(row.distilled, row.prepared)
    images = data.images[:]
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        shutil.copy(row.distilled, unfinished / "set.safetensors")
        torch.save(images, unfinished / "images_best.pt")
        torch.save(data.labels, unfinished / "labels_best.pt")
        write_pictures(images, data.labels, row.prepared, unfinished / "pictures")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_pictures(images: torch.Tensor, labels: torch.Tensor, prepared: Path, folder: Path) -> None:
    """Write `(N, C, H, W)` images, as the network sees them, to `<folder>/<class>/<n>.png`."""
    names = class_names(prepared)
    pixels = load_transform(prepared).backward(images) * 255
    pictures = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    for i, (picture, label) in enumerate(zip(pictures, labels.tolist())):
        file = folder / names[label] / f"{i:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        gray = picture.shape[2] == 1
        Image.fromarray(picture.squeeze(2) if gray else picture).save(file)


def main(*words: str) -> None:
    if len(words) != 2:
        raise UserError(f"export: {len(words)} words; allowed: python -m stages.tools.export <row> <folder>")
    name, folder = words
    export(Row(name), Path(folder))


if __name__ == "__main__":
    run_stage(main)
