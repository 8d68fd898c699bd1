"""Mistakes of the user: reported in a line or two, never as a traceback."""

import sys
from collections.abc import Callable

__all__ = ["UserError", "run_stage"]


class UserError(Exception):
    """Something in the settings or the data that only the user can mend; the message names it and what is allowed."""


def run_stage(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the command line's words."""
    try:
        main(*sys.argv[1:])
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
    except OSError as problem:  # a full disk, a file that may not be read
        sys.exit(f"error: {problem}")
