"""How a stage ends that cannot go on: in a line or two, and never as a traceback.

Mistakes of the user, a full disk, too little memory and ctrl-C end so. All else is a mistake of the code.
"""

import inspect
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["UserError", "is_about_memory", "run_stage"]

STOPS = (signal.SIGINT, signal.SIGTERM)  # ctrl-C, and what a machine sends before it is taken away
PATIENCE = 10  # seconds after a first ctrl-C in which others are ignored, because the stage is cleaning up
# In the words of PyTorch, of oneDNN and of CUDA's libraries.
NO_MEMORY = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",
    "ALLOC_FAILED",
)


class UserError(Exception):
    """A mistake in the settings or the data. The message names it and what is allowed."""


class End(NamedTuple):
    """How a stage has ended early."""

    message: str
    status: int = 1


def run_stage(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the words of the command line; end with one `error:` line if it fails.

    After ctrl-C or SIGTERM one line says so, and the exit status is that of shells: 130 or 143.
    """
    _Stop().listen()
    end = _end_of(main)
    if end is None:
        return
    if end.status == 1:  # by now the progress bars are closed
        sys.exit(end.message)
    print(end.message, file=sys.stderr)
    for number in STOPS:  # Python would forget its own answer to them before it ends
        signal.signal(number, signal.SIG_IGN)
    sys.exit(end.status)


def _end_of(main: Callable[..., None]) -> End | None:
    """Call `main`, and say how it has ended early; None if it has done its work."""
    try:
        _check_words(main, sys.argv[1:])
        main(*sys.argv[1:])
    except UserError as mistake:
        return End(f"error: {mistake}")
    except OSError as problem:  # e.g. a full disk, or a file that may not be read
        return End(_with_notes(f"error: {problem}", problem))
    except (MemoryError, RuntimeError) as problem:
        if not is_about_memory(problem):
            raise
        return End(_with_notes(f"error: not enough memory. {_first_line(problem)}", problem))
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        return End(_with_notes("stopped", stop), 128 + number)
    return None


def _check_words(main: Callable[..., None], words: list[str]) -> None:
    """
    Raises:
        UserError: `main` takes fewer or more words.
    """
    signature = inspect.signature(main)
    try:
        signature.bind(*words)
    except TypeError:
        names = " ".join(f"<{name}>" for name in signature.parameters)
        raise UserError(f"{len(words)} words; allowed: {names or 'none'}") from None


def _with_notes(message: str, problem: BaseException) -> str:
    """The message with what `scratch` has noted: where the next run goes on."""
    return "; ".join([message, *getattr(problem, "__notes__", [])])


def is_about_memory(problem: BaseException) -> bool:
    """Whether memory has run out: Python's, PyTorch's, that of a GPU, or that of CUDA's libraries."""
    is_named_so = isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError"
    return is_named_so or any(words in str(problem) for words in NO_MEMORY)


def _first_line(problem: BaseException) -> str:
    return str(problem).partition("\n")[0]


class _Stop:
    """What ctrl-C and SIGTERM do in a stage: they raise KeyboardInterrupt, so that it cleans up and ends."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.last = -float("inf")  # seconds of the clock that nobody can set

    def listen(self) -> None:
        """Answer to the signals, except to those that the process was told to ignore, as `nohup` does."""
        for number in STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self)

    def __call__(self, number: int, _frame: object) -> None:
        if os.getpid() != self.process:  # forked a moment ago; the stage ends it by SIGTERM
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif time.monotonic() - self.last > PATIENCE:
            self.last = time.monotonic()
            raise KeyboardInterrupt(number)
