"""The campaign `cache`: objects of DVC's cache or of a remote are damaged, and outputs come back from them.

A small project with all stages is built once and pushed to a remote in a folder. In each trial, an object of
the cache or of the remote is damaged, or two are swapped, and everything below data/ is deleted. Then
`dvc checkout`, `dvc pull` (without a cache) or `dvc repro` brings it back. DVC does not hash the objects of
its cache again, so what it brings back may be damaged. Then a stage that reads such a file runs, if any does.
A trial is

- harmless, if nothing came back damaged, or nothing that the stage reads, and all other files are equal
- reported, if DVC ends in an error, or the stage names the file and ends in an error or makes it anew
- WRONG otherwise, or if a result has changed

After each trial, the damage is mended as stages/README.md says: the damaged objects and files are deleted.
Objects of the cache come back by `dvc pull`, and those of the remote by `dvc push` from a whole cache. Then
`dvc repro` has to end with the undisturbed results.
"""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.checkout import Checkout
from benchmarks.faults.corrupt import KINDS, NAME, damage, is_unread, reader_of
from benchmarks.faults.outcomes import close
from stages.runtime.checksums import is_whole
from stages.tools.objects import damaged_objects
from tests.project import suite

__all__ = ["VERIFIED", "Caching", "Fault", "Trial", "damage_cache"]

ROWS = (NAME, "shapes-random-ipc1")
LINKS = ("copy", "hardlink", "symlink")  # how DVC brings a file from its cache
VERIFIED = "pull with verify"  # which is a setting of the remote: DVC hashes what it fetches
PLACES = {"checkout": ".dvc/cache", "pull": "remote", VERIFIED: "remote", "repro": ".dvc/cache"}
WAYS = tuple(PLACES)  # commands, with the place of the objects that they bring outputs back from
KEEPING = ("reach", "architectures")  # stages that keep logits, to be read if other settings need them
KEPT = ("data", "reports", "scratch", "remote", ".dvc/cache", ".dvc/config")


class Fault(NamedTuple):
    """What is done in a trial."""

    kind: str
    link: str
    way: str
    file: Path  # the damaged object
    other: Path  # the one that it is swapped with, if it is swapped


class Trial(NamedTuple):
    """One damaged object, or two that were swapped, and what became of it."""

    kind: str
    objects: list[str]
    link: str
    way: str  # the command that brought the outputs back
    damaged: list[str]  # files of data/ that came back, but damaged
    outcome: str
    said: str


class Caching:
    """A built project with a cache and a remote, and a copy of it that no one changes."""

    def __init__(self, folder: Path, values: dict, stages: tuple[str, ...] = ()) -> None:
        """Build the project.

        Args:
            values: the suite.
            stages: those that the project has; none: all of them.
        """
        self.checkout = Checkout(folder / "project", values, stages)
        self.suite = values
        self.copy = folder / "copy"
        self.checkout.must("repro")
        (self.checkout.folder / "remote").mkdir()
        self.checkout.must("remote", "add", "-q", "-d", "here", "remote")
        self.checkout.must("push")
        self.undisturbed = self.checkout.results()
        for name in (*KEPT, "dvc.lock"):
            copied(self.checkout.folder / name, self.copy / name)

    def restore(self) -> None:
        """Undo what a trial has changed."""
        for name in (*KEPT, "dvc.lock"):
            copied(self.copy / name, self.checkout.folder / name)

    def trials(self, seed: int, count: int) -> Iterator[Trial]:
        """Damage a random object in each trial; the project is restored after it."""
        rng = random.Random(seed)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            link = LINKS[number % len(LINKS)]
            way = rng.choice(WAYS)
            file, other = rng.sample(self.objects(way), 2)
            yield self.trial(Fault(kind, link, way, file, other), rng)
            self.restore()

    def objects(self, way: str) -> list[Path]:
        """The objects that a command brings the outputs back from."""
        return sorted((self.checkout.folder / PLACES[way] / "files/md5").glob("??/*"))

    def trial(self, fault: Fault, rng: random.Random) -> Trial:
        place = self.checkout.folder / PLACES[fault.way]
        damage_protected(fault.kind, fault.file, fault.other, rng)
        hit = [fault.file, fault.other] if fault.kind == "swapped" else [fault.file]
        self.checkout.must("config", "cache.type", fault.link)
        said = self.bring_back(fault.way)
        changed = self.differences()
        damaged = [path for path in changed if (self.checkout.folder / path).exists()]
        heard = errors_in(said)
        to_be_read = [path for path in damaged if not is_unread(Path(path))]
        wrong: list[str] = []
        if to_be_read and not heard:
            said = self.run_reader(to_be_read[0], rng)
            heard = [line for line in errors_in(said) if to_be_read[0] in line]
            wrong = self.spread(changed)
            if "ERROR" in said and not heard:
                wrong.append(said)
        elif changed != damaged and not heard:  # a link to nothing, of which `dvc pull` says nothing
            heard = errors_in(self.checkout.dvc("repro")[1])
        wrong += self.mend(place, changed)
        outcome = "reported" if heard else "harmless"
        if wrong:
            outcome = "WRONG"
            heard += wrong
        names = [path.relative_to(self.checkout.folder).as_posix() for path in hit]
        return Trial(fault.kind, names, fault.link, fault.way, damaged, outcome, "\n".join(heard))

    def differences(self) -> list[str]:
        """The results that are not as they were.

        Files of scratch/ are none: a stage that ends in an error leaves a folder there that is named by the
        hash of its damaged input.
        """
        different = self.checkout.differences(self.undisturbed)
        return [path for path in different if not path.startswith("scratch/")]

    def bring_back(self, way: str) -> str:
        """Delete the outputs, and let DVC bring them back; what it said."""
        if way == VERIFIED:
            self.checkout.must("remote", "modify", "here", "verify", "true")
        if PLACES[way] == "remote":
            shutil.rmtree(self.checkout.folder / ".dvc/cache")
        self.checkout.empty_data()
        command = way.split()[0]
        return self.checkout.dvc(command)[1]

    def run_reader(self, file: str, rng: random.Random) -> str:
        """Run a stage that reads a file, though DVC does not see that the file has changed; what it said."""
        stage, name = reader_of(Path(file), self.suite, rng)
        one_by_one = stage in ("prepare", "buffer", "distill", "train")
        target = f"{stage}@{name}" if one_by_one else stage
        return self.checkout.dvc("repro", "-f", "-s", target)[1]

    def spread(self, damaged: list[str]) -> list[str]:
        """The files that have other contents, beside those that are damaged or missing."""
        different = self.differences()
        new = [path for path in different if path not in damaged]
        return [f"{path} differs" for path in new if (self.checkout.folder / path).exists()]

    def mend(self, place: Path, changed: list[str]) -> list[str]:
        """Delete what is damaged, and bring it back; what is wrong then.

        Args:
            place: the cache or the remote.
            changed: files of the project that are not what they were.
        """
        for folder in (place, self.checkout.folder / ".dvc/cache"):
            for file in damaged_objects(folder):
                file.unlink()
        for path in changed:
            (self.checkout.folder / path).unlink(missing_ok=True)
        if place.name == "remote":
            copied(self.copy / ".dvc/cache", self.checkout.folder / ".dvc/cache")
            self.checkout.must("push")
        self.checkout.must("pull")
        status, output = self.checkout.dvc("repro")
        if status:
            return [output]
        with contextlib.chdir(self.checkout.folder):
            different = self.differences()
            return [f"{path} differs in the end" for path in different if not is_asked_for_later(Path(path))]


def is_asked_for_later(file: Path) -> bool:
    """Whether a file has only kept logits, and is missing or known to be damaged by whoever will read it.

    The stage then makes them anew; as long as its numbers are up to date, it does not look.
    """
    if file.parent.name not in KEEPING or file.suffix != ".safetensors":
        return False
    return not is_whole(file)


def copied(source: Path, target: Path) -> None:
    """A file or a folder in place of what is there, with the times of change."""
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def damage_protected(kind: str, file: Path, other: Path, rng: random.Random) -> None:
    """As `damage`, of objects that may not be written, which they are again afterwards."""
    modes = {path: path.stat().st_mode for path in (file, other)}
    for path in modes:
        os.chmod(path, 0o644)
    damage(kind, file, other, rng)
    for path, mode in modes.items():
        os.chmod(path, mode)


def errors_in(output: str) -> list[str]:
    """The lines that say that something is damaged or missing."""
    output = output.replace("following targets:\n", "following targets: ")
    signs = ("ERROR", "error:", "is damaged", "corrupted")
    return [line for line in output.splitlines() if any(sign in line for sign in signs)]


def two_rows() -> dict:
    """The tests' suite with two of its rows, as an object that is gone is made anew in many of the trials."""
    values = suite()
    for kind in ("runs", "svd", "features", "reach", "choices", "architectures"):
        values[kind] = {name: keys for name, keys in values[kind].items() if name in ROWS}
    values["reach"][NAME]["carried"] = []
    return values


def damage_cache(seed: int, count: int) -> bool:
    """Run the campaign, print and write its outcomes; whether nothing went wrong."""
    done: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        caching = Caching(Path(folder).resolve(), two_rows())
        for result in caching.trials(seed, count):
            done.append(result)
            files = ", ".join(result.damaged) or "no file"
            line = f"{result.outcome:9} {result.kind:10} {result.link} {result.way}: {files}: {result.said}"
            print(line, flush=True)
    return close("cache", seed, done)
