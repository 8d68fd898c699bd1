"""Delete the damaged objects and runs of DVC's cache, which DVC itself does not hash again.

    python -m stages.tools.objects [folder]

An object's name is the MD5 of its contents. The folder is that of the cache, or of a remote that is a folder.
What is deleted from the cache comes back by `dvc pull`, or `dvc repro` makes it anew.

The cache of runs has a folder for each run of a stage, with a file that lists its outputs. DVC deletes a file
that it cannot read, and the empty folder then stops it: `join() argument must be str, ... not 'NoneType'`.
"""

import hashlib
from pathlib import Path

from dvc.utils import dict_sha256
from dvc.utils.serialize import ParseError, load_yaml

from stages.runtime.errors import UserError, run_stage

__all__ = ["damaged_objects", "damaged_runs", "delete_damaged"]

CACHE = Path(".dvc/cache")


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
    except (ParseError, UnicodeDecodeError):
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


def main(folder: str = str(CACHE)) -> None:
    if not (Path(folder) / "files/md5").is_dir():
        raise UserError(f"{folder} has no files/md5; it is no cache of DVC and no remote")
    objects, runs = delete_damaged(Path(folder))
    for file in objects + runs:
        print(f"{file} was damaged: it is deleted")
    print(f"{len(objects)} damaged objects, {len(runs)} damaged runs")


if __name__ == "__main__":
    run_stage(main)
