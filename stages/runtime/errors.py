"""Mistakes of the user, which are reported in a line or two and never as a traceback."""

import sys
from collections.abc import Callable

__all__ = ["UserError", "run_stage"]


class UserError(Exception):
    """A mistake in the settings or the data. The message names it and what is allowed."""


def run_stage(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the words of the command line; end with one `error:` line if it fails."""
    try:
        main(*sys.argv[1:])
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
    except OSError as problem:  # e.g. a full disk, or a file that may not be read
        sys.exit(f"error: {problem}")
