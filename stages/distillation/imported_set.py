"""Distilled sets that were made elsewhere; `stages/backbones/file.py` says in which files."""

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
from stages.images.released import SoftKind
from stages.runtime.checksums import check_brought
from stages.runtime.errors import UserError
from stages.runtime.files import read_tensors
from stages.runtime.pt_files import read_pt
from stages.settings.rows import DATA

__all__ = ["ImportedSet", "images_of_a_class", "read_set"]

SUM_TOLERANCE = 0.01  # of probabilities, whose sum is 1; those that are kept in 16 bits miss it by less
WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
REAL_NUMBERS = (*WHOLE_NUMBERS, torch.float16, torch.bfloat16, torch.float32, torch.float64)
ROUNDING = 1e-6  # of a sum in float32; probabilities that miss 1 by less are left as they are


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


def read_set(problem: Problem, kind: SoftKind | None = None) -> ImportedSet:
    """The distilled set in the folder that the row reads: images in float32, labels in int64, on the CPU.

    Where labels are soft, `labels` are the likeliest classes.

    Args:
        kind: what soft labels are; None: nobody has said it.

    Raises:
        UserError: the folder holds no set, or one that does not fit the row and its data set; labels are
            of another kind than said, or soft and of no kind that can be told.
    """
    imported = with_temperature(read_any(problem), problem.reads / "temperature.txt")
    check_kinds(imported)
    check_shapes(imported, problem)
    check_numbers_of_sets(imported)
    check_step_sizes(imported)
    check_finite(imported)
    if imported.labels.ndim == 2:
        targets = probabilities(imported, kind)
        labels = targets.argmax(1)
        check_soft_counts(imported, labels, problem)
    elif kind is None:
        targets = None
        labels = class_labels(imported, problem)
        check_counts(imported, labels, problem)
    else:
        raise UserError(f"{imported.source}: classes as labels, but distill.labels is {kind!r}; leave it out")
    return imported._replace(images=imported.images.float(), labels=labels, targets=targets)


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


def with_temperature(imported: ImportedSet, file: Path) -> ImportedSet:
    """The set with its own temperature or, if it has none, with the one in a text file, if that is there.

    Raises:
        UserError: the temperature is anything but a number above 0.
    """
    source = imported.source
    temperature = imported.temperature
    if temperature is None and file.exists():
        source = file
        temperature = read_temperature(file)
    if temperature is not None and not 0 < temperature < float("inf"):
        raise UserError(f"{source}: a temperature of {temperature:g}; allowed: a number > 0")
    return imported._replace(temperature=temperature)


def read_temperature(file: Path) -> float:
    """The number in a text file."""
    text = file.read_text(errors="replace").strip()
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{file}: {text[:40]!r}; allowed: a number > 0") from None


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


def check_kinds(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: images or labels are anything but real numbers, e.g. complex or of 8 bits with an exponent.
    """
    for name, tensor in (("images", imported.images), ("labels", imported.labels)):
        if tensor.dtype not in REAL_NUMBERS:
            problem = f"{name} in {str(tensor.dtype).removeprefix('torch.')}"
            raise UserError(
                f"{imported.source}: {problem}; allowed: whole numbers and floats of 16 bits or more"
            )


def check_numbers_of_sets(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: the numbers of the sets are not one for each image, from 0 on.
    """
    number = imported.number
    if number is None:
        return
    fits = number.shape == imported.labels.shape[:1] and number.dtype == torch.int64
    values = number.unique() if fits else number
    if not fits or not torch.equal(values, torch.arange(len(values))):
        problem = f"numbers of sets {tuple(number.shape)} in {number.dtype}"
        allowed = "allowed: whole numbers (N,) from 0 on, without a gap"
        raise UserError(f"{imported.source}: {problem}; {allowed}")


def check_step_sizes(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: a step size is anything but a number above 0.
    """
    for step_size in (imported.step_size, imported.teacher_step_size):
        if step_size is not None and not 0 < step_size < float("inf"):
            raise UserError(f"{imported.source}: a step size of {step_size:g}; allowed: a number > 0")


def check_shapes(imported: ImportedSet, problem: Problem) -> None:
    """
    Raises:
        UserError: images or labels of another shape than the data set's.
    """
    images = tuple(imported.images.shape)
    labels = tuple(imported.labels.shape)
    classes = problem.real.classes
    allowed = tuple(problem.real.images.shape[1:])
    fitting_labels = (images[:1], (*images[:1], classes))  # hard and soft
    if len(images) != 4 or images[1:] != allowed or labels not in fitting_labels:
        sizes = ", ".join(str(size) for size in allowed)
        raise UserError(
            f"{imported.source}: images {images}, labels {labels}; "
            f"allowed for this data set: (N, {sizes}) and (N,) or (N, {classes})"
        )


def check_finite(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: images or labels with numbers that are not finite.
    """
    for name, tensor in (("images", imported.images), ("labels", imported.labels)):
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise UserError(f"{imported.source}: {name} with {wrong} numbers that are not finite")


def probabilities(imported: ImportedSet, kind: SoftKind | None) -> Tensor:
    """Soft labels as probabilities `(N, K)` in float32.

    What nobody has said is told from the numbers only if they are probabilities: whether others are logits,
    or something else, cannot be known.

    Raises:
        UserError: the labels are not what they are said to be, or nobody has said it and it cannot be told.
    """
    values = imported.labels.double()
    sums = values.sum(1, keepdim=True)
    are_shares = bool((values >= 0).all()) and bool(((sums - 1).abs() <= SUM_TOLERANCE).all())
    if are_shares and kind != "logits":
        is_rounded = (sums - 1).abs() <= ROUNDING
        return torch.where(is_rounded, values, values / sums).float()
    if not are_shares and kind == "logits":
        return values.softmax(1).float()
    if are_shares:
        problem = "soft labels that are probabilities, but distill.labels is 'logits'"
        raise UserError(f"{imported.source}: {problem}; allowed: 'probabilities'")
    problem = f"soft labels from {float(values.min()):.3g} to {float(values.max()):.3g}"
    problem += f" with sums from {float(sums.min()):.3g} to {float(sums.max()):.3g} are no probabilities"
    allowed = "allowed: numbers >= 0 with a sum of 1, or `distill.labels: logits` if softmax makes them so"
    raise UserError(f"{imported.source}: {problem}\n{allowed}")


def class_labels(imported: ImportedSet, problem: Problem) -> Tensor:
    """Hard labels in int64.

    Raises:
        UserError: labels that are not whole numbers, or labels out of range.
    """
    labels = imported.labels
    classes = problem.real.classes
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"{imported.source}: labels that are not whole numbers")
    labels = labels.long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        limits = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError(f"{imported.source}: labels from {limits}; allowed: 0 to {classes - 1}")
    return labels


def check_counts(imported: ImportedSet, labels: Tensor, problem: Problem) -> None:
    """
    Args:
        labels: the classes, which are hard labels.

    Raises:
        UserError: a class without exactly `ipc` images in each set.
    """
    counts: list[int] = []
    for of_set in counts_of_sets(imported, labels, problem.real.classes):
        counts += of_set
    as_made = imported.room == problem.ipc and len(set(counts)) == 1
    if set(counts) != {problem.ipc} and not as_made:
        limits = f"{min(counts)} to {max(counts)}"
        raise UserError(f"{imported.source}: {limits} images a class, but the row's ipc is {problem.ipc}")


def check_soft_counts(imported: ImportedSet, labels: Tensor, problem: Problem) -> None:
    """Soft labels may make one class likeliest more often than another, but all images are as many.

    Several sets have to be alike in this, because as many images of each are kept for temperatures.

    Args:
        labels: the likeliest classes.

    Raises:
        UserError: a set without exactly `ipc` images times the classes, or sets whose classes differ in size.
    """
    classes = problem.real.classes
    counts = counts_of_sets(imported, labels, classes)
    for of_set in counts:
        if sum(of_set) != problem.ipc * classes and imported.room != problem.ipc:
            expected = f"the row's ipc is {problem.ipc}, which makes {problem.ipc * classes}"
            raise UserError(f"{imported.source}: {sum(of_set)} images with soft labels, but {expected}")
        if of_set != counts[0]:
            problem_found = "several sets with soft labels, whose likeliest classes are not equally many"
            raise UserError(f"{imported.source}: {problem_found}; allowed: one set")


def counts_of_sets(imported: ImportedSet, labels: Tensor, classes: int) -> list[list[int]]:
    """The number of images of each class, set by set."""
    sets = [labels]
    if imported.number is not None:
        sets = [labels[imported.number == number] for number in imported.number.unique()]
    return [of_set.bincount(minlength=classes).tolist() for of_set in sets]


def images_of_a_class(problem: Problem) -> int:
    """How many images per class there are in the folder that `problem` reads, in each set, on the mean."""
    imported = read_any(problem)
    sets = 1 if imported.number is None else len(imported.number.unique())
    return len(imported.labels) // (sets * problem.real.classes)
