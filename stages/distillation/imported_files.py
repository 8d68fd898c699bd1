"""The files that hold a distilled set: of MTT, of DC and DSA, of this project, and folders of pictures."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from stages.distillation.backbone import Problem
from stages.images.decoded import open_picture
from stages.images.distilled import number_in
from stages.images.prepared import class_names, load_transform
from stages.runtime.checksums import check_brought
from stages.runtime.errors import UserError
from stages.runtime.files import read_tensors
from stages.runtime.pt_files import read_pt
from stages.settings.rows import DATA

__all__ = ["ImportedSet", "read_files"]


class ImportedSet(NamedTuple):
    images: Tensor  # (N, C, H, W), as the network sees them
    labels: Tensor  # (N,) classes; from a file also (N, K) soft labels, of which `targets` are made
    source: Path  # the file or folder that it was read from, for messages
    step_size: float | None = None
    teacher_step_size: float | None = None
    number: Tensor | None = None  # (N,) int64: the set of each image, where there are several
    temperature: float | None = None
    positions: Tensor | None = None  # (N,) int64 among the training images, if they are real images
    room: int | None = None  # the images of each class whose room the set takes, if the file says so
    targets: Tensor | None = None  # (N, K) float32: the probabilities of soft labels


def read_files(problem: Problem) -> ImportedSet:
    """What the first reader finds that knows its kind of file.

    A folder of `stages.tools.export` has several kinds, and `set.safetensors` is the one that holds all.
    """
    for reader in (read_safetensors, read_pair, read_result, read_pictures):
        imported = reader(problem)
        if imported is not None:
            return imported
    raise UserError(
        f"{problem.reads}: no distilled set; allowed: images_best.pt with labels_best.pt, res_*.pt, "
        "set.safetensors, or a folder of pictures for each class"
    )


# A reader returns None if the folder has no file of its kind, and raises a UserError if it cannot be read.


def read_pair(problem: Problem) -> ImportedSet | None:
    """`images_best.pt` and `labels_best.pt` of MTT, or a pair with a number or nothing in place of `best`."""
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
    return ImportedSet(images.detach(), labels.detach(), file, step_size)


def images_file(folder: Path) -> Path | None:
    """`images_best.pt`, or `images.pt`, or the one `images_<number>.pt`: the first that is there."""
    for name in ("images_best.pt", "images.pt"):
        if (folder / name).exists():
            return folder / name
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
    """`res_*.pt` of DC and DSA, with a set, which is a pair of images and labels, for each experiment."""
    files = sorted(problem.reads.glob("res_*.pt"))
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{problem.reads}: {len(files)} files res_*.pt; allowed: one")
    file = files[0]
    content = read_pt(file)
    try:
        images = [images.float() for images, _ in content["data"]]
        labels = [labels.float() for _, labels in content["data"]]
        number = torch.cat([torch.full((len(of_set),), i) for i, of_set in enumerate(labels)])
        several = len(labels) > 1
        return ImportedSet(torch.cat(images), torch.cat(labels), file, number=number if several else None)
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, RuntimeError):
        raise UserError(
            f"{file}: expected a dict with `data`, a list of pairs of images and labels"
        ) from None


def read_safetensors(problem: Problem) -> ImportedSet | None:
    """`set.safetensors` of this project."""
    file = problem.reads / "set.safetensors"
    if not file.exists():
        return None
    try:
        tensors = tensors_of(file)
        return ImportedSet(
            tensors["images"],
            tensors["targets"] if "targets" in tensors else tensors["labels"],
            file,
            step_size=number_in(tensors, "step_size"),
            teacher_step_size=number_in(tensors, "teacher_step_size"),
            number=tensors.get("set"),
            temperature=number_in(tensors, "temperature"),
            positions=real_positions(tensors, problem),
            room=room_of(file),
        )
    except UserError:
        raise
    except Exception as mistake:  # of safetensors' and torch's kinds, e.g. several numbers in place of one
        reason = " ".join(str(mistake).split())
        raise UserError(f"{file}: not a distilled set: {reason}") from None


def tensors_of(file: Path) -> dict[str, Tensor]:
    """The tensors of another row's set, or of a set from elsewhere, which need not have a checksum."""
    if file.is_relative_to(DATA / "distill"):
        return read_tensors(file)
    check_brought(file)
    return load_file(file)


def room_of(file: Path) -> int | None:
    """The `ipc` of the row that has made a set; an addressable memory has more images than that."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
    about = json.loads(metadata.get("about", "{}"))
    return about.get("ipc") if isinstance(about, dict) else None


def real_positions(tensors: dict[str, Tensor], problem: Problem) -> Tensor | None:
    """The positions of the images of a set among the training images, if that is where they are.

    A set from elsewhere may name positions in another split of the images; these are no use here.
    """
    positions = tensors.get("positions")
    images = tensors["images"].float()
    real = problem.real
    if positions is None or len(positions) == 0 or images.shape[1:] != real.images.shape[1:]:
        return None
    if not 0 <= int(positions.min()) <= int(positions.max()) < len(real.labels):
        return None
    there = real.images[positions.to(real.labels.device)].cpu()
    is_same = there.shape == images.shape and torch.allclose(there, images, atol=1e-4)
    return positions if is_same else None


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
    return ImportedSet(images, torch.tensor(labels), folder)


def read_picture(file: Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture as uint8 pixels of that shape, `(C, H, W)`, in gray or in RGB."""
    channels, height, width = shape
    pixels = np.array(open_picture(file, "L" if channels == 1 else "RGB"))
    if pixels.shape[:2] != (height, width):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UserError(f"{file}: {size} pixels; allowed for this data set: {width}x{height}")
    pixels = pixels.reshape(height, width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
