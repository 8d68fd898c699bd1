"""Lines of the public programs, and of a row from its images to its tables."""

import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

from benchmarks.card.checks import need
from benchmarks.card.lines import LeftOut, Line, Options, UnfinishedError
from stages.images.archives import data_root, locate
from stages.settings.project import param

__all__ = ["public_lines", "row_lines"]

ROWS = ("cifar10-mtt-ipc10", "cifar10-mtt-ipc50")  # the shorter one first
NEEDS = {"mtt": ("kornia",), "tesla": ("kornia",)}  # of the public programs, by their clones
RUNS = 5
MARGIN = 60  # seconds: `lent` starts before its clock does, and writes the results after it


def public_lines(options: Options) -> list[Line]:
    """A line for each program on CIFAR-10, or one that says why there are none."""
    if options.public is None or options.small:
        reason = "not with --small" if options.small else "--public names no folder of clones"
        return [Line("public programs", partial(leave_out, reason))]
    try:
        from benchmarks.public import CASES
    except ModuleNotFoundError as problem:
        return [Line("public programs", partial(leave_out, f"needs {problem.name}"))]
    names = [name for name in CASES if "CIFAR" in name]
    return [Line(f"public, {name}", partial(public_line, name, options)) for name in names]


def leave_out(reason: str) -> dict[str, Any]:
    raise LeftOut(reason)


def public_line(name: str, options: Options) -> dict[str, Any]:
    """Ours, and what the public program takes."""
    from benchmarks import public

    assert options.public is not None
    clone = options.public.resolve() / public.CASES[name].clone
    if not clone.is_dir():
        raise LeftOut(f"there is no {clone.name} in {options.public}")
    need(*NEEDS.get(clone.name, ()))
    theirs, ours = public.results_of(name, clone, RUNS)
    said = f"public: {theirs['median']:.3g} s, {theirs['peak_mib']:.0f} MiB"
    return {**ours, "said": said, "public": theirs}


def row_lines(options: Options) -> list[Line]:
    return [Line(f"row, {row}", partial(row_line, row, options), goes_on=True) for row in ROWS]


def row_line(row: str, options: Options) -> dict[str, Any]:
    """A piece of a row; its results are in the folder `rows`.

    The next call goes on from what lies in `data/` and `scratch/`, on the same machine alone: experts are
    gigabytes, and those that another machine trains anew have other bytes.
    """
    if options.small:
        raise LeftOut("not with --small")
    need("kornia")
    root = data_root(param("data_root"))
    if locate("cifar10", root) is None:
        raise LeftOut(f"CIFAR-10 is not in {root}; DATA_ROOT in the environment says where it is")
    minutes = (options.deadline - time.time() - MARGIN) / 60
    if minutes < 0.5:
        raise UnfinishedError
    command = [sys.executable, "-m", "stages.tools.lent", row, "--minutes", f"{minutes:.2f}"]
    command += ["--skip", "features", "--skip", "svd"]  # which need scikit-learn, other images and more time
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    done = subprocess.run([*command, "--out", str(options.out / "rows")], env=environment)
    if done.returncode == 3:
        raise UnfinishedError
    if done.returncode:
        raise RuntimeError(f"lent ended with status {done.returncode}; card.log says why")
    return {"said": f"tables in {options.out / 'rows'}"}
