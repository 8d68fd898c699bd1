"""Delete the damaged objects of DVC's cache, which DVC itself does not hash again.

    python -m stages.tools.objects [folder]

An object's name is the MD5 of its contents. The folder is that of the cache, or of a remote that is a folder.
What is deleted from the cache comes back by `dvc pull`, or `dvc repro` makes it anew.
"""

import hashlib
from pathlib import Path

from stages.runtime.errors import UserError, run_stage

__all__ = ["damaged_objects"]

CACHE = Path(".dvc/cache")


def damaged_objects(folder: Path) -> list[Path]:
    """The objects of a cache or of a remote whose contents are not what their names say.

    They are in files/md5. Where dvc.lock has lost its end, DVC writes lists of a folder's files beside it.
    """
    damaged = []
    for file in sorted([*(folder / "files/md5").glob("??/*"), *folder.glob("??/*.dir")]):
        expected = file.parent.name + file.stem  # the list of a folder's files ends in ".dir"
        with file.open("rb") as opened:
            actual = hashlib.file_digest(opened, "md5").hexdigest()
        if actual != expected:
            damaged.append(file)
    return damaged


def main(folder: str = str(CACHE)) -> None:
    if not (Path(folder) / "files/md5").is_dir():
        raise UserError(f"{folder} has no files/md5; it is no cache of DVC and no remote")
    damaged = damaged_objects(Path(folder))
    for file in damaged:
        file.unlink()
        print(f"{file} was damaged: it is deleted")
    print(f"{len(damaged)} damaged objects")


if __name__ == "__main__":
    run_stage(main)
