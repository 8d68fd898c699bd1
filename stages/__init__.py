"""The pipeline: a module for each stage of dvc.yaml, and the rooms that they share."""

import signal
import sys

from stages.runtime.orphans import end_with_dvc

# `python -m stages.<stage>` comes here first, and then imports PyTorch, which takes seconds. Until
# `run_stage` answers to ctrl-C, it ends the process without a traceback.
if sys.argv[:1] == ["-m"]:
    end_with_dvc()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
