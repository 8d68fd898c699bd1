"""The campaign `corrupt`: files of data/ and scratch/ are damaged, and a stage that reads them runs.

A small project is built once. In each trial, one of its files below data/ or scratch/ is damaged, or two are
swapped, and a stage that reads it runs. The trial ends in one of three ways:

- harmless: the stage went through, and every file it wrote is equal to the undisturbed one byte for byte
- reported: the stage ended in an error that names the file, or it said that it makes the file anew, and did
- WRONG: anything else, such as another result, a traceback, or an error that names no file
"""

import contextlib
import io
import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.faults.outcomes import close
from stages.distillation import learn
from stages.machine import engine
from stages.runtime import reuse
from stages.runtime.errors import UserError
from stages.training import loop
from tests.project import FOR_ALL_ROWS, ROOT, make_project, run, run_all, suite

__all__ = ["KINDS", "NAME", "Trial", "built_project", "corrupt", "trials"]

KINDS = ("one bit", "many bits", "truncated", "empty", "swapped")
MANY_BITS = 2000
KEPT = ("data", "scratch", "reports")  # the folders that a stage may change
NAME = "shapes-mtt-ipc2"  # a row with every analysis
LAST_SAVE = {"buffer": 5, "distill": 2, "train": 20}  # the checkpoint after which these stages are killed

# The stages that read the files of a folder of data/. Many also read their own former results.
READERS = {
    "prepare": ["distill", "train", "masked", "temperature", "svd", "features", "architectures", "pictures"],
    "buffer": ["distill"],
    "distill": ["train", "masked", "temperature", "svd", "features", "pictures"],
    "train": ["masked", "evaluate", "ablate", "features", "reach", "choices"],
    "temperature": ["temperature", "evaluate", "ablate", "architectures", "reach"],
    "masked": ["masked", "calibrate", "ablate", "choices"],
    "calibrate": ["calibrate", "evaluate"],
    "evaluate": ["evaluate", "report"],
    "ablate": ["ablate", "analyses", "report"],
    "svd": ["svd", "analyses"],
    "features": ["features", "analyses", "report"],
    "architectures": ["architectures", "report"],
    "reach": ["reach", "report"],
    "choices": ["choices", "report"],
}
FOR_ALL = ("pictures", "analyses", "report")  # stages that take no name


class Trial(NamedTuple):
    """One damaged file, or two that were swapped, and what became of it."""

    kind: str
    files: list[str]
    stage: str  # with the name that it was given
    outcome: str
    said: str  # the error, or what the stage printed about the file


class Project(NamedTuple):
    """A project that all stages have run in, and a copy of it that no one changes."""

    folder: Path
    copy: Path
    suite: dict

    def restore(self) -> None:
        """Undo what a trial has changed."""
        for name in KEPT:
            shutil.rmtree(self.folder / name)
            shutil.copytree(self.copy / name, self.folder / name)
        reuse._file_hash.cache_clear()  # each stage is a process of its own in `dvc repro`

    def targets(self) -> list[Path]:
        """The files that a later stage or a resumed one reads."""
        files: list[Path] = []
        for top in ("data", "scratch"):
            files += sorted((self.copy / top).rglob("*"))
        targets = []
        for file in files:
            path = file.relative_to(self.copy)
            if path.suffix in (".safetensors", ".json", ".csv") and not is_unread(path):
                targets.append(path)
        return targets

    def changed(self) -> list[Path]:
        """The files of data/ and reports/ that are not equal to those of the undisturbed run."""
        changed = []
        for top in ("data", "reports"):
            for file in (self.copy / top).rglob("*"):
                path = file.relative_to(self.copy)
                if file.is_file() and not same_bytes(file, self.folder / path):
                    changed.append(path)
        return changed


def same_bytes(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def is_unread(path: Path) -> bool:
    """Whether only DVC reads a file: some lists of modules, a buffer's curve, what `check` leaves."""
    if path.is_relative_to("data/check"):
        return True
    if path.is_relative_to("data/code"):
        return path.stem not in FOR_ALL_ROWS
    return path.is_relative_to("data/buffer") and path.suffix == ".csv"


# The project


@contextlib.contextmanager
def built_project(folder: Path, values: dict) -> Iterator[Project]:
    """Work in a small project in which all stages have run, and three were killed in the middle.

    Args:
        values: the suite.
    """
    project = Project(folder / "project", folder / "copy", values)
    make_project(project.folder, suites={"shapes": values})
    (project.folder / "stages").symlink_to(ROOT / "stages")
    with contextlib.chdir(project.folder), mock.patch.object(engine, "core_count", lambda: 1):
        run("code")
        run_all(values)
        for name in ("data", "reports"):
            shutil.copytree(name, project.copy / name)
        leave_checkpoints(loop, "buffer", "shapes")
        leave_checkpoints(learn, "distill", NAME)
        leave_checkpoints(loop, "train", NAME)
        shutil.copytree("scratch", project.copy / "scratch")
        project.restore()
        yield project


def leave_checkpoints(module, stage: str, name: str) -> None:
    """Kill a stage after one of its checkpoints, so that they stay in scratch/.

    Args:
        module: the one whose `State` is saved.
    """
    save = module.State.save
    saved = []

    def save_and_be_killed(state, file: Path, *others) -> None:
        save(state, file, *others)
        saved.append(file)
        if len(saved) == LAST_SAVE[stage]:
            raise KeyboardInterrupt

    with (
        mock.patch.object(module, "CHECKPOINT_SECONDS", -1),
        mock.patch.object(module.State, "save", save_and_be_killed),
        contextlib.suppress(KeyboardInterrupt),
    ):
        run(stage, name)
    assert len(saved) == LAST_SAVE[stage], f"{stage} has fewer checkpoints"


# Damage


def damage(kind: str, file: Path, other: Path, rng: random.Random) -> None:
    """Damage a file, and leave its time of change, and its size where the kind of damage allows it.

    Args:
        other: the file that it is swapped with.
    """
    states = {path: (path.read_bytes(), path.stat()) for path in (file, other)}
    contents = bytearray(states[file][0])
    if kind == "swapped":
        file.write_bytes(states[other][0])
        other.write_bytes(contents)
    elif kind == "truncated":
        file.write_bytes(contents[: rng.randrange(1, len(contents))])
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        bits = 1 if kind == "one bit" else MANY_BITS
        for _ in range(bits):
            contents[rng.randrange(len(contents))] ^= 1 << rng.randrange(8)
        file.write_bytes(contents)
    for path, (_, status) in states.items():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def reader_of(file: Path, values: dict, rng: random.Random) -> tuple[str, str]:
    """A stage that reads a file, and the name that it is given.

    Args:
        values: the suite.
    """
    top, folder, *_ = file.parts
    work = folder.split("-")[0]
    if top == "scratch":
        stage = "prepare" if work == "decoded" else work
        return stage, "shapes" if stage in ("prepare", "buffer") else NAME
    if folder == "code":
        return file.stem, NAME
    if file.parts[2] == "shapes-turned":  # the images from outside
        return "features", NAME
    if file.suffix == ".csv":
        return "pictures", ""
    names = [name for name in values["runs"] if name in (file.stem, file.parts[2])]
    name = names[0] if names else NAME
    stages = [stage for stage in READERS[folder] if name in values.get(stage, values["runs"])]
    stage = rng.choice(stages)
    return stage, "" if stage in FOR_ALL else name


def forget(stage: str, name: str, damaged: list[Path]) -> None:
    """Delete what a stage for all rows has made of a row, so that it reads its inputs; no damaged file."""
    if stage in FOR_ALL_ROWS:
        for file in Path("data", stage).glob(f"{name}.*"):
            if file not in damaged:
                file.unlink()


# Trials


def trials(project: Project, seed: int, count: int) -> Iterator[Trial]:
    """Damage a random file in each trial; the project is restored after it."""
    rng = random.Random(seed)
    targets = project.targets()
    for number in range(count):
        top = "scratch" if rng.random() < 0.3 else "data"
        files = [file for file in targets if file.parts[0] == top]
        file = rng.choice(files)
        kind = KINDS[number % len(KINDS)]
        alike = [path for path in files if path.suffix == file.suffix and path != file]
        other = rng.choice(alike)
        yield trial(project, kind, file, other, rng)
        project.restore()


def trial(project: Project, kind: str, file: Path, other: Path, rng: random.Random) -> Trial:
    damage(kind, file, other, rng)
    damaged = [file, other] if kind == "swapped" else [file]
    former = {path: path.read_bytes() for path in damaged}
    stage, name = reader_of(file, project.suite, rng)
    if rng.random() < 0.5:
        forget(stage, name, damaged)
    said, failed = run_and_listen(stage, name)
    # A damaged file may stay as it is, where no one has read it or where the error asks to delete it.
    still = [path for path in damaged if path.exists() and path.read_bytes() == former[path]]
    changed = [path for path in project.changed() if path not in still]
    about = [line for line in said.splitlines() if any(str(path) in line for path in damaged)]
    if failed:
        outcome = "reported" if about and failed != "traceback" else "WRONG"
    elif changed:
        outcome = "WRONG"
    else:
        outcome = "reported" if about else "harmless"
    if outcome == "WRONG":
        about = [*map(str, changed), said]
    return Trial(kind, [str(path) for path in damaged], f"{stage} {name}".strip(), outcome, "\n".join(about))


def run_and_listen(stage: str, name: str) -> tuple[str, str]:
    """Run a stage; what it printed or ended with, and "error", "traceback" or "" for how it ended."""
    words = [name] if name else []
    output = io.StringIO()
    ending = ""
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            run(stage, *words)
        except (UserError, OSError) as problem:  # as `run_stage` has it
            ending = "error"
            print(f"error: {problem}")
        except Exception:
            ending = "traceback"
            traceback.print_exc()
    return output.getvalue(), ending


def corrupt(seed: int, count: int) -> bool:
    """Run a campaign, print and write its outcomes; whether nothing went wrong."""
    done = []
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            building = contextlib.ExitStack()
            project = building.enter_context(built_project(Path(folder).resolve(), suite()))
        with building:
            for result in trials(project, seed, count):
                done.append(result)
                print(f"{result.outcome:9} {result.kind:10} {' <-> '.join(result.files)}: {result.stage}")
                if result.outcome == "WRONG":
                    print(result.said)
    return close("corrupt", seed, done)
