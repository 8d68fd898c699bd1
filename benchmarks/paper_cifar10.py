"""Rows from raw images to their finished cells, without DVC, in pieces of at most nine minutes that go on where one stopped.

    python -m benchmarks.paper_cifar10 <row> [<row> ...] [--minutes 9] [--until-done] [--out reports/cifar10]

For machines that are lent for minutes at a time. Every stage that a row needs is run by the command that dvc.yaml has for
it, so `dvc repro` makes the same files below data/, and `dvc repro -s check && dvc commit -f <stages>` takes these over.
What is next, the program finds by itself: a stage is done while its stamp in scratch/pieces/ holds the hashes that it has
now, of its command, settings, code, inputs and outputs. That is DVC's rule, and as with DVC, outputs without a stamp are
deleted and made anew. When a piece ends, its stage is killed; it has saved its state to scratch/ every half minute and
resumes from there.

Ends with status 0 when all is done, 3 when the next call goes on, a failing stage's own status else. After every piece the
output folder (OUT in the environment wins) has six files of at most 16 MiB, in which rows not named in this call stay:

- metrics.json: temperatures and scores of each row, all repeats, and the names of what had no room in the other files
- tables.md: the tables of these rows, beside the paper's numbers
- curves.csv: curves of experts and of distillation
- sets.safetensors, logits.safetensors: distilled sets with their settings, and test logits, float16
- pieces.json: seconds, memory (of the largest process), device and commit of each piece, and the sum of each stage beside
  its floor: the time that its operations take at the rate that the machine was measured to have (`benchmarks/measure.py`)
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from stages import code
from stages.shared.errors import UserError, run_stage
from stages.shared.files import replacing, write_json, write_text
from stages.shared.settings import find, param, pick, read_yaml

# No torch here: a call that has nothing to do ends at once, and a stage's peak memory is not this program's.

STAMPS = Path("scratch/pieces")
MARK = "PAPER_PIECE"  # in the environment of the stages: a later call ends those that outlived a killed program
UNFINISHED = 3  # exit status
LIMIT = 16 * 2**20 - 2**18  # bytes of numbers in a file; the rest is for its header
POINTS = 1000  # of a curve
SHARED = ("prepare", "buffer")  # stages of no row


class Stage(NamedTuple):
    name: str  # as DVC has it: train@cifar10-mtt-ipc1
    cmd: str
    deps: list[str]
    params: list[tuple[str, str]]  # file and key
    outs: dict[str, dict]  # and what dvc.yaml says of each: `persist`, `cache`
    item: dict  # the entry of the suite: a data set, buffer, row or analysis of one


def plan(rows: list[str]) -> list[Stage]:
    """All stages of the rows, after those that make their inputs: of the first row, then what is left of the next."""
    found = {}
    for row in rows:
        _, suite = find("runs", row)
        there = [expanded(kind, body["do"], key, item) for kind, body, key, item in entries(suite) if key == row or kind in SHARED]

        def add(stage: Stage) -> None:
            if stage.name not in found:
                for maker in there:
                    if maker != stage and any(overlap(Path(dep), Path(out)) for dep in stage.deps for out in maker.outs):
                        add(maker)
                found[stage.name] = stage

        for stage in there:
            if stage.name.endswith(f"@{row}"):
                add(stage)
    return list(found.values())


def entries(suite: dict) -> Iterator[tuple[str, dict, str, dict]]:
    """Every `foreach` stage of dvc.yaml for every entry of its section in the suite."""
    for kind, body in read_yaml(Path("dvc.yaml"))["stages"].items():
        if "foreach" in body and kind != "architectures":  # a table of its own
            for key, item in (suite.get(body["foreach"].strip("${} ")) or {}).items():
                yield kind, body, key, item


def expanded(kind: str, template: dict, key: str, item: dict) -> Stage:
    """A stage for one entry. It does not wait for `check`, which makes no numbers."""
    body, outs = filled(template, {"key": key, "item": item}), {}
    params = [(file, name) for entry in body.get("params", []) for file, names in (entry if isinstance(entry, dict) else {"params.yaml": [entry]}).items() for name in names]  # fmt: skip
    for entry in (entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])):
        outs |= entry if isinstance(entry, dict) else {entry: {}}
    return Stage(f"{kind}@{key}", body["cmd"], [dep for dep in body["deps"] if not dep.startswith("data/check/")], params, outs, item)


def overlap(one: Path, other: Path) -> bool:
    """Whether they are the same file or folder, or one is in the other."""
    return one == other or one in other.parents or other in one.parents


def filled(value, scope: dict):
    """A piece of dvc.yaml with `${key}` and `${item.name}` replaced."""
    if isinstance(value, dict):
        return {filled(k, scope): filled(v, scope) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, scope) for v in value]
    return re.sub(r"\$\{(.+?)\}", lambda found: str(value_at(scope, found[1])), value) if isinstance(value, str) else value


def value_at(values: dict, path: str):
    """The value at `a.b.c`; None where there is none."""
    for part in path.strip().split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def inputs(stage: Stage) -> str:
    """A hash of all that the stage's outputs depend on."""
    params = {f"{file}:{key}": value_at(read_yaml(Path(file)), key) for file, key in stage.params}
    return digest([stage.cmd, params, contents(stage.deps)])


def contents(paths: Iterable[str]) -> dict[str, str]:
    """A hash of every file; a folder stands for those in it."""
    files = [file for path in map(Path, paths) for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file() and "__pycache__" not in file.parts]
    return {str(file): file_hash(file, file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(files)}


@cache
def file_hash(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def stamp(stage: Stage) -> Path:
    return STAMPS / f"{stage.name}.json"


def done(stage: Stage) -> bool:
    return read_json(stamp(stage)) == {"inputs": inputs(stage), "outs": digest(contents(stage.outs))}


def read_json(file: Path, otherwise=None):
    return json.loads(file.read_text()) if file.exists() else otherwise


def piece(stages: list[Stage], deadline: float) -> tuple[str, int]:
    """Run what is not done, until the deadline. The stage that it ended in and its status; 0: everything is done."""
    for stage in stages:
        if done(stage):
            continue
        if time.monotonic() >= deadline:
            return stage.name, UNFINISHED
        print(f"{stage.name}: {stage.cmd}", flush=True)
        under, begun = inputs(stage), datetime.now(UTC).isoformat(timespec="milliseconds")
        stamp(stage).unlink(missing_ok=True)
        for out in (Path(out) for out, how in stage.outs.items() if not how.get("persist")):  # as DVC does
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        status, cost = run(stage, deadline)
        entry = {"begun": begun, "stage": stage.name, "inputs": under, "outcome": {0: "finished", UNFINISHED: "stopped"}.get(status, "failed")} | cost
        record(entry)
        if status == 0:
            write_json(stamp(stage), {"inputs": under, "outs": digest(contents(stage.outs))})
        record(entry | circumstances(stage))  # after the stamp: to measure the machine may take ten seconds
        if status:
            return stage.name, status
    return "", 0


def run(stage: Stage, deadline: float) -> tuple[int, dict]:
    """The stage's command, killed with all that it started when the deadline comes: its status, and what it took."""
    words = [sys.executable if word == "python" else word for word in shlex.split(stage.cmd)]
    begin = time.monotonic()
    child = subprocess.Popen(words, env=os.environ | {MARK: str(STAMPS.resolve())}, process_group=0)
    timer = threading.Timer(deadline - begin, end_group, [child.pid])
    timer.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    finally:
        timer.cancel()
        end_group(child.pid)
    child.returncode = os.waitstatus_to_exitcode(status)
    late = child.returncode == -signal.SIGKILL and time.monotonic() >= deadline
    cost = {"seconds": time.monotonic() - begin, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)}  # fmt: skip
    return UNFINISHED if late else 128 - child.returncode if child.returncode < 0 else child.returncode, {key: round(value, 2) for key, value in cost.items()}


def end_group(group: int) -> None:
    """A stage and the processes that it forked. Nothing is half-written by that: every file is renamed into its place."""
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def end_leftovers() -> None:
    """Stages, and what they forked, of a program that was killed here; they would hold the lock on their work (Linux)."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={STAMPS.resolve()}".encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def record(entry: dict) -> None:
    write_json(STAMPS / "pieces.json", merged(read_json(STAMPS / "pieces.json", []), [entry]))


def merged(*lists: list[dict]) -> list[dict]:
    """The entries of all lists in order of time; of two of the same piece, the last."""
    entries = {(entry["begun"], entry["stage"]): entry for some in lists for entry in some}
    return [entries[key] for key in sorted(entries)]


def circumstances(stage: Stage) -> dict:
    """Where a stage ran, of which commit, and the seconds that no code can do without there."""
    kind, name = stage.name.split("@")
    dataset, precision = stage.item.get("dataset", name), value_at(stage.item, {"buffer": "precision", "distill": "distill.precision"}.get(kind, ""))
    info = read_json(Path("data/prepare") / dataset / "info.json")
    here = limits(find("datasets", dataset)[0]["network"], info and [info["shape"], len(info["classes"])])
    rate = here[f"{precision or 'float32'}_operations"]
    passes = info and image_passes(kind, stage.item, len(info["classes"]), *(sum(info["counts"][split]) for split in ("train", "test")))
    return {"floor_seconds": passes and round(passes * here["operations"] / rate, 3), "device": here["device"], "torch": here["torch"], "commit": commit()}


def image_passes(kind: str, item: dict, classes: int, train: int, test: int) -> float | None:
    """Forward passes of an image that a stage counts at least; an image's gradient takes 3, with a product along it 12. None: not counted."""
    if kind == "buffer" and "experts" in item:
        return 3 * item["experts"] * item["epochs"] * train
    if kind not in ("distill", "train"):
        return None
    images, own = item["ipc"] * classes if item["ipc"] else train, item["distill"]
    if kind == "train":
        settings = param("train")
        groups = len(settings["losses"]) + (item["ipc"] != 1) * (1 - settings["holdout"])  # the last one trains on fewer images
        return groups * settings["repeats"] * (3 * item["epochs"] * images + test)
    if "syn_steps" in own:
        batch = own["batch_syn"] and own["batch_syn"] * (classes if item["backbone"] == "rtp" else 1)
        return 12 * own["iterations"] * own["syn_steps"] * (batch if own.get("n_basis") else min(batch or images, images))
    if "outer_loops" in own:
        real = min(own.get("batch_real", 256) * classes, train)
        return own["iterations"] * (own["outer_loops"] * (3 * real + 9 * images) + 3 * (own["outer_loops"] - 1) * own["inner_loops"] * images)
    return None


def limits(network: dict, images: list | None) -> dict:
    """`measured`, in a process of its own, and once on a machine."""
    file = STAMPS / f"machine-{digest([platform.node(), os.environ.get('DEVICE'), network, images])}.json"
    if not file.exists():
        command = [sys.executable, "-m", "benchmarks.paper_cifar10", "--measure", json.dumps(network), json.dumps(images)]
        write_json(file, json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    return json.loads(file.read_text())


def measured(network: dict, images: list | None) -> dict:
    """Device, versions and rates of this machine, and operations of one image's forward pass; `images`: shape and classes."""
    import torch

    from benchmarks.measure import machine, rates
    from stages.shared.convnet import NetworkSettings
    from stages.shared.device import pick_device
    from stages.shared.flat import flat_convnet
    from stages.shared.images import LabelledImages

    device, about, one = pick_device(param("device")), machine(), None
    if images:
        one = torch.zeros(1, *images[0])
        one = flat_convnet(NetworkSettings(**network), LabelledImages(one, torch.zeros(1), images[1]), torch.device("cpu")).operations(one)
    return {"device": about["gpu"] if device.type == "cuda" else about["processor"], "torch": about["torch"], "operations": one} | rates(device)


@cache
def commit() -> str | None:
    """Of the code and the settings, with "-dirty" where they are not as committed; None without git."""
    with suppress(OSError, subprocess.CalledProcessError):
        head, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "stages", "suites", "benchmarks", "dvc.yaml", "params.yaml"])
        )
        return head + "-dirty" * bool(changes)


def write_results(stages: list[Stage], rows: list[str], out: Path) -> None:
    """Everything small of the stages that are done, in files that are rewritten whole."""
    finished = {stage.name: stage for stage in stages if done(stage)}
    sets = {row: Path(f"data/distill/{row}/set.safetensors") for row in rows if f"distill@{row}" in finished}
    logits = {row: Path(f"data/train/{row}/logits.safetensors") for row in rows if f"train@{row}" in finished}
    metrics = read_json(out / "metrics.json", {"rows": {}, "left_out": []})
    left_out = [name for name in metrics["left_out"] if name.split("/")[1] not in rows]
    left_out += write_arrays(out / "sets.safetensors", sets, rows, lambda name, array: array.nbytes)
    left_out += write_arrays(out / "logits.safetensors", logits, rows, lambda name, _: (not name.endswith(("/cross_entropy", "/labels")), name))
    metrics = {"rows": metrics["rows"] | {row: numbers(row, finished) for row in rows}, "left_out": left_out}
    write_json(out / "metrics.json", metrics)
    write_text(out / "tables.md", tables_of(metrics["rows"]))
    write_curves(out / "curves.csv", list(finished.values()), {stage.name for stage in stages})
    write_json(out / "pieces.json", summed(merged(read_json(out / "pieces.json", {"pieces": []})["pieces"], read_json(STAMPS / "pieces.json", []))))


def tables_of(rows: dict[str, dict]) -> str:
    """The tables of the rows in metrics.json, as `report` makes them of all rows that dvc.yaml lists."""
    from stages import tables
    from stages.report import PAPER_TABLES, body, complete

    known = {row: pick(tables.Row, find("runs", row)[0], f"runs.{row}") for row in rows}
    results, ablations = ({row: found[kind] for row, found in rows.items() if isinstance(found.get(kind), dict)} for kind in ("evaluate", "ablate"))
    full = {row: known[row] for row in results if complete(results[row])}
    paper, start = read_yaml(Path("stages/paper.yaml")), param("calibrate")["start"]
    found = [getattr(tables, name)(known, results, paper, start) for name in PAPER_TABLES]
    found += [tables.starts({row: known[row] for row in ablations}, ablations)] + [table(full, results, start) for table in (tables.intervals, tables.overcalibration, tables.scores)]
    return "\n\n".join(f"## {table.title}\n\n{body(table)}" for table in found if len(table.text) and table.text["Row"].iloc[0] in rows) + "\n"


def numbers(row: str, finished: dict[str, Stage]) -> dict:
    """The JSON files that a row's stages have made below data/, by stage."""
    files = {name.split("@")[0]: Path(file) for name, stage in finished.items() if name.endswith(f"@{row}") for file in stage.outs if re.match(r"data/.*\.json$", file)}
    return {kind: read_json(file) if (size := file.stat().st_size) < 2**20 else f"left out: {size} bytes" for kind, file in files.items()}


def write_arrays(file: Path, sources: dict[str, Path], rows: list[str], rank) -> list[str]:
    """The arrays of each row's file, as `row/name` and in 16 bits, those of lowest rank while there is room; names of the others."""
    from safetensors.numpy import save_file

    arrays, about = read_arrays(file) if file.exists() else ({}, {})
    arrays = {name: array for name, array in arrays.items() if name.split("/")[0] not in rows}
    for row, source in sources.items():
        found, about[row] = read_arrays(source)
        arrays |= {f"{row}/{name}": array.astype("float16" if array.dtype.kind == "f" else "int16") if array.ndim else array for name, array in found.items()}
    kept, size = {}, 0
    for name in sorted(arrays, key=lambda name: rank(name, arrays[name])):
        if size + arrays[name].nbytes <= LIMIT:
            kept[name], size = arrays[name], size + arrays[name].nbytes
    with replacing(file) as temporary:
        save_file(kept, temporary, {"about": json.dumps(about)})
    return [f"{file.stem}/{name}" for name in sorted(arrays.keys() - kept.keys())]


def read_arrays(file: Path) -> tuple[dict, dict]:
    """What `write_tensors` of the stages has written, without torch."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(opened.metadata()["about"])


def write_curves(file: Path, finished: list[Stage], names: set[str]) -> None:
    """The curves in long form, some points of the longest; those of stages that are not named stay."""
    lines = [line for line in csv.reader(file.open()) if f"{line[0]}@{line[1]}" not in names][1:] if file.exists() else []
    for stage, curve in ((stage, Path(out)) for stage in finished for out in stage.outs if out.endswith("curve.csv")):
        (_, *columns), *points = csv.reader(curve.open())
        for step, *values in points[:: -(-len(points) // POINTS) or 1]:
            lines += [[*stage.name.split("@"), step, column, value] for column, value in zip(columns, values)]
    write_text(file, "".join(",".join(line) + "\n" for line in [["stage", "name", "step", "curve", "value"], *lines]))


def summed(pieces: list[dict]) -> dict:
    """The pieces, and for each stage the sum of those under its latest settings, code and inputs."""
    latest = {entry["stage"]: entry for entry in pieces}
    same = {name: [entry for entry in pieces if (entry["stage"], entry["inputs"]) == (name, last["inputs"])] for name, last in latest.items()}
    totals = {
        name: {key: round(sum(entry[key] for entry in some), 2) for key in ("seconds", "cpu_seconds")}
        | {"peak_mib": max(entry["peak_mib"] for entry in some), "floor_seconds": some[-1].get("floor_seconds"), "pieces": len(some), "outcome": some[-1]["outcome"]}
        for name, some in same.items()
    }
    return {"stages": totals, "pieces": pieces}


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_cifar10", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", metavar="row", help="of any suites/*.yaml")
    parser.add_argument("--minutes", type=float, default=9, help="of a piece (default 9)")
    parser.add_argument("--until-done", action="store_true", help="piece after piece in one call")
    parser.add_argument("--out", default="reports/cifar10", help="folder of the results (default reports/cifar10); OUT in the environment wins")
    options = parser.parse_args(words)
    code.main()  # what the stages depend on; it makes no numbers, and takes a moment
    stages, out = plan(options.rows), Path(os.environ.get("OUT", options.out))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # through `finally`, which ends the stage
    STAMPS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(STAMPS / "lock").acquire(blocking=False):
            end_leftovers()
            while True:
                name, status = piece(stages, time.monotonic() + 60 * options.minutes)
                write_results(stages, options.rows, out)
                if status != UNFINISHED or not options.until_done:
                    break
    except Timeout:
        raise UserError(f"another call is running here (lock {STAMPS / 'lock'}); wait for it or stop it") from None
    if status in (0, UNFINISHED):
        print(f"not finished: {name} goes on at the next call" if status else f"all done: {len(stages)} stages of {', '.join(options.rows)}")
    else:
        print(f"error: {name} ended with status {status}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(*map(json.loads, sys.argv[2:]))))
    else:
        run_stage(main)
