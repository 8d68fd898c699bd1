"""The files of expert trajectories that MTT's own code has written."""

from pathlib import Path

from stages.runtime.errors import UserError

__all__ = ["trajectory_files"]


def trajectory_files(folder: str, where: str) -> list[Path]:
    """The `replay_buffer_*.pt` of a folder, in the order in which they were written.

    Args:
        where: the key of the folder in the settings, for messages.

    Raises:
        UserError: the folder has no such file.
    """
    try:
        files = list(Path(folder).expanduser().glob("replay_buffer_*.pt"))
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a zero byte
        files = []
    if not files:
        allowed = "the folder <buffer_path>/<data set>/ConvNet of MTT's code"
        raise UserError(f"{where}: {folder!r} has no replay_buffer_*.pt; allowed: {allowed}")
    return sorted(files, key=_place)


def _place(file: Path) -> tuple[int, str]:
    """By number: `replay_buffer_10.pt` comes after `replay_buffer_9.pt`."""
    return len(file.name), file.name
