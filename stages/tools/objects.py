"""Delete the damaged objects and runs of DVC's cache, which DVC itself does not hash again, and broken locks.

    python -m stages.tools.objects [folder]

An object's name is the MD5 of its contents. The folder is that of the cache, or of a remote that is a folder.
What is deleted from the cache comes back by `dvc pull`, or `dvc repro` makes it anew.

The cache of runs has a folder for each run of a stage, with a file that lists its outputs. DVC deletes a file
that it cannot read, and the empty folder then stops it: `join() argument must be str, ... not 'NoneType'`.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. Without the folder in the command, they are deleted where a
kill has left a part of them. Call it when no `dvc` runs.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from dvc import rwlock
from dvc.dvcfile import Lockfile
from dvc.utils import dict_sha256
from dvc.utils.serialize import ParseError, load_yaml
from dvc.utils.strictyaml import YAMLValidationError
from voluptuous import Invalid

from stages.runtime.errors import UserError, run_stage

__all__ = ["damaged_objects", "damaged_runs", "delete_damaged"]

CACHE = Path(".dvc/cache")
BROKEN = (ParseError, UnicodeDecodeError, ValueError, Invalid, YAMLValidationError)


def damaged_objects(folder: Path) -> list[Path]:
    """The objects of a cache or of a remote whose contents are not what their names say.

    They are in files/md5. Where dvc.lock has lost its end, DVC writes lists of a folder's files beside it.
    """
    damaged = []
    for file in files_of(folder, "files/md5/??/*") + files_of(folder, "??/*.dir"):
        expected = file.parent.name + file.stem  # the list of a folder's files ends in ".dir"
        with file.open("rb") as opened:
            actual = hashlib.file_digest(opened, "md5").hexdigest()
        if actual != expected:
            damaged.append(file)
    return damaged


def damaged_runs(folder: Path) -> list[Path]:
    """The files of a cache of runs whose contents are not what their names say."""
    return [file for file in files_of(folder, "runs/??/*/*") if not is_whole_run(file)]


def files_of(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder, without links and folders, which DVC does not put there."""
    return [path for path in sorted(folder.glob(pattern)) if path.is_file() and not path.is_symlink()]


def is_whole_run(file: Path) -> bool:
    """Whether the name of a run's file is that of its contents, as DVC makes it."""
    try:
        run = load_yaml(str(file))
    except BROKEN:
        return False
    return isinstance(run, dict) and dict_sha256(run, exclude=["size", "nfiles"]) == file.name


def delete_damaged(folder: Path) -> tuple[list[Path], list[Path]]:
    """Delete the damaged objects and runs of a cache or of a remote, and the folders of runs without a file.

    Returns:
        the objects and the runs that are gone.
    """
    objects = damaged_objects(folder)
    runs = damaged_runs(folder)
    for file in objects + runs:
        file.unlink()
    for path in sorted((folder / "runs").glob("??/*")):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return objects, runs


def broken_locks() -> list[Path]:
    """Those of DVC's two files of locks that DVC cannot read."""
    readers: dict[Path, Callable[[Path], object]] = {
        Path("dvc.lock"): lambda file: Lockfile.validate(load_yaml(str(file))),
        Path(".dvc/tmp/rwlock"): lambda file: rwlock.SCHEMA(json.loads(file.read_bytes())),
    }
    broken = []
    for file, read in readers.items():
        try:
            if file.exists():
                read(file)
        except BROKEN:
            broken.append(file)
    return broken


def main(folder: str | None = None) -> None:
    if folder is None:
        for file in broken_locks():
            file.unlink()
            print(f"{file} had lost its end: it is deleted")
        folder = str(CACHE)
    if not (Path(folder) / "files/md5").is_dir():
        raise UserError(f"{folder} has no files/md5; it is no cache of DVC and no remote")
    objects, runs = delete_damaged(Path(folder))
    for file in objects + runs:
        print(f"{file} was damaged: it is deleted")
    print(f"{len(objects)} damaged objects, {len(runs)} damaged runs")


if __name__ == "__main__":
    run_stage(main)
