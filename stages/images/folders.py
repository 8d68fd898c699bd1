"""Data sets that are picture files in folders: `{train,test}/<class>/*`, or Tiny ImageNet's own layout."""

from pathlib import Path

import numpy as np

from stages.images.decoded import read_pictures
from stages.images.split import Split, shortened
from stages.runtime.errors import UserError
from stages.settings.images import ImageSettings

__all__ = ["Folders"]

ANNOTATIONS = (
    "val_annotations.txt"  # Tiny ImageNet's test split is its val, as the images of its test have no labels
)
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class Folders:
    """A folder with one folder for each split, which have one folder for each class.

    Raises:
        UserError: a split is missing, a class has no pictures, or the splits have different classes.
    """

    def __init__(self, root: Path, settings: ImageSettings, key: str):
        self.settings = settings
        self.key = key
        train = _training_files(root, key)
        test = _test_files(root, list(train), key)
        if list(test) != list(train):
            odd = sorted(set(test) ^ set(train))[0]
            raise UserError(
                f"{key}.source: class {odd!r} is in only one of the training and the test images of {root}"
            )
        counts = [len(files) for files in train.values()]
        self.classes = list(train)
        self.counts = shortened(counts, settings.per_class)
        self.files = {"train": self._first(train), "test": self._first(test)}  # split -> class -> files

    def _first(self, by_class: dict[str, list[Path]]) -> dict[str, list[Path]]:
        return {name: files[: self.settings.per_class] for name, files in by_class.items()}

    def read(self, cache: Path | None) -> dict[str, Split]:
        """Both splits, decoded.

        Raises:
            UserError: see `read_pictures`.
        """
        return {"train": self._split("train", cache), "test": self._split("test", cache)}

    def _split(self, split: str, cache: Path | None) -> Split:
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            files += self.files[split][name]
            labels += [label] * len(self.files[split][name])
        images = read_pictures(files, self.settings, self.key, cache)
        return Split(images, np.array(labels, np.int64))


def _training_files(root: Path, key: str) -> dict[str, list[Path]]:
    """The pictures of each class of the training split, sorted."""
    folder = root / "train"
    if not folder.is_dir():
        raise _missing(folder, root, key)
    by_class = _files_by_class(folder)
    _check_classes(by_class, folder, key)
    return by_class


def _test_files(root: Path, classes: list[str], key: str) -> dict[str, list[Path]]:
    """Likewise of the test split: Tiny ImageNet's val, or the folder `test`, or the folder `val`."""
    test = root / "test"
    val = root / "val"
    if (val / ANNOTATIONS).exists():
        folder = val
        by_class = _annotated(val / ANNOTATIONS, classes)
    elif test.is_dir() or val.is_dir():
        folder = test if test.is_dir() else val
        by_class = _files_by_class(folder)
    else:
        raise _missing(test, root, key)
    _check_classes(by_class, folder, key)
    return by_class


def _missing(folder: Path, root: Path, key: str) -> UserError:
    expected = f"{root}/train/<class>/* and {root}/test/<class>/*"
    return UserError(f"{key}.source: {folder} is missing; expected {expected}")


def _check_classes(by_class: dict[str, list[Path]], folder: Path, key: str) -> None:
    if len(by_class) < 2:
        raise UserError(f"{key}.source: {folder} has {len(by_class)} class folders; expected at least 2")
    for name, files in by_class.items():
        if not files:
            raise UserError(f"{key}.source: {folder / name} has no images ({', '.join(sorted(ENDINGS))})")


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    by_class = {}
    for class_folder in sorted(folder.iterdir()):
        if class_folder.is_dir() and not class_folder.name.startswith("."):
            by_class[class_folder.name] = _pictures(class_folder)
    return by_class


def _pictures(class_folder: Path) -> list[Path]:
    inner = class_folder / "images"  # Tiny ImageNet keeps the pictures of a class in here
    folder = inner if inner.is_dir() else class_folder
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)


def _annotated(annotations: Path, classes: list[str]) -> dict[str, list[Path]]:
    """The pictures of Tiny ImageNet's val by class.

    They share one folder; each line of `annotations` is `file<tab>class<tab>box`.

    Raises:
        UserError: a line is anything else, or its file lies elsewhere.
    """
    by_class: dict[str, list[Path]] = {name: [] for name in classes}
    lines = annotations.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        file, name, *_ = [*line.split("\t"), ""]
        if not file or not name or Path(file).name != file:
            problem = f"{annotations}: line {number}: {line[:80]!r}"
            raise UserError(f"{problem}; allowed: <file in images/><tab><class><tab><box>")
        by_class.setdefault(name, []).append(annotations.parent / "images" / file)
    return {name: sorted(by_class[name]) for name in sorted(by_class)}
