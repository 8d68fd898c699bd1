"""export: write a distilled set in the forms that other people's code reads.

    python -m stages.tools.export <row> <folder>

- `set.safetensors`: images as the network sees them, labels (soft ones as `targets`, beside the likeliest
  class of each image), the learned step size, the temperature that ships with the set, and as metadata the
  settings: of the distillation, of the images, and of the training of networks that the temperature is for;
- `transform.safetensors`: how the pixels of any image become what the network sees, see `Transform`;
- `images_best.pt`, `labels_best.pt`: the pair that MTT's code and its successors load, with the same images;
  soft labels are probabilities `(N, K)`, which PyTorch's cross-entropy takes as they are;
- `lr_best.pt`, `temperature.txt`: the step size and the temperature once more, for those who load the pair;
- `pictures/<class>/<n>.png`: the images in 8 bits a channel, with the whitening undone and values cut to
  [0, 255], so that some of what they hold is lost.

The stage `temperature` makes the temperature; where it has not run, the set is exported without one. This is
no stage of the pipeline: it takes sets out of it. A row with `backbone: file` takes them in.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from stages.images.distilled import load_set
from stages.images.prepared import class_names, load_transform
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_about, read_result, read_tensors, write_tensors
from stages.runtime.reuse import file_hash
from stages.settings.rows import Row
from stages.settings.train import TrainKeys
from stages.training.groups import own_settings, train_settings

__all__ = ["export"]


def export(row: Row, folder: Path) -> None:
    """Write all forms of the row's distilled set to `folder`, which must not exist yet.

    Where a row has several sets, `set.safetensors` has them all, and the other forms have the first.

    Raises:
        UserError: the folder exists, or the set does not.
    """
    if not row.distilled.exists():
        raise UserError(f"{row.distilled} is not there yet; dvc repro distill@{row.name} makes it")
    if folder.exists():
        raise UserError(f"{folder}: exists; allowed: a new folder")
    distilled = load_set(row.distilled, row.prepared)
    data = distilled.of_repeat(0)
    images = data.images[:]
    temperature = distilled.temperature or shipped_temperature(row)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        write_set(row, temperature, unfinished / "set.safetensors")
        shutil.copy(row.prepared / "transform.safetensors", unfinished)
        torch.save(images, unfinished / "images_best.pt")
        torch.save(data.soft_or_hard, unfinished / "labels_best.pt")
        if distilled.step_size is not None:
            torch.save(torch.tensor(distilled.step_size), unfinished / "lr_best.pt")
        if temperature is not None:
            (unfinished / "temperature.txt").write_text(f"{temperature!r}\n")
        write_pictures(images, data.labels, row.prepared, unfinished / "pictures")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def shipped_temperature(row: Row) -> float | None:
    """The temperature that the stage `temperature` has made for this very set.

    None, and a line that says so, where it has not.
    """
    shipped = read_result(row.shipped, {})
    if shipped.get("set") == file_hash(row.distilled):
        return shipped["temperature"]
    problem = f"{row.shipped} is of an earlier set" if shipped else f"{row.shipped} is not there yet"
    advice = f"python -m stages.temperature {row.name} makes it"
    print(f"exported without a temperature: {problem}; {advice}", file=sys.stderr)
    return None


def write_set(row: Row, temperature: float | None, file: Path) -> None:
    """Write the row's set, with its settings as metadata and with the temperature."""
    tensors = read_tensors(row.distilled)
    if temperature is not None:
        tensors["temperature"] = torch.tensor(temperature, dtype=torch.float64)
    write_tensors(file, tensors, read_about(row.distilled) | settings_of_use(row))


def settings_of_use(row: Row) -> dict[str, Any]:
    """How the set's images were normalised, and how the networks are trained that its temperature is for.

    The `source` of the images is left out, as it may be a path of this machine.
    """
    images = {key: value for key, value in row.dataset.value("images").items() if key != "source"}
    keys = row.keys(TrainKeys)
    training = keys.model_dump(exclude={"train"}) | own_settings(keys, train_settings()).model_dump()
    return {"images": images, "training": training}


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
