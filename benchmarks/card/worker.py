"""Work off the lines that are not done, and tell of each on standard output, in JSON.

    python -m benchmarks.card.worker <options as JSON>

`benchmarks.card` calls it. What the work itself prints goes to standard error.
"""

import json
import math
import os
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.card import checks, programs, steps, updates
from benchmarks.card.lines import LeftOut, Line, Options, UnfinishedError, ceilings
from benchmarks.measure import machine

OURS = ("benchmarks", "stages", "tests")


def wanted(options: Options) -> Iterator[Line]:
    """The lines that the command line asks for, and the ceilings, which other lines are put beside."""
    for line in all_lines(options):
        if line.name == "ceilings" or line.name.startswith(options.only):
            yield line


def all_lines(options: Options) -> Iterator[Line]:
    yield Line("ceilings", partial(ceilings, options))
    yield from checks.test_lines(options)
    yield from checks.golden_lines(options)
    yield from steps.lines(options)
    yield from updates.lines(options)
    yield from programs.public_lines(options)
    yield from programs.row_lines(options)


def outcome(line: Line) -> dict[str, Any]:
    try:
        numbers = line.work()
        for name, value in numbers.items():
            if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
                raise ArithmeticError(f"{name} is {value}")
        return {"outcome": "failed" if "error" in numbers else "done", **numbers}
    except LeftOut as reason:
        return {"outcome": "left out", "said": str(reason)}
    except UnfinishedError:
        return {"outcome": "goes on"}
    except ModuleNotFoundError as problem:
        if str(problem.name).partition(".")[0] not in OURS:
            return {"outcome": "left out", "said": f"needs {problem.name}"}
        return failed(problem)
    except Exception as problem:
        return failed(problem)


def failed(problem: Exception) -> dict[str, str]:
    traceback.print_exc()
    first = "".join(traceback.format_exception_only(problem)).strip().splitlines()[0]
    return {"outcome": "failed", "error": first}


def main(words: str) -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=channel, flush=True)

    values = json.loads(words)
    options = Options(
        out=Path(values["out"]),
        golden=Path(values["golden"]).resolve(),
        public=Path(values["public"]) if values["public"] else None,
        small=values["small"],
        deadline=values["deadline"],
        only=values["only"],
        rates={key: value for key, value in values["rates"].items() if isinstance(value, float)},
    )
    tell({"machine": machine()})
    unfinished = False
    for line in wanted(options):
        if line.name in values["done"]:
            continue
        tell({"begin": line.name, "goes_on": line.goes_on})
        result = outcome(line)
        tell(result)
        if result["outcome"] == "failed" and "median" not in result:  # the GPU's context may be unusable
            sys.exit(1)
        unfinished |= result["outcome"] == "goes on"
    sys.exit(3 if unfinished else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
