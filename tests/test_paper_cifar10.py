"""The program that runs a row piece by piece: killed in every stage, it ends where the stages in one go end."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file
from torch import ones

from benchmarks import paper_cifar10
from benchmarks.paper_cifar10 import Stage, done, end_leftovers, plan, write_arrays
from stages.shared import settings
from stages.shared.files import write_tensors

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("OUT", "DATA_ROOT")} | {"DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "benchmarks.paper_cifar10", "tiny", "--out", "results"]
RESULTS = ["data/distill/tiny/set.safetensors", "data/evaluate/tiny.json", "data/calibrate/tiny.json", "reports/metrics/tiny.json"]
MTT = {"iterations": 20, "syn_steps": 5, "expert_epochs": 2, "max_start_epoch": 2, "lr_img": 10, "lr_lr": 1e-6, "lr_teacher": 0.05, "batch_syn": None}
TINY = {
    "datasets": {"tiny": {"suite": "tiny", "images": {"source": "pictures", "whitening": "zca"}, "network": {"width": 16, "depth": 2}}},
    "buffers": {"tiny": {"suite": "tiny", "dataset": "tiny", "experts": 2, "epochs": 3, "lr": 0.02, "batch": 10}},
    "runs": {"tiny": {"suite": "tiny", "dataset": "tiny", "backbone": "mtt", "ipc": 2, "reads": "buffer/tiny", "mdt": 0, "distill": MTT, "epochs": 30, "lr": "learned", "augment": True, "mask_ratio": 0.3}},
    "architectures": {},
}  # fmt: skip
IN_ONE_GO = """
import runpy, sys
from benchmarks.paper_cifar10 import plan
for stage in plan(["tiny"]):
    sys.argv = stage.cmd.split()[2:]
    runpy.run_module(sys.argv[0], run_name="__main__")
"""


def project(folder: Path) -> Path:
    """A copy of the code with a suite of its own, whose data set, buffer and row are all called tiny."""
    for name in ("stages", "suites", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    for name in ("dvc.yaml", "data/nothing"):
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"train": params["train"] | {"repeats": 2}}))
    (folder / "suites" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for k in range(3):
            (folder / "pictures" / split / str(k)).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 150, (16, 16, 3))
                pixels[:, 5 * k : 5 * k + 5] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / split / str(k) / f"{i}.png")
    return folder


def call(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def ran(output: str) -> list[str]:
    return [line.split(":")[0] for line in output.splitlines() if ": python -m stages." in line]


def under_way(folder: Path, stage: str) -> bool:
    """Whether a stage has an expert or network finished, or has begun to distil; the others leave nothing to see."""
    kind = stage.split("@")[0]
    seen = {"buffer": "buffer-*/expert-*", "distill": "distill-*/", "train": "train-*/cross*"}.get(kind)
    return any((folder / "scratch").glob(seen)) if seen else time.sleep(0.3) is None


@pytest.fixture(scope="module")
def names() -> list[str]:
    """What `plan` has to come to for a row that is in no other table."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return [f"{kind}@tiny" for kind, body in stages.items() if body.get("foreach") in ("${datasets}", "${buffers}", "${runs}")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, names):
    """Killed once in every stage and called again until it is done; the folder, and what each stage's second run found in scratch/.

    The program alone is killed, so that the next call meets a stage that is still running; in `train` both are.
    """
    folder, kills, found, output = project(tmp_path_factory.mktemp("killed")), [], {}, ""
    for _ in range(len(names) + 1):
        program = subprocess.Popen(PROGRAM, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for line in program.stdout:
            output += line
            for stage in ran(line):
                if stage in kills:
                    found[stage] = {path.name for path in folder.glob("scratch/*-*/*")}
                    continue
                while not under_way(folder, stage) and program.poll() is None and not done_in(folder, stage):
                    time.sleep(0.02)
                program.send_signal(signal.SIGKILL)
                kills.append(stage)
                if stage == "train@tiny":
                    with chdir(folder):
                        end_leftovers()
        if program.wait() != -signal.SIGKILL:
            break
    assert program.returncode == 0 and output.splitlines()[-1].startswith("all done")
    return folder, found


def done_in(folder: Path, stage: str) -> bool:
    return (folder / "scratch" / "pieces" / f"{stage}.json").exists()


def test_killed_in_every_stage_it_ends_where_one_go_ends(killed, names, tmp_path):
    folder, found = killed
    assert set(names[:4]) <= found.keys(), "these ran twice; the others may be too fast to be killed"
    assert any(name.startswith("cross_entropy-") for name in found["train@tiny"]), "finished networks are kept"
    once = project(tmp_path)
    subprocess.run([sys.executable, "-c", IN_ONE_GO], cwd=once, env=ENVIRONMENT, check=True)
    ours, theirs = (load_file(path / "data/buffer/tiny/trajectories.safetensors")["snapshots"] for path in (folder, once))
    assert ours.shape[:2] == (2, 4) and np.allclose(ours, theirs, atol=1e-5)
    for file in RESULTS:
        assert (folder / file).read_bytes() == (once / file).read_bytes(), file
    assert not [path for path in (folder / "scratch").glob("*-*") if path.is_dir()], "checkpoints are gone when the work is done"


def test_the_results_are_few_and_small_files(killed, names):
    out = killed[0] / "results"
    files = list(out.iterdir())
    assert len(files) <= 8 and all(file.stat().st_size <= 16 * 2**20 for file in files)
    evaluated = json.loads((killed[0] / "data/evaluate/tiny.json").read_text())
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rows"]["tiny"]["evaluate"] == evaluated and "calibrate" in metrics["rows"]["tiny"] and metrics["left_out"] == []
    cell = f"{100 * np.mean(evaluated['methods']['mts']['ece']):.2f} ± "
    assert f"| {cell}" in (out / "tables.md").read_text() and "missing" not in (out / "tables.md").read_text().replace("`missing`", "")
    sets, whole = load_file(out / "sets.safetensors"), load_file(killed[0] / "data/distill/tiny/set.safetensors")
    assert sets["tiny/images"].dtype == np.float16 and np.allclose(sets["tiny/images"], whole["images"], rtol=1e-3, atol=1e-3)
    assert sets["tiny/step_size"] == whole["step_size"] and sets["tiny/labels"].tolist() == [0, 0, 1, 1, 2, 2]
    logits = load_file(out / "logits.safetensors")
    assert logits["tiny/cross_entropy"].shape == (2, 30, 3) and {"tiny/mixup", "tiny/holdout", "tiny/labels"} <= logits.keys()
    lines = list(csv.reader((out / "curves.csv").open()))
    assert lines[0] == ["stage", "name", "step", "curve", "value"]
    assert sum(line[:2] == ["distill", "tiny"] and line[3] == "loss" for line in lines) == 20 and ["buffer", "tiny", "3", "accuracy"] in [line[:4] for line in lines]


def test_the_pieces_say_what_each_stage_took(killed, names):
    pieces = json.loads((killed[0] / "results/pieces.json").read_text())
    assert set(pieces["stages"]) == set(names)
    for name, stage in pieces["stages"].items():
        assert stage["outcome"] == "finished" and stage["seconds"] > 0 and stage["cpu_seconds"] > 0 and stage["peak_mib"] > 20
        assert (stage["floor_seconds"] is not None) == (name.split("@")[0] in ("buffer", "distill", "train"))
        assert (stage["floor_seconds"] or 0) < stage["seconds"]
    assert all(entry["torch"] and entry["device"] for entry in pieces["pieces"] if entry["stage"] in names[1:4])


def test_with_all_done_a_call_does_nothing(killed):

    def made() -> dict:  # the lists of modules are written anew by every call
        return {path: path.stat().st_mtime_ns for path in (killed[0] / "data").rglob("*") if "code" not in path.parts and path.is_file()}

    before = made()
    begin = time.monotonic()
    again = call(killed[0])
    assert again.returncode == 0 and not ran(again.stdout) and again.stdout.startswith("all done") and time.monotonic() - begin < 8
    assert before == made()
    code = "import sys, benchmarks.paper_cifar10; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_another_mask_ratio_reruns_calibration_and_what_follows_in_pieces_as_short_as_wanted(killed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(killed[0], folder, copy_function=shutil.copy2)
    text = (folder / "params.yaml").read_text()
    assert "mask_ratio: null" in text
    (folder / "params.yaml").write_text(text.replace("mask_ratio: null", "mask_ratio: 0.35"))
    short = call(folder, "--minutes", "0.005")
    first = ran(short.stdout)
    assert short.returncode == 3 and len(first) == 1 and f"not finished: {first[0]} goes on at the next call" in short.stdout
    assert "evaluate" not in json.loads((folder / "results/metrics.json").read_text())["rows"]["tiny"], "no numbers of other settings"
    stopped = json.loads((folder / "results/pieces.json").read_text())["pieces"][-1]
    assert stopped["outcome"] == "stopped" and 0.2 < stopped["seconds"] < 5
    whole = call(folder, "--until-done")
    assert whole.returncode == 0 and {"calibrate@tiny", "evaluate@tiny"} <= set(ran(whole.stdout))
    assert not {"prepare", "buffer", "distill", "train"} & {name.split("@")[0] for name in ran(short.stdout + whole.stdout)}
    assert json.loads((folder / "data/evaluate/tiny.json").read_text())["mask_ratio"] == 0.35


def test_a_failing_stage_ends_the_program_with_its_status_and_message(killed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(killed[0], folder, copy_function=shutil.copy2)
    file = folder / "suites/tiny.yaml"
    file.write_text(file.read_text().replace("batch: 10", "batch: ten"))
    failed = call(folder)
    assert failed.returncode == 1 and "buffers.tiny: batch: 'ten' is not allowed" in failed.stderr and "error: buffer@tiny ended with status 1" in failed.stderr
    assert ran(failed.stdout) == ["buffer@tiny"] and "Traceback" not in failed.stderr


def test_an_unknown_row_is_a_line_that_lists_the_rows():
    wrong = subprocess.run([*PROGRAM[:3], "cifar10-mtt"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert wrong.returncode == 1 and len(wrong.stderr.splitlines()) == 1
    assert "'cifar10-mtt' is unknown; allowed: " in wrong.stderr and "cifar10-mtt-ipc1-cpu" in wrong.stderr


def test_the_stages_are_dvcs_own(monkeypatch):
    """Every row of the suites that dvc.yaml lists: commands, dependencies and outputs as DVC resolves them."""
    from dvc.repo import Repo

    monkeypatch.chdir(ROOT)
    theirs = {stage.name: stage for stage in Repo(ROOT).index.stages}
    rows = list(yaml.safe_load((ROOT / "suites/digits.yaml").read_text())["runs"])
    ours = {stage.name: stage for stage in plan(rows)}
    assert {f"evaluate@{row}" for row in rows} <= ours.keys() and not [name for name in ours if name.startswith("architectures")]
    for name, stage in ours.items():
        resolved = theirs[name]
        files = {str(dep) for dep in resolved.deps if not hasattr(dep, "params") and not str(dep).startswith("data/check/")}
        params = {(str(dep), key) for dep in resolved.deps if hasattr(dep, "params") for key in dep.params}
        assert stage.cmd == resolved.cmd and set(stage.deps) == files and set(stage.params) == params, name
        assert set(stage.outs) == {str(out) for out in resolved.outs}, name


def test_every_row_of_every_suite_has_a_plan_whose_inputs_come_first(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(settings, "read_yaml", cache(settings.read_yaml))  # each file once, not once a row
    monkeypatch.setattr(paper_cifar10, "read_yaml", settings.read_yaml)
    for suite in sorted(Path("suites").glob("*.yaml")):
        made = {"data/nothing"}
        for stage in plan(list(yaml.safe_load(suite.read_text())["runs"])):
            for dep in (dep for dep in stage.deps if dep.startswith("data/") and not dep.startswith(("data/code/", "data/sets/"))):
                assert any(out == dep or out.startswith(f"{dep}/") for out in made), (stage.name, dep)
            made |= stage.outs.keys()


def test_a_stage_is_done_under_its_own_settings_code_inputs_and_outputs_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"in": "1", "code.py": "1", "out": "1", "params.yaml": "a: {b: 1, c: 1}\n"}.items():
        Path(name).write_text(text)
    stage = Stage("work@x", "true", ["in", "code.py"], [("params.yaml", "a.b")], {"out": {}}, {})
    monkeypatch.setattr(paper_cifar10, "circumstances", lambda stage: {})
    make = stage._replace(cmd="touch out")

    def again():
        assert paper_cifar10.piece([make], time.monotonic() + 60) == ("", 0)

    again()
    assert done(make) and not done(stage)
    Path("params.yaml").write_text("a: {b: 1, c: 2}\n")
    assert done(make), "a key that it does not read"
    for name, text in {"in": "2", "code.py": "2", "out": "2", "params.yaml": "a: {b: 2}\n"}.items():
        Path(name).write_text(text)
        assert not done(make), name
        again()
        assert done(make)
    Path("out").unlink()
    assert not done(make)
    again()
    assert len(json.loads(Path("scratch/pieces/pieces.json").read_text())) == 6


def test_what_has_no_room_is_named_and_rows_that_are_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_cifar10, "LIMIT", 2500)
    sources = {row: tmp_path / f"{row}.safetensors" for row in ("a", "b")}
    for file in sources.values():
        write_tensors(file, {"cross_entropy": ones(100), "labels": ones(100).long(), "mixup": ones(1000)}, {"of": file.stem})
    out = tmp_path / "logits.safetensors"

    def rank(name, _):
        return (not name.endswith(("/cross_entropy", "/labels")), name)

    assert write_arrays(out, {"a": sources["a"]}, ["a"], rank) == []
    assert write_arrays(out, {"b": sources["b"]}, ["b"], rank) == ["logits/a/mixup", "logits/b/mixup"]
    assert set(load_file(out)) == {f"{row}/{name}" for row in "ab" for name in ("cross_entropy", "labels")}
    assert write_arrays(out, {}, ["a"], rank) == [] and {name[0] for name in load_file(out)} == {"b"}
