"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys

__all__ = ["end_with_dvc", "end_with_parent"]

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def end_with_parent() -> None:
    """Let this process be killed when its parent ends, even by `kill -9`.

    Its work is never lost, because it is in checkpoints. Without this, it would go on beside the process that
    does the same work anew, and an idle worker would stay for ever. Only Linux has it; elsewhere nothing
    happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_dvc() -> None:
    """The same, for a stage that DVC has started; one that was started by hand may outlive its shell."""
    if "DVC_STAGE" in os.environ:
        end_with_parent()
