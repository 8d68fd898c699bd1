"""What a distilled set that was made elsewhere has to be, so that it fits a row and its data set."""

import torch
from torch import Tensor

from stages.distillation.backbone import Problem
from stages.distillation.imported_files import ImportedSet
from stages.runtime.errors import UserError

__all__ = ["check_counts", "check_soft_counts", "check_tensors"]

WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(imported: ImportedSet, problem: Problem) -> None:
    """
    Raises:
        UserError: images, labels, numbers of sets or step sizes that nothing can be trained on.
    """
    check_kinds(imported)
    check_shapes(imported, problem)
    check_numbers_of_sets(imported)
    check_step_sizes(imported)
    check_finite(imported)


def check_kinds(imported: ImportedSet) -> None:
    """
    Raises:
        UserError: images that are no floats, such as bytes of pixels, or labels that are no real numbers.
    """
    floats = "floats of 16 bits or more"
    pixels = f"{floats}, as the network sees them; pixels as picture files"
    _check_kind(imported, "images", FLOATS, pixels)
    _check_kind(imported, "labels", (*WHOLE_NUMBERS, *FLOATS), f"whole numbers and {floats}")


def _check_kind(imported: ImportedSet, name: str, types: tuple[torch.dtype, ...], allowed: str) -> None:
    kind = getattr(imported, name).dtype
    if kind not in types:
        given = str(kind).removeprefix("torch.")
        raise UserError(f"{imported.source}: {name} in {given}; allowed: {allowed}")


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
