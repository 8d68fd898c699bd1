"""The campaign `kill`: `dvc repro` is killed at random moments, and has to end as if it never was.

A small project with all stages is built once undisturbed. In a second one, `dvc repro` is started and, after
a random time, `kill -9` is sent to the whole process group, to dvc alone, or to the stage's process alone.
Then `dvc repro` is started again, and so on. No one removes or repairs anything in between, but for the two
files that DVC writes in place: where it says that a kill has left half of one, it is deleted, and the kill
counts as one that needed a hand. As most random moments fall into long stages, each stage is killed once
afterwards, at a random moment of its work. A kill is

- harmless, if the next `dvc repro` says no error
- reported, if it ends in one clear error, and the one after that says none
- WRONG otherwise

At the end, `dvc repro` has to finish with results that are equal to the undisturbed ones byte for byte.
"""

import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.faults.checkout import Checkout
from benchmarks.faults.outcomes import close
from tests.project import suite

__all__ = ["KINDS", "Kill", "Killing", "kill", "seconds_of_stages"]

KINDS = ("whole group", "dvc alone", "stage alone")
POLL = 0.01  # seconds
LOOK = 0.03  # seconds between two looks at the processes, which take longer than to wait
TRIES = 3  # runs of `dvc repro` for each stage, at most, until every stage was hit
PATIENCE = 60  # seconds that a stage may take to end with its dvc
ERROR = re.compile(r"^ERROR: (.*)|^(?:error: )(.*)|^('.*' validation failed.*)", re.MULTILINE)
BROKEN = re.compile(r"Unable to read RWLock-file '(.*?)'|^'\./(dvc\.lock)' validation failed", re.MULTILINE)
NOTICE = re.compile(r".*(?:is damaged|made anew).*")


class Kill(NamedTuple):
    """One kill, and what became of it."""

    kind: str
    stage: str  # the one that was running; "": none was, because dvc was busy between two stages
    seconds: float  # after the start of `dvc repro`
    outcome: str
    said: str  # by the next run: its errors and notices, or "went on"
    by_hand: str = ""  # the file of DVC's own that had to be deleted then


class Killing:
    """A project in which `dvc repro` is killed."""

    def __init__(self, checkout: Checkout, undisturbed: dict[str, bytes], longest: float, seed: int) -> None:
        """Make ready.

        Args:
            undisturbed: the results that every finished `dvc repro` must have.
            longest: seconds after which a `dvc repro` is killed at the latest.
        """
        self.checkout = checkout
        self.undisturbed = undisturbed
        self.longest = longest
        self.random = random.Random(seed)
        self.log = checkout.folder.parent / "killed.log"
        self.heard = ""  # what the running `dvc repro` has said until it was killed or ended
        self.problems: list[str] = []  # of processes that stayed, and of runs that ended by themselves

    def kills(self, count: int) -> Iterator[Kill]:
        """Kill `count` times at random moments; each kill is judged by the `dvc repro` after it."""

        def wait(process: subprocess.Popen) -> None:
            self._wait(process, self.longest)

        yield from self._kills(wait, lambda done: len(done) == count)

    def kills_in_every_stage(self, seconds: dict[str, float]) -> Iterator[Kill]:
        """Kill every stage of dvc.yaml once.

        Args:
            seconds: as from `seconds_of_stages`.
        """
        self.checkout.start_anew()
        left = set(self.checkout.stages())
        tries = iter(range(TRIES * len(left)))

        def wait(process: subprocess.Popen) -> None:
            self._wait_in(process, left, seconds)

        def is_enough(done: list[Kill]) -> bool:
            left.difference_update(kill.stage.split(" ")[0] for kill in done)
            return not left or next(tries, None) is None

        yield from self._kills(wait, is_enough)
        self.problems += [f"{stage} was never hit" for stage in sorted(left)]

    def _kills(
        self, wait: Callable[[subprocess.Popen], None], is_enough: Callable[[list[Kill]], bool]
    ) -> Iterator[Kill]:
        """Kill until it is enough.

        Args:
            wait: waits for the moment to kill, or for the end of `dvc repro`.
            is_enough: is asked before each `dvc repro`, with all kills so far.
        """
        done: list[Kill] = []
        last: Kill | None = None
        while not is_enough(done):
            kind = KINDS[len(done) % len(KINDS)]
            began = time.time()
            process = self.checkout.start("repro", log=self.log)
            wait(process)
            stage = self.kill_now(process, kind)
            self.delete_broken()
            if last:
                yield judged(last, self.heard)
            if stage is not None:
                last = Kill(kind, stage, round(time.time() - began, 2), "", "")
                done.append(last)
            else:
                if process.returncode == 0 or last is None:  # one clear error is allowed after a kill
                    self.check_end(process.returncode)
                    self.checkout.start_anew()
                last = None
        if last:
            yield from self.last_judged(last)

    def _wait(self, process: subprocess.Popen, longest: float) -> None:
        """Wait for a random time, or for the end of `dvc repro`."""
        moment = time.time() + self.random.uniform(0, longest)
        while time.time() < moment and process.poll() is None:
            time.sleep(POLL)

    def _wait_in(self, process: subprocess.Popen, stages: set[str], seconds: dict[str, float]) -> None:
        """Wait for a random moment in the work of one of these stages, or for the end of `dvc repro`."""
        while process.poll() is None:
            running = running_in(process.pid)
            if running.split(" ")[0] in stages:
                self._wait(process, seconds.get(running, 0.0))
                if running_in(process.pid) == running:
                    return
            time.sleep(LOOK)

    def last_judged(self, last: Kill) -> Iterator[Kill]:
        """Judge the last kill, and check what is there at the end."""
        status = self.finish()
        self.delete_broken()
        yield judged(last, self.heard)
        if status:  # one clear error is allowed
            status = self.finish()
        self.check_end(status)

    def finish(self) -> int:
        """The exit status of a `dvc repro` that no one kills."""
        status = self.checkout.start("repro", log=self.log).wait()
        self.heard = self.log.read_text()
        return status

    def delete_broken(self) -> None:
        """Delete the files of which DVC has just said that they are not whole."""
        for name in broken(self.heard):
            (self.checkout.folder / name).unlink(missing_ok=True)

    def kill_now(self, process: subprocess.Popen, kind: str) -> str | None:
        """Kill, and wait for the end of what was killed.

        Returns:
            the stage that was running, or None where `dvc repro` has ended before it could be killed.
        """
        stages = stages_of(process.pid)
        while kind == "stage alone" and not stages and process.poll() is None:
            time.sleep(POLL)
            stages = stages_of(process.pid)
        running = name_of(stages[0]) if stages else ""
        has_ended = process.poll() is not None
        self.heard = self.log.read_text()
        if has_ended:
            return None
        if kind == "whole group":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "dvc alone":
            process.kill()
        else:
            stages[0].kill()
        process.wait()
        self.check_end_of(stages)
        return running

    def check_end_of(self, stages: list[psutil.Process]) -> None:
        """Note a stage that stays when its dvc or its parent is gone."""
        _, alive = psutil.wait_procs(stages, timeout=PATIENCE)
        self.problems += [f"process {process.pid} has not ended" for process in alive]

    def check_end(self, status: int) -> None:
        """Check the project after a `dvc repro` that has ended by itself with this exit status."""
        if status:
            self.problems.append(f"dvc repro ended with {status}: {self.heard[-2000:]}")
            return
        different = self.checkout.differences(self.undisturbed)
        self.problems += [f"{path} differs" for path in different if not self.may_differ(path)]
        self.problems += [f"{lock} is left" for lock in self.checkout.locks()]
        again = self.checkout.must("repro")
        if "up to date" not in again:
            self.problems.append(f"another dvc repro ran: {again[-2000:]}")

    def may_differ(self, path: str) -> bool:
        """Whether a file need not be as in the undisturbed project."""
        return False


def stages_of(dvc: int) -> list[psutil.Process]:
    """The processes of the stage that a dvc runs, the stage itself first."""
    try:
        below = psutil.Process(dvc).children(recursive=True)
        return [process for process in below if name_of(process)]
    except psutil.Error:
        return []


def running_in(dvc: int) -> str:
    """The stage that a dvc runs, and the name that it was given; "" if it runs none."""
    stages = stages_of(dvc)
    return name_of(stages[0]) if stages else ""


def seconds_of_stages(dvc: subprocess.Popen) -> dict[str, float]:
    """Wait for the end of a dvc; how long each stage has run, by its name and the one that it was given."""
    seconds: dict[str, float] = {}
    before = time.time()
    while dvc.poll() is None:
        time.sleep(LOOK)
        now = time.time()
        running = running_in(dvc.pid)
        if running:
            seconds[running] = seconds.get(running, 0.0) + now - before
        before = now
    return seconds


def name_of(process: psutil.Process) -> str:
    """The stage and the name that it was given; "" if the process is no stage."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    if len(words) < 3 or words[1] != "-m" or not words[2].startswith("stages."):
        return ""
    return " ".join([words[2].removeprefix("stages."), *words[3:]])


def broken(output: str) -> list[str]:
    """The files of DVC's own that it calls broken, and that stages/README.md says to delete."""
    return sorted({lock or lock_file for lock, lock_file in BROKEN.findall(output)})


def judged(last: Kill, output: str) -> Kill:
    """A kill with its outcome, by what the next run has said."""
    errors = ["".join(match) for match in ERROR.findall(output)]
    notices = NOTICE.findall(output)
    if "had been killed" in output:
        notices.append("DVC took the locks of the killed process away")
    said = "; ".join([*errors, *notices])
    if "Traceback" in output:
        return last._replace(outcome="WRONG", said=output)
    outcome = "reported" if errors else "harmless"
    return last._replace(outcome=outcome, said=said or "went on", by_hand="; ".join(broken(output)))


def kill(seed: int, count: int) -> bool:
    """Run the campaign, print and write its outcomes; whether nothing went wrong."""
    done: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        checkout = Checkout(top / "undisturbed", suite())
        to_be_killed = Checkout(top / "killed", suite())
        began = time.time()
        process = checkout.start("repro", log=top / "undisturbed.log")
        seconds = seconds_of_stages(process)
        whole = time.time() - began
        assert process.returncode == 0, (top / "undisturbed.log").read_text()
        undisturbed = checkout.results()
        print(f"undisturbed: {whole:.0f} seconds, {len(undisturbed)} files")
        # `count` kills after half of the longest time on average cover the length once and a half.
        killing = Killing(to_be_killed, undisturbed, 3 * whole / count, seed)
        for result in chain(killing.kills(count), killing.kills_in_every_stage(seconds)):
            done.append(result)
            said = f"{result.kind} of {result.stage or 'dvc'} after {result.seconds} s: {result.said}"
            print(f"{result.outcome:9} {said}", flush=True)
    by_hand = sum(bool(killed.by_hand) for killed in done)
    print(f"a file of DVC's own had to be deleted after {by_hand} of {len(done)} kills")
    about = {"undisturbed_seconds": round(whole), "by_hand": by_hand}
    return close("kill", seed, done, killing.problems, about)
