"""export: a distilled set in the forms that other people's code reads.

    python -m stages.export <row> <folder>

- `set.safetensors`: images as the network sees them, labels, the learned step size, and the settings as metadata;
- `images_best.pt`, `labels_best.pt`: the pair that MTT's code and its successors load, of the same images;
- `pictures/<class>/<n>.png`: 8 bits a channel, whitening undone and cut to [0, 255], so some of it is lost.

No stage of the pipeline: it is for taking sets out of it. A row with `backbone: file` takes them in.
"""

import os
import shutil
from pathlib import Path

import torch
from PIL import Image

from stages.shared.errors import UserError, run_stage
from stages.shared.images import class_names, load_set, load_transform
from stages.shared.settings import find

__all__ = ["export"]


def export(distilled: Path, prepared: Path, folder: Path) -> None:
    """Write all forms of `distilled` (a `set.safetensors`) to `folder`, which must not exist yet."""
    if folder.exists():
        raise UserError(f"{folder}: exists; allowed: a new folder")
    data, _ = load_set(distilled, prepared)
    images = data.images[:]
    pixels = (load_transform(prepared).backward(images) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    names, here = class_names(prepared), folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (here / "pictures").mkdir(parents=True)
        shutil.copy(distilled, here / "set.safetensors")
        torch.save(images, here / "images_best.pt")
        torch.save(data.labels, here / "labels_best.pt")
        for i, (picture, label) in enumerate(zip(pixels, data.labels.tolist())):
            (here / "pictures" / names[label]).mkdir(exist_ok=True)
            Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(here / "pictures" / names[label] / f"{i:05}.png")
        here.rename(folder)
    finally:
        shutil.rmtree(here, ignore_errors=True)


def main(*words: str) -> None:
    if len(words) != 2:
        raise UserError(f"export: {len(words)} words; allowed: python -m stages.export <row> <folder>")
    name, folder = words
    row, _ = find("runs", name)
    distilled = Path("data/distill") / name / "set.safetensors"
    if not distilled.exists():
        raise UserError(f"{distilled} is not there yet; dvc repro distill@{name} makes it")
    export(distilled, Path("data/prepare") / row["dataset"], Path(folder))


if __name__ == "__main__":
    run_stage(main)
