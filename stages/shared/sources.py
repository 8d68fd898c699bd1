"""Where images come from: scikit-learn's digits, the paper's data sets by name, or a folder of pictures."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stages.shared.archives import ARCHIVES, download, locate
from stages.shared.decoded import decoded
from stages.shared.errors import UserError
from stages.shared.settings import Count, Positive, Section

__all__ = ["ImageSettings", "Source", "Split", "find_images", "read_images"]

SPLITS = {"train": ("train",), "test": ("test", "val")}  # and their folders' names
ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet, whose test/ has no labels
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageSettings(Section):
    """`datasets.<name>.images`: what the images are and how they are normalised."""

    source: str  # digits, cifar10, cifar100, tinyimagenet, imagenette; or a folder with train/<class>/* and test/<class>/*
    whitening: Literal["zca", "none"] = "none"
    mean: list[float] | None = None  # per channel; null: of the training images. Not used with ZCA
    std: list[Positive] | None = None
    resize: Count | None = None  # shorter side, then a centre crop to a square
    color: Literal["rgb", "gray"] = "rgb"
    per_class: Count | None = None  # images of each class to keep in either split, the first by name; null: all
    quarter_turns: Literal[0, 1, 2, 3] = 0  # by which every image is rotated: images from outside a distribution


class Source(NamedTuple):
    """What is there, before any image is decoded."""

    classes: list[str]
    files: dict[str, list[list[Path]]] | Path | None  # split -> class -> files; CIFAR's own folder; None: the digits
    counts: list[int]  # training images of each class


class Split(NamedTuple):
    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64


def find_images(settings: ImageSettings, key: str, root: Path) -> Source | None:
    """Look at the source without decoding it; None for a data set that is not below `root` yet.

    Raises:
        UserError: no such folder, no class, a class without images, classes that differ between the splits.
    """
    if settings.source == "digits":
        return Source([str(k) for k in range(10)], None, _shortened(np.bincount(_digits()["train"].labels).tolist(), settings))
    place = locate(settings.source, root) if settings.source in ARCHIVES else Path(settings.source)
    if place is None:
        return None
    if not place.is_dir():
        raise UserError(
            f"{key}.source: {settings.source!r} is no data set and no folder here; allowed: digits, {', '.join(ARCHIVES)}, or a folder with train/<class>/* and test/<class>/*"
        )
    try:
        if place.name in ("cifar-10-batches-py", "cifar-100-python"):
            classes = _cifar(place).classes
            return Source(classes, place, _shortened([50_000 // len(classes)] * len(classes), settings))
        found = _find_files(place, key)
    except PermissionError as problem:
        raise UserError(f"{problem.filename}: {problem.strerror}") from None
    kept = {split: [pictures[: settings.per_class] for pictures in files] for split, files in found.files.items()}
    return Source(found.classes, kept, _shortened(found.counts, settings))


def read_images(settings: ImageSettings, key: str, root: Path, cache: Path | None = None) -> tuple[list[str], dict[str, Split]]:
    """Class names and the decoded splits; labels are positions in the sorted class names. Fetches what is not there.

    Args:
        cache: a folder to keep decoded pictures in; None: they are decoded anew.

    Raises:
        UserError: see `find_images` and `download`; an unreadable picture; sizes that differ, or are not square,
            without `resize`.
    """
    source = find_images(settings, key, root)
    if source is None:
        download(settings.source, root, key)
        source = find_images(settings, key, root)
    if source.files is None:
        splits = _digits()
    elif isinstance(source.files, Path):
        splits = {split: _cifar_split(source.files, split == "train") for split in SPLITS}
    else:
        return source.classes, {split: _read_files(source.files[split], settings, key, cache) for split in SPLITS}
    return source.classes, {split: _first(some, settings.per_class) for split, some in splits.items()}


def _shortened(counts: list[int], settings: ImageSettings) -> list[int]:
    return [min(count, settings.per_class or count) for count in counts]


def _first(split: Split, per_class: int | None) -> Split:
    """The first images of each class, in the split's order."""
    rows = np.sort(np.concatenate([np.flatnonzero(split.labels == k)[:per_class] for k in np.unique(split.labels)]))
    return Split(split.images[rows], split.labels[rows])


def _find_files(root: Path, key: str) -> Source:
    """A folder of folders of pictures; of Tiny ImageNet also as its archive has it, with the classes of val in a text file."""
    files, classes = {}, None
    for split, names in SPLITS.items():
        if (root / "val" / ANNOTATIONS).exists():
            names = names[-1:]
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is None:
            raise UserError(f"{key}.source: {root / split} is missing; expected {root}/train/<class>/* and {root}/test/<class>/*")
        if (folder / ANNOTATIONS).exists():
            found = _annotated(folder / ANNOTATIONS, classes or [])
        else:
            found = {f.name: _pictures(f) for f in sorted(folder.iterdir()) if f.is_dir() and not f.name.startswith(".")}
        if len(found) < 2:
            raise UserError(f"{key}.source: {folder} has {len(found)} class folders; expected at least 2")
        if empty := [name for name, pictures in found.items() if not pictures]:
            raise UserError(f"{key}.source: {folder / empty[0]} has no images ({', '.join(sorted(ENDINGS))})")
        if classes is not None and list(found) != classes:
            odd = sorted(set(found) ^ set(classes))[0]
            raise UserError(f"{key}.source: class {odd!r} is in only one of {root}/train and {folder}")
        classes, files[split] = list(found), list(found.values())
    return Source(classes, files, [len(pictures) for pictures in files["train"]])


def _annotated(annotations: Path, classes: list[str]) -> dict[str, list[Path]]:
    """Tiny ImageNet's validation images by class: lines of `file<tab>class<tab>box`."""
    found = {name: [] for name in classes}
    for line in annotations.read_text().splitlines():
        file, name, *_ = line.split("\t")
        found.setdefault(name, []).append(annotations.parent / "images" / file)
    return {name: sorted(found[name]) for name in sorted(found)}


def _cifar(folder: Path, train: bool = True):
    """torchvision's reader, which checks every file's checksum before it opens it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if folder.name == CIFAR10.base_folder else CIFAR100
    try:
        return kind(folder.parent, train)
    except RuntimeError as problem:
        raise UserError(f"{folder}: {problem}") from None


def _cifar_split(folder: Path, train: bool) -> Split:
    data = _cifar(folder, train)
    return Split(data.data.transpose(0, 3, 1, 2), np.array(data.targets, np.int64))


def _digits() -> dict[str, Split]:
    """1,797 handwritten digits of 8x8 pixels in 17 gray levels; a fixed half of each class is the test split.

    E. Alpaydin, C. Kaynak: "Optical Recognition of Handwritten Digits", UCI, 1998, https://doi.org/10.24432/C50P49.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    halves = train_test_split(images, data.target, test_size=0.5, stratify=data.target, random_state=0)
    return {"train": Split(halves[0], halves[2]), "test": Split(halves[1], halves[3])}


def _pictures(folder: Path) -> list[Path]:
    """Of a class; Tiny ImageNet keeps them one folder deeper."""
    inner = folder / "images"
    return sorted(f for f in (inner if inner.is_dir() else folder).iterdir() if f.suffix.lower() in ENDINGS)


def _read_files(files: list[list[Path]], settings: ImageSettings, key: str, cache: Path | None) -> Split:
    from PIL import __version__ as pillow

    paths = [path for pictures in files for path in pictures]
    labels = np.repeat(np.arange(len(files)), [len(pictures) for pictures in files])
    how = {"resize": settings.resize, "color": settings.color, "pillow": pillow}
    return Split(decoded(paths, how, lambda: _decode_all(paths, settings, key), cache), labels)


def _decode_all(paths: list[Path], settings: ImageSettings, key: str) -> np.ndarray:
    from tqdm import tqdm

    first = _decode(paths[0], settings)
    if first.shape[1] != first.shape[2]:
        raise UserError(f"{key}.resize: null with {paths[0]} of {first.shape[2]}x{first.shape[1]} pixels; the network needs squares: set {key}.resize")
    images = np.empty((len(paths), *first.shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda path: _decode(path, settings), paths)
        for i, image in enumerate(tqdm(decoded, "decode", len(paths), disable=None, leave=False)):
            if image.shape != first.shape:
                raise UserError(
                    f"{paths[i]} has {image.shape[2]}x{image.shape[1]} pixels but {paths[0]} has {first.shape[2]}x{first.shape[1]}; set {key}.resize"
                )
            images[i] = image
    return images


def _decode(path: Path, settings: ImageSettings) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture = picture.convert("L" if settings.color == "gray" else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise UserError(f"{path}: not a readable image: {problem}") from None
    if settings.resize:
        picture = ImageOps.fit(picture, (settings.resize, settings.resize), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
