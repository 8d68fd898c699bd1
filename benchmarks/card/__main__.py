"""Tests and timings for a GPU that is lent by the minute, in calls that go on where the last one stopped.

    python -m benchmarks.card [--minutes 9] [--out FOLDER] [--golden FOLDER] [--public FOLDER] [--small]

The lines of the table are worked off one after the other:

- the ceilings of the device: operations a second of a large product, bytes a second of a large copy;
- tests, and the golden numbers of `--golden`, in float32;
- steps of experts, one network or several, every way and precision;
- updates of MTT and RTP, without and with CUDA graphs, and of gradient matching, both ways;
- the public programs, from their clones below `--public` (`benchmarks/public.py`);
- rows of CIFAR-10, from the experts to the tables (`stages/tools/lent.py`), if `data_root` has the images.

Each line is written to FOLDER/card.json as soon as it is known. A line that is done or has failed is not
tried again; with `--again`, one that has failed is. A line fails too where its numbers are not finite, or far
from the reference's; its times are kept then. After the minutes the call ends with status 3, and with 0 once
all is done. `--only row` works off the lines alone whose names begin so. `--small` measures tiny networks, on
any device.

Another machine goes on too, if it gets FOLDER. Rows do not: they need `data/` and `scratch/`, of gigabytes.

Beside torch, numpy and safetensors it needs pydantic, PyYAML, tqdm and threadpoolctl. Tests and golden
numbers need pytest too, rows kornia, and single lines more, which they say then. A machine without the
internet gets wheels from one that has it:

    pip download --only-binary=:all: -d wheels pydantic pyyaml tqdm threadpoolctl pytest kornia
    pip install --no-index --find-links wheels pydantic pyyaml tqdm threadpoolctl pytest kornia

Where the other machine has another Python or system, `--python-version` and `--platform` tell pip so. Where
it has torch already, `--no-deps` keeps pip from bringing another; then every missing package has to be named:
beside pydantic its pydantic-core, annotated-types, typing-inspection and typing-extensions, beside kornia
kornia-rs.

With half an hour in all, take what decides most first, a call for each: `--only "tests, test_graphs"`,
`--only "update of RTP"`, `--only "update of MTT, 10"`, `--only "step of 25"`, then all lines.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NEEDED = ("torch", "numpy", "safetensors", "pydantic", "yaml", "tqdm", "threadpoolctl")
WORKER = (sys.executable, "-m", "benchmarks.card.worker")
UNFINISHED = 3  # exit status
FINAL = ("done", "failed")  # outcomes of lines that are not tried again
PATIENCE = 5  # seconds that the worker has to end its own processes


def work(options: argparse.Namespace) -> int:
    """Have workers work off the lines until the deadline, and return the exit status.

    A worker ends with the first line that fails, because an error may leave a GPU's context unusable.
    """
    deadline = time.time() + 60 * options.minutes
    state = former_state(options)
    while True:
        status, begun = run_worker(options, deadline, state)
        if status == 0:
            return 0
        if status == UNFINISHED or time.time() >= deadline:
            return UNFINISHED
        if not begun:
            sys.exit(f"error: the worker ended with {status}: {last_line(options.out / 'card.log')}")


def file_of(options: argparse.Namespace) -> Path:
    return options.out / ("card-small.json" if options.small else "card.json")


def former_state(options: argparse.Namespace) -> dict[str, Any]:
    """What card.json holds: the `machine`, and `lines` by name."""
    file = file_of(options)
    state = json.loads(file.read_text()) if file.exists() else {"lines": {}}
    if options.again:
        lines = state["lines"].items()
        state["lines"] = {name: line for name, line in lines if line["outcome"] != "failed"}
    return state


def run_worker(options: argparse.Namespace, deadline: float, state: dict[str, Any]) -> tuple[int, bool]:
    """Run a worker, and keep what it tells of each line; its exit status, and whether it began one."""
    from stages.runtime.files import write_json  # once it is known that the packages are there
    from stages.tools.circumstances import commit

    file, log = file_of(options), options.out / "card.log"
    lines = state["lines"]
    settled = [name for name, line in lines.items() if line["outcome"] in FINAL]
    rates = lines.get("ceilings", {})
    words = vars(options) | {"out": str(options.out), "deadline": deadline, "done": settled, "rates": rates}
    running, begin, begun, goes_on = "", 0.0, False, False
    with started(json.dumps(words), log, deadline) as worker:
        for message in map(json.loads, worker.stdout):
            if "machine" in message:
                state |= message
            elif "begin" in message:
                running, begin, begun = message["begin"], time.time(), True
                goes_on = message.get("goes_on", False)
                print(f"{running} ...", flush=True)
            else:
                lines[running] = message | {"commit": commit()}
                running = ""
            write_json(file, state)
    if running and time.time() < deadline:
        lines[running] = failed(f"the process ended with {worker.returncode}: {last_line(log)}")
    elif running and not goes_on and time.time() - begin > 30 * options.minutes:  # half of this call
        lines[running] = failed(f"not done after {time.time() - begin:.0f} s")
    write_json(file, state)
    return worker.returncode, begun


@contextlib.contextmanager
def started(words: str, log: Path, deadline: float) -> Iterator[subprocess.Popen]:
    """A worker that is ended at the deadline, with all processes that it has started."""
    with log.open("a") as errors:
        command = [*WORKER, words]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
    timer = threading.Timer(deadline - time.time(), end, [worker])
    timer.start()
    try:
        yield worker
        worker.wait()
    finally:
        timer.cancel()
        end(worker)


def end(worker: subprocess.Popen) -> None:
    for number, seconds in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(seconds)


def failed(error: str) -> dict[str, str]:
    return {"outcome": "failed", "error": error}


def last_line(file: Path) -> str:
    lines = file.read_text().strip().splitlines()
    return lines[-1] if lines else ""


# The table

COLUMNS = {
    "median, s": "median",
    "floor, s": "floor",
    "bytes, s": "floor_of_bytes",
    "first, s": "first",
    "peak, MiB": "peak_mib",
    "apart": "apart",
}


def table(lines: dict[str, dict[str, Any]]) -> str:
    """`floor` is that of the operations, `bytes` that of what eager calls move. Left out is said below."""
    reasons: dict[str, list[str]] = {}
    rows = [["", "outcome", *COLUMNS, ""]]
    for name, line in lines.items():
        if line["outcome"] == "left out":
            reasons.setdefault(line["said"], []).append(name)
            continue
        cells = [f"{line[key]:.3g}" if key in line else "" for key in COLUMNS.values()]
        rows.append([name, line["outcome"], *cells, str(line.get("error") or line.get("said") or "")])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    text = ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    text += [f"left out, {reason}: {'; '.join(names)}" for reason, names in reasons.items()]
    return "\n".join(text)


# The program


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card")
    parser.add_argument("--minutes", type=float, default=9, help="of this call (default 9)")
    parser.add_argument("--out", type=Path, default=Path("scratch/card"), help="folder of card.json")
    parser.add_argument("--golden", default="../shared/golden", help="folder of the golden numbers")
    parser.add_argument("--public", help="folder of the public programs' clones")
    parser.add_argument("--small", action="store_true", help="tiny networks")
    parser.add_argument("--only", default="", help="how the names of the lines begin (default: all)")
    parser.add_argument("--again", action="store_true", help="try what has failed again")
    return parser.parse_args()


def main() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: missing packages: {', '.join(missing)} (benchmarks/card/__main__.py says more)")
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    status = work(options)
    print(table(json.loads(file_of(options).read_text())["lines"]))
    print("all done" if status == 0 else "not finished: the next call goes on")
    sys.exit(status)


if __name__ == "__main__":
    main()
