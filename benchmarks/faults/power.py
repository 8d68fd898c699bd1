"""The campaign `power`: the machine goes down while `dvc repro` runs, and its disk lacks what came last.

As in `kill`, `dvc repro` is ended again and again at random moments, here with its whole process group. Then
each file that was written in the last seconds may have lost its end or all of its contents, or have zeros in
their place, as on a disk whose data nobody has waited for. Stages wait for theirs (`runtime/files.py`), DVC
does not: so the files below data/, DVC's cache, its own files and dvc.lock are hit. Afterwards is done what
stages/README.md says, and nothing else: `python -m stages.tools.objects`, and what an error names is deleted.
A loss of power is

- harmless, if the next `dvc repro` says no error
- reported, if it ends in an error that names a file, and goes on when that is deleted
- WRONG otherwise

At the end, `dvc repro` has to finish with results that equal the undisturbed ones byte for byte, but for
files that are as the last losses have left them: no one has read them since.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.checkout import Checkout
from benchmarks.faults.kill import ERROR, Killing
from benchmarks.faults.outcomes import close
from stages.tools.objects import delete_damaged
from tests.project import suite

__all__ = ["KINDS", "Losing", "Loss", "lose", "named_in", "power"]

KINDS = ("shorter", "empty", "zeros")  # what has become of a file
HIT = ("data", ".dvc/cache", ".dvc/tmp", "dvc.lock")
LAST = 5.0  # seconds: what was written in these may not have reached the disk
BLOCK = 4096  # bytes that reach the disk together
ROUNDS = 5  # runs of `dvc repro` that may end in an error after one loss of power
NAMED = re.compile(r"(?:data|scratch|\.dvc)/[^\s:'\"]+|dvc\.lock")


class Loss(NamedTuple):
    """One loss of power, and what became of it."""

    kind: str
    stage: str  # the one that was running; "": none was, because dvc was busy between two stages
    seconds: float  # after the start of `dvc repro`
    lost: list[str]  # the files that were hit
    outcome: str
    said: str  # by the next runs: their errors, or "went on"
    deleted: list[str]  # what was deleted by hand then


class Losing(Killing):
    """A project whose machine goes down again and again."""

    def __init__(self, checkout: Checkout, undisturbed: dict[str, bytes], longest: float, seed: int) -> None:
        super().__init__(checkout, undisturbed, longest, seed)
        self.left: dict[str, bytes] = {}  # what the losses have left of files, by path

    def losses(self, count: int) -> Iterator[Loss]:
        """So many losses of power; each is judged by what the next `dvc repro` says."""
        last: Loss | None = None
        done = 0
        while done < count or last:
            began = time.time()
            stage, errors, deleted = self._run(to_its_end=done == count)
            if last:
                yield judged(last, errors, deleted)
            last = None
            if stage is not None:
                kind = KINDS[done % len(KINDS)]
                seconds = round(time.time() - began, 2)
                lost = self._lose(kind)
                last = Loss(kind, stage, seconds, lost, "", "", self._delete_objects())
                done += 1

    def _run(self, to_its_end: bool) -> tuple[str | None, list[str], list[str]]:
        """Run `dvc repro` until the next loss or to its end, and again after each error.

        Returns:
            the stage that was running when the power was lost, or None if `dvc repro` came to its end; the
            errors before that; the files that were deleted because an error has named them.
        """
        errors: list[str] = []
        deleted: list[str] = []
        for _ in range(ROUNDS):
            process = self.checkout.start("repro", log=self.log)
            if to_its_end:
                process.wait()
            else:
                self._wait(process, self.longest)
            stage = self.kill_now(process, "whole group")
            if stage is not None:
                return stage, errors, deleted
            if process.returncode == 0:
                self.check_end(0)
                if not to_its_end:
                    self.checkout.start_anew()
                    self.left = {}
                return None, errors, deleted
            errors.append(error_in(self.heard))
            deleted += self._delete(named_in(errors[-1]))
        self.problems.append(f"dvc repro has not gone on: {errors[-1]}")
        return None, errors, deleted

    def _lose(self, kind: str) -> list[str]:
        """Let about half of the files that were written last be as on a disk that has not got all of it."""
        now = time.time()
        lost = []
        for top in HIT:
            path = self.checkout.folder / top
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                is_last = file.is_file() and now - file.stat().st_mtime < LAST
                if is_last and file.stat().st_size and self.random.random() < 0.5:
                    lose(kind, file)
                    lost.append(file.relative_to(self.checkout.folder).as_posix())
        contents = {name: (self.checkout.folder / name).read_bytes() for name in lost}
        self.left = self.left | contents
        return lost

    def may_differ(self, path: str) -> bool:
        """Whether a file is as a loss has left it."""
        file = self.checkout.folder / path
        return path in self.left and file.exists() and file.read_bytes() == self.left[path]

    def _delete_objects(self) -> list[str]:
        """As `python -m stages.tools.objects` does; the names of what is deleted."""
        objects, runs = delete_damaged(self.checkout.folder / ".dvc/cache")
        return [file.relative_to(self.checkout.folder).as_posix() for file in objects + runs]

    def _delete(self, names: list[str]) -> list[str]:
        present = [name for name in names if (self.checkout.folder / name).is_file()]
        for name in present:
            (self.checkout.folder / name).unlink()
        return present


def lose(kind: str, file: Path) -> None:
    """Let a file be as on a disk that has not got all of it; its time of change stays."""
    status = file.stat()
    contents = file.read_bytes()
    kept = (len(contents) - 1) // BLOCK * BLOCK  # all but the last block
    file.chmod(0o644)  # DVC takes the right to write from the objects of its cache
    if kind == "shorter":
        file.write_bytes(contents[:kept])
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        file.write_bytes(bytes(len(contents)))
    file.chmod(status.st_mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def error_in(output: str) -> str:
    """All errors of a `dvc repro` as one text."""
    return "; ".join("".join(match) for match in ERROR.findall(output)) or output[-2000:]


def named_in(error: str) -> list[str]:
    """The files that an error names, and DVC's own where they are what it is about."""
    return list(dict.fromkeys(NAMED.findall(error)))


def judged(last: Loss, errors: list[str], deleted: list[str]) -> Loss:
    """A loss with its outcome, by the errors after it."""
    outcome = "reported" if errors else "harmless"
    if any("Traceback" in error or not named_in(error) for error in errors):
        outcome = "WRONG"
    said = "; ".join(errors) or "went on"
    return last._replace(outcome=outcome, said=said, deleted=last.deleted + deleted)


def power(seed: int, count: int) -> bool:
    """Run the campaign, print and write its outcomes; whether nothing went wrong."""
    done: list[Loss] = []
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        checkout = Checkout(top / "undisturbed", suite())
        began = time.time()
        checkout.must("repro")
        whole = time.time() - began
        undisturbed = checkout.results()
        losing = Losing(Checkout(top / "losing", suite()), undisturbed, 3 * whole / count, seed)
        for loss in losing.losses(count):
            done.append(loss)
            hit = f"{len(loss.lost)} files {loss.kind} in {loss.stage or 'dvc'} after {loss.seconds} s"
            print(f"{loss.outcome:9} {hit}: {loss.said}", flush=True)
    return close("power", seed, done, losing.problems, {"undisturbed_seconds": round(whole)})
