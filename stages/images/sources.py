"""Where images come from: scikit-learn's digits, one of the paper's data sets, or a folder of pictures."""

import os
from pathlib import Path
from typing import Protocol

from stages.images.archives import ARCHIVES, download, locate
from stages.images.cifar import FOLDERS, Cifar
from stages.images.digits import Digits
from stages.images.folders import Folders
from stages.images.split import Split
from stages.runtime.errors import UserError
from stages.settings.images import ImageSettings
from stages.settings.section import shortened

__all__ = ["Source", "find_images", "read_images"]


class Source(Protocol):
    """A data set of which the classes and files are known, but no image has been decoded."""

    classes: list[str]  # names, sorted
    counts: list[int]  # training images of each class

    def read(self, cache: Path | None) -> dict[str, Split]:
        """`train` and `test`, decoded. Decoded pictures are kept in the folder `cache`, if there is one."""


def find_images(settings: ImageSettings, key: str, root: Path) -> Source | None:
    """The source that the settings name, or None if it is one of the paper's data sets, yet to be fetched.

    Args:
        key: the key of `settings`, for messages.
        root: the folder of the data sets' copies.

    Raises:
        UserError: the source is no data set and no folder, or the folder cannot be used; see `Cifar` and
            `Folders`.
    """
    if settings.source == "digits":
        _refuse_changes(settings, key)
        return Digits(settings)
    folder = (
        locate(settings.source, root)
        if settings.source in ARCHIVES
        else Path(os.path.expanduser(settings.source))
    )
    if folder is None:
        return None
    if not _is_folder(folder):
        raise UserError(
            f"{key}.source: {shortened(repr(settings.source))} is no data set and no folder; "
            f"allowed: digits, {', '.join(ARCHIVES)}, or a folder with train/<class>/* and test/<class>/*"
        )
    try:
        if folder.name not in FOLDERS:
            return Folders(folder, settings, key)
        _refuse_changes(settings, key)
        return Cifar(folder, settings)
    except OSError as problem:  # e.g. a folder that may not be read
        raise UserError(f"{problem.filename}: {problem.strerror}") from None


def _refuse_changes(settings: ImageSettings, key: str) -> None:
    """
    Raises:
        UserError: keys that change pictures, for images that are no pictures.
    """
    for name in ("resize", "color"):
        value = getattr(settings, name)
        if value != ImageSettings.model_fields[name].default:
            allowed = f"allowed for images that are no picture files: none of this key ({key}.source)"
            raise UserError(f"{key}.{name}: {value}; {allowed}")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # e.g. a name that is too long
        return False


def read_images(
    settings: ImageSettings, key: str, root: Path, cache: Path | None = None
) -> tuple[list[str], dict[str, Split]]:
    """Class names, and the splits `train` and `test`. A data set that is not below `root` is fetched.

    Args:
        key: the key of `settings`, for messages.
        root: the folder of the data sets' copies.
        cache: a folder to keep decoded pictures in; None keeps nothing.

    Raises:
        UserError: see `find_images`, `download` and `read_pictures`.
    """
    source = find_images(settings, key, root)
    if source is None:
        download(settings.source, root, key)
        source = find_images(settings, key, root)
    assert source is not None  # `download` has returned its folder
    return source.classes, source.read(cache)
