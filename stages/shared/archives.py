"""The paper's data sets by name: where they lie on disk, and where they come from when they do not."""

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from stages.shared.errors import UserError

__all__ = ["ARCHIVES", "Archive", "data_root", "download", "locate"]


class Archive(NamedTuple):
    """A published data set."""

    url: str
    md5: str
    folder: str  # what the archive unpacks to


ARCHIVES = {
    "cifar10": Archive("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py"),
    "cifar100": Archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python"),
    "tinyimagenet": Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"),
    "imagenette": Archive("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412", "imagenette2-160"),
}


def data_root(setting: str) -> Path:
    """The folder of copies on disk: `data_root` of params.yaml; DATA_ROOT in the environment wins."""
    return Path(os.environ.get("DATA_ROOT") or setting)


def locate(name: str, root: Path) -> Path | None:
    """Where a set lies below `root`, as its archive unpacks or as `<name>/{train,test}/<class>/*`; None where it does not."""
    places = [root / ARCHIVES[name].folder, root / name]
    return next((place for place in places if place.is_dir()), None)


def download(name: str, root: Path, key: str) -> Path:
    """Fetch the archive into `root`, unless a whole one lies there, and unpack it: all of it or nothing.

    Raises:
        UserError: cannot be reached; an archive in `root` with another checksum; one that cannot be unpacked.
    """
    from torchvision.datasets.utils import check_md5, download_url, extract_archive

    archive = ARCHIVES[name]
    file = root / archive.url.rsplit("/", 1)[1]
    if file.exists() and not check_md5(str(file), archive.md5):
        raise UserError(f"{file}: not the published file (its md5 is not {archive.md5}); delete it to have it fetched from {archive.url}")
    root.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        print(f"{name} is not in {root}: fetching {archive.url}")
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as here:
            try:
                download_url(archive.url, here, file.name, archive.md5)
            except (OSError, RuntimeError) as problem:  # no network; a file that is not the published one
                raise UserError(
                    f"{key}.source: {name!r} is not in {root} (looked for {archive.folder} and {name}) and could not be fetched: {problem}\n"
                    f"put it there: curl -L -o {file} {archive.url}; or set data_root in params.yaml, or DATA_ROOT, to where it is"
                ) from None
            os.replace(Path(here) / file.name, file)
    with tempfile.TemporaryDirectory(dir=root, prefix=".unpack-") as here:
        try:
            extract_archive(str(file), here)
            shutil.move(Path(here) / archive.folder, root / archive.folder)
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as problem:
            raise UserError(f"{file}: cannot be unpacked: {problem}") from None
    return root / archive.folder
