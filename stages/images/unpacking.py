"""Archives of data sets, unpacked: nothing in them may leave its folder or outgrow the disk."""

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from stages.runtime.errors import UserError

__all__ = ["unpack"]

MOST_GROWTH = 20  # times the archive's size; the archives of the paper's data sets grow to less than twice
HEADER = 512  # bytes of a tar file for each member, however small
PLAIN = "allowed: files and folders"


class Member(NamedTuple):
    """A file in an archive, or a folder."""

    name: str
    content: IO[bytes] | None  # None: it is a folder


class HarmfulError(Exception):
    """An archive that is readable but may do harm."""


class Limited:
    """A stream that can be read up to a limit."""

    def __init__(self, stream: gzip.GzipFile, most: int, reason: str):
        self.stream = stream
        self.left = most
        self.reason = reason

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise HarmfulError(self.reason)
        return content


def unpack(file: Path, folder: Path) -> None:
    """Write what an archive holds, a zip or a tar with gzip, below a folder.

    Raises:
        UserError: it is no such archive; a member is neither a file nor a folder, or lies elsewhere; or the
            content is more than `MOST_GROWTH` times as large as the archive.
    """
    size = file.stat().st_size
    most = max(MOST_GROWTH * size, MOST_GROWTH * HEADER)
    reason = f"it grows from {size:,} to more than {most:,} bytes; allowed: {MOST_GROWTH} times its size"
    members = _in_zip if file.suffix == ".zip" else _in_tar
    try:
        for member in members(file, most, reason):
            _write(member, folder)
    except HarmfulError as problem:
        raise UserError(f"{file}: not unpacked: {problem}") from None
    except Exception as problem:  # of tar's, zip's, zlib's and lzma's own kinds, or a full disk
        reason = str(problem) or type(problem).__name__
        raise UserError(f"{file}: cannot be unpacked: {reason}") from None


def _in_tar(file: Path, most: int, reason: str) -> Iterator[Member]:
    with gzip.open(file) as stream:
        limited = Limited(stream, most, reason)
        with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
            for header in archive:
                is_plain = header.isfile() and not header.issparse()
                if not is_plain and not header.isdir():
                    kind = "a link" if header.islnk() or header.issym() else "a device or has holes"
                    raise HarmfulError(f"its member {header.name[:100]!r} is {kind}; {PLAIN}")
                yield Member(header.name, archive.extractfile(header))
        while limited.read(2**16):  # gzip looks at its checksum where the stream ends
            pass


def _in_zip(file: Path, most: int, reason: str) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        headers = archive.infolist()
        if sum(header.file_size + HEADER for header in headers) > most:
            raise HarmfulError(reason)
        for header in headers:
            kind = header.external_attr >> 28  # of a file on Unix; 0: nobody has said it
            if kind not in (0, 4, 8):
                raise HarmfulError(f"its member {header.filename[:100]!r} is a link; {PLAIN}")
            if header.is_dir():
                yield Member(header.filename, None)
            else:
                with archive.open(header) as content:
                    yield Member(header.filename, content)


def _write(member: Member, folder: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise HarmfulError(f"its member {member.name[:100]!r} leaves the folder; allowed: names below it")
    place = folder / path
    if member.content is None:
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as written:
        shutil.copyfileobj(member.content, written)
