"""Distilled sets that were made elsewhere; `stages/backbones/file.py` says in which files."""

from pathlib import Path

from stages.distillation.backbone import Problem
from stages.distillation.imported_checks import check_counts, check_soft_counts, check_tensors
from stages.distillation.imported_files import ImportedSet, read_files
from stages.distillation.imported_labels import class_labels, probabilities
from stages.images.released import SoftKind
from stages.runtime.errors import UserError

__all__ = ["images_of_a_class", "read_set"]


def read_set(problem: Problem, kind: SoftKind | None = None) -> ImportedSet:
    """The distilled set in the folder that the row reads: images in float32, labels in int64, on the CPU.

    Where labels are soft, `labels` are the likeliest classes.

    Args:
        kind: what soft labels are; None: nobody has said it.

    Raises:
        UserError: the folder holds no set, or one that does not fit the row and its data set; labels are
            of another kind than said, or soft and of no kind that can be told.
    """
    imported = with_temperature(read_files(problem), problem.reads / "temperature.txt")
    check_tensors(imported, problem)
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


def images_of_a_class(problem: Problem) -> int:
    """How many images per class there are in the folder that `problem` reads, in each set, on the mean."""
    imported = read_files(problem)
    sets = 1 if imported.number is None else len(imported.number.unique())
    return len(imported.labels) // (sets * problem.real.classes)
