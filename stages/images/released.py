"""Distilled sets that others have released, by name: where they are on disk, and where they are fetched from.

released.yaml beside this file lists them.
"""

import hashlib
import http.client
import os
import shutil
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from pydantic import Field

from stages.runtime.errors import UserError
from stages.settings.project import read_yaml
from stages.settings.section import Count, Section, known, parse

__all__ = [
    "LIST",
    "PREFIX",
    "Published",
    "Released",
    "SoftKind",
    "folder_of",
    "methods",
    "released_set",
    "released_sets",
]

LIST = Path(__file__).with_suffix(".yaml")
PREFIX = "released/"  # of a name in the settings, and the folder of the sets below `data_root`
SECONDS = 60  # without an answer, after which a download is given up

SoftKind = Literal["probabilities", "logits"]  # what soft labels are in a file
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern="^(https?|file)://")]


class Published(Section):
    """The accuracy that was published for a set."""

    accuracy: float  # in percent, of the ConvNet on the test images
    source: str


class Released(Section):
    """A released set."""

    method: str  # what has made it; `made_by` of its rows
    dataset: str  # as `source` of a data set's images
    ipc: Count
    published: Published
    licence: str | None  # of the place that it comes from; null: none is stated there
    origin: str
    normalisation: str  # of the images
    known_by: str  # how the normalisation is known
    labels: Literal["classes"] | SoftKind = "classes"
    address: Address | None  # of the folder of its files; null: it is measured with here, but not linked
    files: dict[str, Sha256]

    @property
    def soft_kind(self) -> SoftKind | None:
        """What its labels are, if they are soft."""
        return None if self.labels == "classes" else self.labels

    def url(self, file: str) -> str:
        return f"{self.address}/{file}"


def released_sets() -> dict[str, Released]:
    """All sets of released.yaml by `released/<name>`."""
    sets = {}
    for name, values in read_yaml(LIST).items():
        sets[PREFIX + name] = parse(Released, values, f"{LIST.name}: {name}")
    return sets


def released_set(source: str, key: str) -> Released:
    """The set of a name.

    Args:
        source: `released/<name>`.
        key: of the settings that have the name, for messages.

    Raises:
        UserError: there is no such set; the message lists the names that there are.
    """
    sets = released_sets()
    known(key, source, sets)
    return sets[source]


def methods() -> list[str]:
    """What has made the released sets."""
    return sorted({released.method for released in released_sets().values()})


def folder_of(source: str, root: Path, key: str) -> Path:
    """The folder `<root>/released/<name>` with the published files. Those that are not there are fetched.

    An interruption leaves no part of a file.

    Args:
        source: `released/<name>`.
        root: the folder of the data sets' copies.
        key: of the settings that have the name, for messages.

    Raises:
        UserError: a file is there but is not the published one, or it is not there and cannot be fetched.
    """
    released = released_set(source, key)
    folder = root / source
    missing = []
    for name, sha256 in released.files.items():
        file = folder / name
        if not file.exists():
            missing.append(name)
        elif sha256_of(file) != sha256:
            advice = f"delete it to have it fetched from {released.url(name)}"
            if released.address is None:
                advice = "put the published file in its place"
            raise UserError(f"{file}: not the published file (its sha256 is not {sha256}); {advice}")
    if missing:
        try:
            fetch(released, missing, folder)
        except (OSError, http.client.HTTPException) as problem:
            message = f"{key}: {source!r} is not complete in {folder} and could not be fetched: {problem}"
            raise UserError(f"{message}\n{advice_on(released, folder)}") from None
    return folder


def fetch(released: Released, names: list[str], folder: Path) -> None:
    """Fetch some of the files of a set into its folder.

    Raises:
        OSError: the set has no address, a file cannot be reached, or has another checksum.
    """
    if released.address is None:
        raise OSError("it has no address, as no licence is stated where it comes from")
    print(f"fetching {', '.join(names)} from {released.address}")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        for name in names:
            url = released.url(name)
            file = Path(temporary) / name
            with urllib.request.urlopen(url, timeout=SECONDS) as answer, file.open("wb") as written:
                shutil.copyfileobj(answer, written)
            if sha256_of(file) != released.files[name]:
                raise OSError(f"{url} has another sha256 than {released.files[name]}")
            os.replace(file, folder / name)


def advice_on(released: Released, folder: Path) -> str:
    """How a user can get the files of a set."""
    names = " ".join(released.files)
    elsewhere = "or set data_root in params.yaml, or DATA_ROOT, to the folder that has released/"
    if released.address is None:
        return f"put them there: {names}; {elsewhere}"
    command = (
        f"for file in {names}; do curl -L --create-dirs -o {folder}/$file {released.address}/$file; done"
    )
    return f"put it there: {command}; {elsewhere}"


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
