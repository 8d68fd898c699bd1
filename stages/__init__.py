"""The pipeline: a module for each stage of dvc.yaml, and the rooms that they share."""

import signal
import sys

# `python -m stages.<stage>` comes here first, and then imports PyTorch. Until `run_stage` answers to ctrl-C,
# ctrl-C ends the process without a traceback.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
