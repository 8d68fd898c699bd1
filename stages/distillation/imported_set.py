"""Distilled sets that were made elsewhere; `stages/backbones/file.py` says in which files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stages.distillation.backbone import Problem
from stages.images.prepared import class_names, load_transform
from stages.runtime.errors import UserError
from stages.runtime.pt_files import read_pt

__all__ = ["ImportedSet", "read_set"]


class ImportedSet(NamedTuple):
    images: Tensor  # (N, C, H, W), as the network sees them
    labels: Tensor  # (N,)
    step_size: float | None
    source: Path  # the file or folder that it was read from, for messages


def read_set(problem: Problem) -> ImportedSet:
    """The distilled set in the folder that the row reads: images in float32, labels in int64, on the CPU.

    Raises:
        UserError: the folder holds no set, or one that does not fit the row and its data set.
    """
    imported = read_any(problem)
    check_shapes(imported, problem)
    check_finite(imported)
    labels = class_labels(imported, problem)
    return imported._replace(images=imported.images.float(), labels=labels)


def read_any(problem: Problem) -> ImportedSet:
    """What the first reader finds that knows its kind of file."""
    for reader in (read_pair, read_result, read_safetensors, read_pictures):
        imported = reader(problem)
        if imported is not None:
            return imported
    raise UserError(
        f"{problem.reads}: no distilled set; allowed: images_best.pt with labels_best.pt, res_*.pt, "
        "set.safetensors, or a folder of pictures for each class"
    )


# A reader returns None if the folder has no file of its kind, and raises a UserError if it cannot be read.


def read_pair(problem: Problem) -> ImportedSet | None:
    """`images_best.pt` and `labels_best.pt` of MTT, or one pair with a number in place of `best`."""
    file = images_file(problem.reads)
    if file is None:
        return None
    labels_file = file.with_name(file.name.replace("images", "labels", 1))
    step_size_file = file.with_name(file.name.replace("images", "lr", 1))
    if not labels_file.exists():
        raise UserError(f"{labels_file}: missing beside {file.name}")
    images = read_pt(file)
    labels = read_pt(labels_file)
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(images).__name__}, with labels a {type(labels).__name__}"
        raise UserError(f"{file}: expected a tensor but got {kinds}")
    step_size = read_step_size(step_size_file) if step_size_file.exists() else None
    return ImportedSet(images.detach(), labels.detach(), step_size, file)


def images_file(folder: Path) -> Path | None:
    """`images_best.pt` or, if there is none, the one `images_<number>.pt`."""
    best = folder / "images_best.pt"
    if best.exists():
        return best
    numbered = []
    for file in sorted(folder.glob("images_*.pt")):
        if file.stem.removeprefix("images_").isdigit():
            numbered.append(file)
    if len(numbered) > 1:
        raise UserError(
            f"{folder}: {len(numbered)} files images_<number>.pt; allowed: one, or images_best.pt"
        )
    return numbered[0] if numbered else None


def read_step_size(file: Path) -> float:
    """A number, or a tensor of one, above 0."""
    try:
        step_size = float(torch.as_tensor(read_pt(file)).detach())
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{file}: expected a number") from None
    if not 0 < step_size < float("inf"):
        raise UserError(f"{file}: a step size of {step_size:g}; allowed: a number > 0")
    return step_size


def read_result(problem: Problem) -> ImportedSet | None:
    """`res_*.pt` of DC and DSA, with a pair of images and labels for each of its experiments."""
    files = sorted(problem.reads.glob("res_*.pt"))
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{problem.reads}: {len(files)} files res_*.pt; allowed: one")
    file = files[0]
    content = read_pt(file)
    try:
        images, labels = content["data"][-1]
        return ImportedSet(images.float(), labels.float(), None, file)
    except (TypeError, KeyError, IndexError, ValueError, AttributeError):
        raise UserError(
            f"{file}: expected a dict with `data`, a list of pairs of images and labels"
        ) from None


def read_safetensors(problem: Problem) -> ImportedSet | None:
    """`set.safetensors` of this project."""
    file = problem.reads / "set.safetensors"
    if not file.exists():
        return None
    try:
        tensors = load_file(file)
        images = tensors["images"]
        labels = tensors["labels"]
    except (SafetensorError, KeyError) as mistake:
        raise UserError(f"{file}: not a distilled set: {mistake}") from None
    step_size = float(tensors["step_size"]) if "step_size" in tensors else None
    return ImportedSet(images, labels, step_size, file)


def read_pictures(problem: Problem) -> ImportedSet | None:
    """Pictures in folders named as the classes, whitened or normalised like the images of the data set."""
    folder = problem.reads
    if not folder.is_dir():
        return None
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    if not folders:
        return None
    names = class_names(problem.prepared)
    different = sorted(folders.symmetric_difference(names))
    if different:
        raise UserError(
            f"{folder}: its folders are not the data set's classes "
            f"(only in one of them: {', '.join(different[:5])})"
        )
    channels, height, width = problem.real.images.shape[1:]
    pictures = []
    labels = []
    for k, name in enumerate(names):
        for file in sorted((folder / name).iterdir()):
            pictures.append(read_picture(file, (channels, height, width)))
            labels.append(k)
    if not pictures:
        raise UserError(f"{folder}: no picture in any of its folders")
    pixels = torch.stack(pictures) / 255
    images = load_transform(problem.prepared).forward(pixels)
    return ImportedSet(images, torch.tensor(labels), None, folder)


def read_picture(file: Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture as uint8 pixels of that shape, `(C, H, W)`, in gray or in RGB."""
    channels, height, width = shape
    try:
        with Image.open(file) as picture:
            pixels = np.array(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError) as mistake:
        raise UserError(f"{file}: not a readable image: {mistake}") from None
    if pixels.shape[:2] != (height, width):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UserError(f"{file}: {size} pixels; allowed for this data set: {width}x{height}")
    pixels = pixels.reshape(height, width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def check_shapes(imported: ImportedSet, problem: Problem) -> None:
    """
    Raises:
        UserError: soft labels, or images or labels of another shape than the data set's.
    """
    images = tuple(imported.images.shape)
    labels = tuple(imported.labels.shape)
    if len(labels) == 2:
        raise UserError(
            f"{imported.source}: labels {labels}; allowed: (N,), a class for each image "
            "(soft labels are not supported)"
        )
    allowed = tuple(problem.real.images.shape[1:])
    if len(images) != 4 or images[1:] != allowed or labels != images[:1]:
        sizes = ", ".join(str(size) for size in allowed)
        raise UserError(
            f"{imported.source}: images {images}, labels {labels}; "
            f"allowed for this data set: (N, {sizes}) and (N,)"
        )


def check_finite(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: images with numbers that are not finite.
    """
    wrong = int((~imported.images.isfinite()).sum())
    if wrong:
        raise UserError(f"{imported.source}: images with {wrong} numbers that are not finite")


def class_labels(imported: ImportedSet, problem: Problem) -> Tensor:
    """The labels in int64.

    Raises:
        UserError: labels that are not whole numbers, labels out of range, or a class without exactly `ipc`
            images.
    """
    labels = imported.labels
    classes = problem.real.classes
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"{imported.source}: labels that are not whole numbers")
    labels = labels.long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        limits = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError(f"{imported.source}: labels from {limits}; allowed: 0 to {classes - 1}")
    counts = labels.bincount(minlength=classes).tolist()
    if set(counts) != {problem.ipc}:
        limits = f"{min(counts)} to {max(counts)}"
        raise UserError(f"{imported.source}: {limits} images a class, but the row's ipc is {problem.ipc}")
    return labels
