"""The paper's data sets by name: where their copies are on disk, and where they are fetched from."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from filelock import FileLock

from stages.images.unpacking import unpack
from stages.runtime.errors import UserError

__all__ = ["ARCHIVES", "Archive", "data_root", "download", "locate"]


class Archive(NamedTuple):
    """A data set as it is published."""

    url: str
    md5: str
    folder: str  # the folder that the archive unpacks to

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
    ),
    "tinyimagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "90528d7ca1a48142e341f4ef8d21d0de",
        "tiny-imagenet-200",
    ),
    "imagenette": Archive(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        "e793b78cc4c9e9a4ccc0c1155377a412",
        "imagenette2-160",
    ),
}


def data_root(setting: str) -> Path:
    """The folder of the data sets' copies: `data_root` of params.yaml; DATA_ROOT in the environment wins.

    `~` is the home folder.
    """
    return Path(os.path.expanduser(os.environ.get("DATA_ROOT") or setting))


def locate(name: str, root: Path) -> Path | None:
    """The folder of a data set below `root`, or None if it has none there.

    It may be named as the archive unpacks, or `<name>` with `{train,test}/<class>/*` in it.
    """
    for folder in (root / ARCHIVES[name].folder, root / name):
        if folder.is_dir():
            return folder
    return None


def download(name: str, root: Path, key: str) -> Path:
    """Fetch a data set's archive into `root`, unless it is there already, and unpack it.

    An interruption leaves neither a part of the archive nor a part of what it holds.

    Args:
        key: the key of the data set's images, for messages.

    Returns:
        The folder of the unpacked data set.

    Raises:
        UserError: the archive cannot be reached or cannot be unpacked, or the one in `root` has
            another checksum.
    """
    from torchvision.datasets.utils import check_md5  # torchvision takes a second to import

    archive = ARCHIVES[name]
    file = root / archive.file_name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{archive.folder}.lock"):
        if (root / archive.folder).is_dir():  # another process has just unpacked it
            return root / archive.folder
        for left in root.glob(f".{archive.folder}-*"):  # by a process that was killed
            shutil.rmtree(left)
        if not file.exists():
            _fetch(name, root, key)
        elif not check_md5(str(file), archive.md5):
            raise UserError(
                f"{file}: not the published file (its md5 is not {archive.md5}); "
                f"delete it to have it fetched from {archive.url}"
            )
        return _unpack(file, root / archive.folder)


def _fetch(name: str, root: Path, key: str) -> None:
    from torchvision.datasets.utils import download_url

    archive = ARCHIVES[name]
    file = root / archive.file_name
    print(f"{name} is not in {root}: fetching {archive.url}")
    with TemporaryDirectory(dir=root, prefix=f".{archive.folder}-") as temporary:
        try:
            download_url(archive.url, temporary, file.name, archive.md5)
        except (OSError, RuntimeError) as problem:  # the network is down, or the checksum is another
            raise UserError(
                f"{key}.source: {name!r} is not in {root} (looked for {archive.folder} and {name}) "
                f"and could not be fetched: {problem}\n"
                f"put it there: curl -L -o {file} {archive.url}; "
                "or set data_root in params.yaml, or DATA_ROOT, to where it is"
            ) from None
        os.replace(Path(temporary) / file.name, file)


def _unpack(file: Path, folder: Path) -> Path:
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        unpack(file, Path(temporary))
        unpacked = Path(temporary) / folder.name
        if not unpacked.is_dir():
            raise UserError(f"{file}: has no folder {folder.name}; delete it to have it fetched anew")
        os.sync()  # what is below the folder is on the disk before it gets its name
        shutil.move(unpacked, folder)
    return folder
