"""Names and paths that a user writes, and the names of the methods that there are."""

import re
from pathlib import Path, PurePosixPath

from stages.images.released import methods
from stages.runtime.errors import UserError
from stages.settings.section import shortened

__all__ = [
    "check_path",
    "check_reads",
    "check_spelling",
    "makers_of_sets",
    "names_in",
    "other_makers_of_sets",
]

# A name is also a stage's, a file's and a word of a command, so no shell, path or option may be in it.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
MOST_CHARACTERS = 250  # of a path; a file system takes no longer name
STAGES = Path(__file__).parents[1]


def check_spelling(name: str, where: str) -> None:
    """A name fits into files and commands."""
    if not NAME.fullmatch(name):
        allowed = "letters, digits, '-' and '_', at most 100 of them, and no '-' at the start"
        problem = f"{shortened(ascii(name))} is no name for files and commands"
        raise UserError(f"{where}: {problem}; allowed: {allowed}")


def check_reads(reads: str, where: str) -> None:
    """What a row reads lies below data/."""
    path = PurePosixPath(reads)
    leaves = path.is_absolute() or ".." in path.parts or not path.parts
    if leaves or not reads.isprintable() or len(reads) > MOST_CHARACTERS:
        allowed = "buffer/<name>, sets/<folder>, distill/<row>, or nothing"
        raise UserError(f"{where}: {shortened(ascii(reads))} is no path below data/; allowed: {allowed}")


def check_path(path: str, where: str) -> None:
    """A path that a user names outside of data/."""
    if not path or not path.isprintable() or len(path) > MOST_CHARACTERS:
        allowed = f"1 to {MOST_CHARACTERS} printable characters"
        raise UserError(f"{where}: {shortened(ascii(path))} is no path; allowed: {allowed}")


def makers_of_sets() -> list[str]:
    """The backbones that make or choose images: not `file`, which reads them, nor `full`, which has none."""
    return [name for name in names_in("backbones") if name not in ("file", "full")]


def other_makers_of_sets() -> list[str]:
    """The methods that have made released sets and are no backbone here."""
    return [name for name in methods() if name not in makers_of_sets()]


def names_in(room: str) -> list[str]:
    """The methods of a room: its files."""
    folder = STAGES / room
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
