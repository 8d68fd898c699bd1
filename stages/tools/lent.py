"""lent: rows from raw images to their finished numbers, without DVC, in pieces of a few minutes.

    python -m stages.tools.lent <row> [<row> ...] [--minutes 9] [--until-done]
        [--skip features] [--out reports/cifar10]

For machines that are lent for minutes at a time. The stages of each row run one after the other and leave
the same files below data/ as `dvc repro`. When the minutes are over, the running stage is killed; it has
saved its state to scratch/, and the next call goes on from there. A stage is done while its stamp in
scratch/lent/ has the hashes of its settings, code, inputs and outputs.

Ends with status 0 when all is done, with 3 when the next call goes on, and else with the status of the stage
that failed. stages/tools/lent_results.py says which files it leaves in the output folder, which is OUT of the
environment where that is set.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stages.runtime.errors import UserError, run_stage
from stages.settings.rows import Row
from stages.tools.lent_results import write_piece, write_results
from stages.tools.lent_stages import (
    ANALYSES,
    STAMPS,
    Stage,
    inputs_hash,
    is_done,
    plan,
    remove_stamp,
    write_stamp,
)

__all__ = ["UNFINISHED", "end_leftovers", "work"]

# torch is not imported here: a call with nothing to do ends at once, and a stage's peak memory is its own.

MARK = "LENT_STAGE"  # in the environment of the stages, so that the next call knows them
UNFINISHED = 3  # exit status


def work(stages: list[Stage], deadline: float, out: Path) -> int:
    """Run the stages that are not done until the deadline, and return the exit status.

    Args:
        deadline: on the clock of `time.monotonic`.
        out: the folder of pieces.json.
    """
    for stage in stages:
        if is_done(stage):
            continue
        status = UNFINISHED
        if time.monotonic() < deadline:
            status = run(stage, deadline, out)
        if status == UNFINISHED:
            print(f"not finished: {stage.name} goes on at the next call")
        elif status:
            print(f"error: {stage.name} ended with status {status}", file=sys.stderr)
        if status:
            return status
    print("all done")
    return 0


def run(stage: Stage, deadline: float, out: Path) -> int:
    """Run one stage, leave its stamp if it succeeds, record what it took, and return its exit status."""
    print(f"{stage.name}: python -m stages.{stage.kind} {stage.entry}", flush=True)
    remove_stamp(stage)
    inputs = inputs_hash(stage)
    begun = datetime.now(UTC).isoformat(timespec="milliseconds")
    begin = time.monotonic()
    status, usage = run_command([sys.executable, "-m", f"stages.{stage.kind}", stage.entry], deadline)
    seconds = time.monotonic() - begin
    if status == -signal.SIGKILL and time.monotonic() >= deadline:
        status = UNFINISHED
    if status == 0:
        write_stamp(stage, inputs)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts memory in bytes, Linux in KiB
    piece = {
        "begun": begun,
        "stage": stage.name,
        "inputs": inputs,
        "outcome": {0: "finished", UNFINISHED: "stopped"}.get(status, "failed"),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / unit, 2),
    }
    write_piece(piece, out)
    return 128 - status if status < 0 else status  # as a shell reports a signal


def run_command(command: list[str], deadline: float) -> tuple[int, Any]:
    """Run a command until the deadline, and return its status and the resources that it used."""
    environment = os.environ | {MARK: str(STAMPS.resolve())}
    child = subprocess.Popen(command, env=environment, process_group=0)
    timer = threading.Timer(deadline - time.monotonic(), kill_group, [child.pid])
    timer.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    finally:
        timer.cancel()
        kill_group(child.pid)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage


def kill_group(group: int) -> None:
    """Kill a command with the processes that it has forked; `replacing` keeps its files whole."""
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def end_leftovers() -> None:
    """Kill stages that outlived a killed call in this folder (Linux), because they lock their work."""
    mark = f"{MARK}={STAMPS.resolve()}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def run_pieces(rows: list[Row], options: argparse.Namespace, out: Path) -> int:
    """One piece, or piece after piece. The results are written after each."""
    stages = plan(rows, options.skip)
    all_stages = plan(rows)  # also those that an earlier call may have run
    while True:
        deadline = time.monotonic() + 60 * options.minutes
        status = work(stages, deadline, out)
        finished = {stage.name for stage in all_stages if is_done(stage)}
        write_results(rows, finished, out)
        if status != UNFINISHED or not options.until_done:
            return status


def _minutes(word: str) -> float:
    """A number of the command line that is above 0, and no longer than a timer can wait."""
    number = float(word)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{word}; allowed: a number above 0 and below a million")
    return number


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.lent")
    parser.add_argument("rows", nargs="+", metavar="row", help="of any suites/*.yaml")
    parser.add_argument("--minutes", type=_minutes, default=9, help="of a piece (default 9)")
    parser.add_argument("--until-done", action="store_true", help="piece after piece in one call")
    parser.add_argument(
        "--out", default="reports/cifar10", help="folder of the results (default reports/cifar10)"
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        choices=ANALYSES,
        help="a stage to leave out; several times for more",
    )
    options = parser.parse_args(words)
    rows = [Row(name) for name in options.rows]
    listed = subprocess.run([sys.executable, "-m", "stages.code"])
    if listed.returncode:
        sys.exit(listed.returncode)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # `run_command` then kills its stage
    STAMPS.mkdir(parents=True, exist_ok=True)
    lock = STAMPS / "lock"
    try:
        with FileLock(lock).acquire(blocking=False):
            end_leftovers()
            status = run_pieces(rows, options, Path(os.environ.get("OUT", options.out)))
    except Timeout:
        raise UserError(f"another call is running here (lock {lock}); wait for it or stop it") from None
    sys.exit(status)


if __name__ == "__main__":
    run_stage(main)
