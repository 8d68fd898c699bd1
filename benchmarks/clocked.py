"""Run a stage, and note when it began, when its imports were done and when it ended.

    python -m benchmarks.clocked <seconds since 1970 when it began> stages.<stage> [<word> ...]

`benchmarks.repro` has DVC call this in place of `python -m stages.<stage>`. A line of JSON is added to
the file that TIMELINE in the environment names.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

from stages.runtime.errors import run_stage


def main(begun: str, module: str, *words: str) -> None:
    stage = importlib.import_module(module)
    imported = time.time()
    sys.argv = [module, *words]
    try:
        run_stage(stage.main)
    finally:
        name = module.removeprefix("stages.")
        times = {"begun": float(begun), "imported": imported, "ended": time.time()}
        with Path(os.environ["TIMELINE"]).open("a") as file:
            file.write(json.dumps({"stage": " ".join([name, *words]), **times}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
