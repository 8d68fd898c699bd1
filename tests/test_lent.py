"""Rows that run piece by piece: killed in every long stage, they end where the stages in one go end."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from project import MTT, PARAMS, ROOT, make_project, row, suite
from safetensors.numpy import load_file
from torch import ones

from stages.runtime.errors import UserError
from stages.runtime.files import read_result, write_tensors
from stages.settings.distill import DistillKeys
from stages.settings.rows import Row
from stages.settings.train import TrainKeys
from stages.tools import lent, lent_results
from stages.tools.lent import end_leftovers
from stages.tools.lent_results import write_arrays
from stages.tools.lent_stages import Stage, is_done, plan

NAME = "shapes-mtt-ipc2"
SLOW = ["prepare@shapes", "buffer@shapes", f"distill@{NAME}", f"train@{NAME}", f"temperature@{NAME}"]
SCORED = [f"{kind}@{NAME}" for kind in ("masked", "calibrate", "evaluate", "ablate")]
ANALYSED = ["prepare@shapes-turned", *(f"{kind}@{NAME}" for kind in ("features", "svd", "choices", "reach"))]
QUICK = SCORED + ANALYSED
FILES = [
    f"data/distill/{NAME}/set.safetensors",
    f"data/calibrate/{NAME}.json",
    f"data/evaluate/{NAME}.json",
    f"data/ablate/{NAME}.json",
    f"data/features/{NAME}.safetensors",
    f"data/svd/{NAME}.json",
    f"data/choices/{NAME}.json",
    f"data/temperature/{NAME}.json",
    f"data/reach/{NAME}.json",
    f"reports/metrics/{NAME}.json",
]
PROGRAM = [sys.executable, "-m", "stages.tools.lent", NAME, "--out", "results"]
IN_ONE_GO = f"""
import importlib
from stages import code
from stages.settings.rows import Row
from stages.tools.lent_stages import plan
code.main()
for stage in plan([Row("{NAME}")]):
    importlib.import_module(f"stages.{{stage.kind}}").main(stage.entry)
"""


def environment() -> dict[str, str]:
    """One thread, so that each call rounds as every other."""
    values = {key: value for key, value in os.environ.items() if key not in ("OUT", "DATA_ROOT")}
    return values | {"DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


def project(folder: Path) -> Path:
    """A project whose row works long enough to be killed, with the code beside it."""
    values = suite()
    values["runs"][NAME] = row(distill=MTT | {"iterations": 20}, epochs=30)
    make_project(folder, PARAMS, {"shapes": values})
    (folder / "stages").symlink_to(ROOT / "stages")
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target, symlinks=True)


def call(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, *words], cwd=folder, env=environment(), capture_output=True, text=True)


def begun(output: str) -> list[str]:
    """The stages that the output of a call names."""
    return [line.split(":")[0] for line in output.splitlines() if ": python -m stages." in line]


def is_under_way(folder: Path, stage: str) -> bool:
    """Whether an expert or a network is finished, or the distillation has begun."""
    patterns = {"buffer": "buffer-*/expert-*", "distill": "distill-*/", "train": "train-*/cross*"}
    pattern = patterns.get(stage.split("@")[0])
    if pattern is None:  # `prepare` leaves nothing to see
        time.sleep(0.3)
        return True
    return any((folder / "scratch").glob(pattern))


def is_stamped(folder: Path, stage: str) -> bool:
    return (folder / "scratch/lent" / f"{stage}.json").exists()


def kill_in(folder: Path, program: subprocess.Popen, stage: str) -> None:
    """Kill the program while it is in a stage. The stage goes on, so that the next call has to end it."""
    while not is_under_way(folder, stage) and not is_stamped(folder, stage) and program.poll() is None:
        time.sleep(0.02)
    program.kill()
    if stage == f"train@{NAME}":
        with chdir(folder):
            end_leftovers()


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[str]]:
    """A project whose calls were killed in every slow stage until all was done.

    With the networks that the second run of `train` found.
    """
    folder = project(tmp_path_factory.mktemp("killed"))
    waiting = list(SLOW)
    networks: list[str] = []
    for _ in range(len(SLOW) + 1):
        program = subprocess.Popen(PROGRAM, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        for line in program.stdout:
            for stage in begun(line):
                if stage in waiting:
                    waiting.remove(stage)
                    kill_in(folder, program, stage)
                elif stage == f"train@{NAME}":
                    networks = [path.name for path in folder.glob("scratch/train-*/*")]
        if program.wait() != -signal.SIGKILL:
            break
    assert program.returncode == 0
    assert not waiting
    return folder, networks


@pytest.fixture
def copied(killed, tmp_path) -> Path:
    """A copy of the project in which all is done."""
    return copy_of(killed[0], tmp_path / "copy")


def test_killed_in_every_slow_stage_it_ends_where_one_go_ends(killed, tmp_path):
    folder, networks = killed
    assert any(name.startswith("cross_entropy-") for name in networks), "finished networks are kept"
    other = project(tmp_path)
    subprocess.run([sys.executable, "-c", IN_ONE_GO], cwd=other, env=environment(), check=True)
    for file in FILES:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file
    left = [path for path in (folder / "scratch").glob("*-*") if path.is_dir()]
    assert not left, "checkpoints are gone when the work is done"


def test_the_results_are_seven_small_files_that_others_may_read(killed):
    folder = killed[0]
    modes = {path.name: path.stat().st_mode for path in (folder / "results").iterdir()}
    assert len(set(modes.values())) == 1
    assert modes.keys() == {
        "metrics.json",
        "tables.md",
        "curves.csv",
        "sets.safetensors",
        "logits.safetensors",
        "features.safetensors",
        "pieces.json",
    }
    evaluated = read_result(folder / f"data/evaluate/{NAME}.json")
    metrics = json.loads((folder / "results/metrics.json").read_text())
    assert metrics["rows"][NAME]["evaluate"] == evaluated
    assert metrics["rows"][NAME].keys() == {
        "temperature",
        "calibrate",
        "evaluate",
        "ablate",
        "svd",
        "choices",
        "reach",
    }
    assert metrics["left_out"] == []
    mean = 100 * np.mean(evaluated["methods"]["mts"]["ece"])
    assert f"| {mean:.2f} ± " in (folder / "results/tables.md").read_text()


def test_sets_logits_and_features_are_kept_in_16_bits(killed):
    folder = killed[0]
    sets = load_file(folder / "results/sets.safetensors")
    made = load_file(folder / f"data/distill/{NAME}/set.safetensors")
    assert sets[f"{NAME}/images"].dtype == np.float16
    assert np.allclose(sets[f"{NAME}/images"], made["images"], rtol=1e-3, atol=1e-3)
    assert sets[f"{NAME}/step_size"] == made["step_size"]
    assert sets[f"{NAME}/labels"].tolist() == [0, 0, 1, 1, 2, 2]
    logits = load_file(folder / "results/logits.safetensors")
    assert logits[f"{NAME}/cross_entropy"].shape == (2, 30, 3)
    assert {f"{NAME}/{name}" for name in ("mixup", "holdout", "labels")} <= logits.keys()
    features = load_file(folder / "results/features.safetensors")
    made = load_file(folder / f"data/features/{NAME}.safetensors")
    assert features.keys() == {f"{NAME}/{name}" for name in made}
    logits_of_test_images = features[f"{NAME}/inside.max_logit"]
    assert np.allclose(logits_of_test_images, made["inside.max_logit"], rtol=1e-3, atol=1e-3)


def test_curves_are_kept_as_lines(killed):
    head, *lines = csv.reader((killed[0] / "results/curves.csv").open())
    assert head == ["stage", "name", "step", "curve", "value"]
    losses = [line for line in lines if line[0] == "distill" and line[3] == "loss"]
    assert len(losses) == 20
    assert ["buffer", "shapes", "3", "accuracy"] in [line[:4] for line in lines]


def test_the_pieces_say_what_each_stage_took(killed):
    pieces = json.loads((killed[0] / "results/pieces.json").read_text())["pieces"]
    finished = [piece for piece in pieces if piece["outcome"] == "finished"]
    assert [piece["stage"] for piece in finished] == SLOW + QUICK
    for piece in finished:
        assert piece["seconds"] > 0
        assert piece["cpu_seconds"] > 0
        assert piece["peak_mib"] > 20
        assert piece["device"]
        assert piece["torch"]


def test_with_all_done_a_call_does_nothing(copied):
    files = [path for path in (copied / "data").rglob("*") if path.is_file() and "code" not in path.parts]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = call(copied)
    assert again.returncode == 0
    assert again.stdout == "all done\n"
    assert before == {path: path.stat().st_mtime_ns for path in files}
    code = "import sys, stages.tools.lent; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_another_mask_ratio_runs_the_quick_stages_in_pieces_as_short_as_wanted(copied):
    params = yaml.safe_load((copied / "params.yaml").read_text())
    (copied / "params.yaml").write_text(yaml.safe_dump(params | {"mask_ratio": 0.35}))
    short = call(copied, "--minutes", "0.001")
    assert short.returncode == lent.UNFINISHED
    assert begun(short.stdout) == QUICK[:1]
    assert f"not finished: {QUICK[0]} goes on at the next call" in short.stdout
    numbers = json.loads((copied / "results/metrics.json").read_text())["rows"][NAME]
    assert "evaluate" not in numbers, "these would be of other settings"
    piece = json.loads((copied / "results/pieces.json").read_text())["pieces"][-1]
    assert piece["outcome"] == "stopped"
    whole = call(copied, "--until-done")
    assert whole.returncode == 0
    assert begun(whole.stdout) == [*SCORED, f"choices@{NAME}", f"reach@{NAME}"]
    assert json.loads((copied / f"data/evaluate/{NAME}.json").read_text())["mask_ratio"] == 0.35


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_piece_of_no_time_or_without_end_is_refused(minutes, capsys):
    with pytest.raises(SystemExit):
        lent.main(NAME, "--until-done", "--minutes", minutes)
    assert f"{minutes}; allowed: a number above 0 and below a million" in capsys.readouterr().err


def test_a_failing_stage_ends_the_program_with_its_status_and_message(copied):
    file = copied / "suites/shapes.yaml"
    file.write_text(file.read_text().replace("batch: 16", "batch: ten"))
    failed = call(copied)
    assert failed.returncode == 1
    assert begun(failed.stdout) == ["buffer@shapes"]
    assert "buffers.shapes: batch: 'ten' is not allowed" in failed.stderr
    assert "error: buffer@shapes ended with status 1" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unknown_row_is_a_line_that_lists_the_rows():
    command = [*PROGRAM[:3], "cifar10-mtt"]
    wrong = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1
    assert "'cifar10-mtt' is unknown; allowed: " in wrong.stderr
    assert "cifar10-mtt-ipc1-cpu" in wrong.stderr


def test_the_settings_of_a_stage_are_those_that_dvc_knows():
    """The stamps of `distill` and `train` have the keys of a row that dvc.yaml lists for these stages."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, section in (("distill", DistillKeys), ("train", TrainKeys)):
        *shared, of_suite = stages[name]["do"]["params"]
        listed = {key.split(".")[-1] for key in next(iter(of_suite.values())) if key.startswith("runs.")}
        assert listed == section.model_fields.keys()
        assert set(shared) <= {"seed", "train"}


def test_every_row_has_a_plan_whose_inputs_come_first(monkeypatch):
    monkeypatch.chdir(ROOT)
    for file in sorted(Path("suites").glob("*.yaml")):
        made: set[Path] = set()
        for stage in plan([Row(name) for name in yaml.safe_load(file.read_text())["runs"]]):
            for path in stage.inputs:
                is_committed = path.name == "nothing" or "sets" in path.parts
                assert is_committed or path in made or any(path in file.parents for file in made), stage.name
            made |= set(stage.outputs)


def test_skipped_stages_are_left_out_with_what_only_they_need_and_their_results_stay(copied):
    with chdir(copied):
        kinds = [stage.name for stage in plan([Row(NAME)], ["features", "svd", "reach"])]
    assert kinds == [*SLOW, *SCORED, f"choices@{NAME}"]
    before = json.loads((copied / "results/metrics.json").read_text())
    features = (copied / "results/features.safetensors").read_bytes()
    done = call(copied, "--skip", "features", "--skip", "svd")
    assert done.returncode == 0 and begun(done.stdout) == []
    assert json.loads((copied / "results/metrics.json").read_text()) == before
    assert (copied / "results/features.safetensors").read_bytes() == features
    refused = call(copied, "--skip", "train")
    assert refused.returncode == 2 and "'features', 'svd', 'choices', 'reach'" in refused.stderr


def test_a_stage_is_done_under_its_own_settings_code_inputs_and_outputs_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [Path("input"), Path("data/code/work.json"), Path("output")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("first")
    stage = Stage("work", "x", "work", {"key": 1}, [Path("input")], [Path("output")])
    used = SimpleNamespace(ru_utime=1.0, ru_stime=1.0, ru_maxrss=2**20)
    monkeypatch.setattr(lent, "run_command", lambda command, deadline: (0, used))
    monkeypatch.setattr(lent_results, "circumstances", dict)
    later = time.monotonic() + 60
    assert not is_done(stage)
    assert lent.work([stage], later, Path("out")) == 0
    assert is_done(stage)
    assert not is_done(stage._replace(settings={"key": 2}))
    for file in files:
        file.write_text("second")
        assert not is_done(stage), file
        lent.work([stage], later, Path("out"))
        assert is_done(stage)
    Path("output").unlink()
    assert not is_done(stage)


def test_without_arrays_there_is_no_file(tmp_path):
    assert write_arrays(tmp_path / "features.safetensors", {}, ["a"]) == []
    assert not list(tmp_path.iterdir())


def test_what_has_no_room_is_named_and_other_rows_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(lent_results, "LIMIT", 2500)
    sources = {name: tmp_path / f"{name}.safetensors" for name in ("a", "b")}
    tensors = {"cross_entropy": ones(100), "labels": ones(100).long(), "mixup": ones(1000)}
    for name, file in sources.items():
        write_tensors(file, tensors, {"of": name})
    out = tmp_path / "logits.safetensors"
    assert write_arrays(out, {"a": sources["a"]}, ["a"]) == []
    assert write_arrays(out, {"b": sources["b"]}, ["b"]) == ["logits/a/mixup", "logits/b/mixup"]
    kept = {f"{name}/{array}" for name in ("a", "b") for array in ("cross_entropy", "labels")}
    assert set(load_file(out)) == kept
    assert write_arrays(out, {}, ["a"]) == []
    assert {name[0] for name in load_file(out)} == {"b"}


@pytest.mark.parametrize(
    "name, text", [("sets.safetensors", "cut"), ("curves.csv", "stage,name\nbuffer,sha")]
)
def test_damaged_results_of_a_former_call_are_named(name, text, tmp_path):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UserError, match=f"{name} is damaged; delete it"):
        if name == "curves.csv":
            lent_results.write_curves(file, [], set())
        else:
            write_arrays(file, {}, [])
