"""The benchmarks' ways come to the same numbers, and what they print and draw is what was measured."""

import importlib
import json
import os
import re
import subprocess
import sys
import venv
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT, make_project

from benchmarks import buffer, calibrate, distill, growth, mask_order, measure, public, repro, table, train
from benchmarks.card import __main__ as card
from benchmarks.card import lines as card_lines
from benchmarks.card import worker
from benchmarks.measure import distance
from stages.machine.precision import tf32_if_asked
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.settings.project import read_yaml

# The plain ways and ours


def test_experts_are_those_of_the_public_way(tmp_path, monkeypatch):
    monkeypatch.setattr(buffer, "DIGITS", buffer.DIGITS.model_copy(update={"epochs": 1}))
    ours = buffer.digits("ours, float32", tmp_path / "ours", 2).result[:, :2]
    plain = buffer.digits("plain", tmp_path / "plain", 2).result[:, :2]
    assert ours.shape == plain.shape
    assert distance(ours, plain) < 1e-4
    assert not torch.equal(plain[0], plain[1])


def test_batches_are_those_of_the_public_way():
    epoch = buffer.Batches(8, 2, 4, 2, compiled=False)
    ours = buffer.random_images("ours, float32", epoch)
    plain = buffer.random_images("plain", epoch)
    assert ours.result.shape == plain.result.shape == (1, 2, plain.result.shape[2])
    assert distance(ours.result, plain.result) < 1e-4


def test_networks_are_those_of_the_public_way(tmp_path):
    ours, plain = (train.networks(way, tmp_path / way, 2, 3).work() for way in ("ours", "plain"))
    assert len(ours) == 8
    assert distance(ours, plain) < 1e-4
    assert distance(plain[0], plain[1]) > 0.1, "another repeat"
    assert distance(plain[0], plain[2]) > 1e-3, "another loss"


THREE_STEPS = {"iterations": 1, "syn_steps": 3, "batch_syn": None}
UPDATES = {
    "mtt": distill.MTT | {"syn_steps": 3},
    "rtp": THREE_STEPS,
    "dc": distill.MATCHING,
    "dsa": distill.MATCHING,
}


@pytest.mark.parametrize("backbone", UPDATES)
def test_updates_are_those_of_the_public_way(tmp_path, backbone):
    shape = distill.Shape(1, 8, 8, 2)
    case = distill.Case(backbone, 2, UPDATES[backbone], shape, False, 0, classes=3)
    ours = distill.ours(case, distill.problem(case, tmp_path))()
    plain = distill.plain(case, distill.problem(case, tmp_path))()
    assert float(plain.norm()) > 0
    assert distance(ours, plain) < 1e-4


def test_temperatures_are_the_best_ones():
    best = calibrate.exact(*calibrate.made(3000, 20))
    assert float(calibrate.temperature("ours", 3000, 20).result) == pytest.approx(best, rel=1e-5)
    assert float(calibrate.temperature("plain", 3000, 20).result) == pytest.approx(best, rel=1e-2)


# What is measured


def test_growth_measures_each_size_in_a_process_of_its_own(tmp_path, monkeypatch):
    axis = growth.AXES["calibrate"]["100 classes"]._replace(values=(1000,))
    monkeypatch.setattr(growth, "AXES", {"calibrate": {"100 classes": axis}})
    monkeypatch.setattr(growth, "FOLDER", tmp_path)
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    growth.main("--runs", "2")
    results = json.loads((tmp_path / "growth-calibrate.json").read_text())["results"]
    assert [(line["way"], line["value"]) for line in results] == [("plain", 1000), ("ours", 1000)]
    for line in results:
        assert 0 < line["min"] <= line["median"] <= line["max"]
        assert line["peak_mib"] > 50
    for ending in ("svg", "csv"):
        assert (tmp_path / f"growth-calibrate.{ending}").stat().st_size > 100


def test_growth_names_what_it_can_measure(capsys):
    with pytest.raises(SystemExit):
        growth.main("speed")
    message = "speed: no such benchmark; allowed: buffer, distill, train, calibrate"
    assert message in capsys.readouterr().err


def test_rates_are_operations_and_bytes_by_seconds(monkeypatch):
    monkeypatch.setattr(measure, "fastest", lambda *_: 0.5)
    rates = measure.rates(size=8)
    assert rates["float32_operations"] == rates["bfloat16_operations"] == 2 * 8**3 / 0.5
    assert rates["copied_bytes"] == 2 * 4 * 2**26 / 0.5


# The public programs

PROGRAM = """
import argparse, time, torch, wandb
from scipy.ndimage.interpolation import rotate
from utils import get_dataset

parser = argparse.ArgumentParser()
for key in ("ipc", "syn_steps", "expert_epochs", "max_start_epoch", "num_eval", "eval_it", "Iteration"):
    parser.add_argument(f"--{key}", type=int)
for key in ("lr_img", "lr_lr"):
    parser.add_argument(f"--{key}", type=float)
args = parser.parse_args()
data = get_dataset("CIFAR10", "data")
channel, im_size, num_classes, class_names, mean, std, dst_train, dst_test, testloader = data[:9]
class_map = data[10]
assert dst_train[11][0].shape == (channel, *im_size)
assert class_map[dst_train[11][1]] == 1
assert len(next(iter(testloader))) == 2
wandb.init(config=args)
assert wandb.config._items["syn_steps"] == 30
(expert,) = torch.load("buffers/CIFAR10_NO_ZCA/ConvNet/replay_buffer_0.pt")
assert len(expert) > args.max_start_epoch - 1 + args.expert_epochs
assert expert[0][0].shape == (128, 3, 3, 3)
for it in range(args.Iteration + 1):
    wandb.log({"Progress": it}, step=it)
    wandb.log({"Synthetic_LR": 0.01}, step=it)
    torch.zeros(1).cuda()
    time.sleep(0.3 if it == 0 else 0.02)
"""


def test_a_public_program_is_timed_between_its_iterations(tmp_path):
    """A program that asks for what MTT's `distill.py` asks for stands in for a clone."""
    (tmp_path / "distill.py").write_text(PROGRAM)
    (tmp_path / "utils.py").write_text("get_dataset = None\n")
    name = "MTT, CIFAR-10, IPC 10, 30 steps"
    times = measure.in_process("benchmarks.public", name, tmp_path, 3)
    assert len(times["seconds"]) == 3
    assert all(0.02 <= seconds < 0.2 for seconds in times["seconds"])
    assert times["peak_mib"] > 50


def test_public_code_that_is_not_there_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(public, "FOLDER", tmp_path)
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    public.main(str(tmp_path))
    assert capsys.readouterr().err.count("left out, there is no ") == len(public.CASES)
    assert not list(tmp_path.iterdir())


# A GPU that is lent by the minute


def clean_python(folder: Path, packages: tuple[str, ...]) -> Path:
    """An interpreter that finds these packages and what they need, and no other."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    wanted = list(packages)
    linked = set()
    while wanted:
        name = wanted.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # needed on another system alone
            continue
        if name in linked:
            continue
        linked.add(name)
        wanted += [re.match(r"[\w.-]+", line)[0] for line in package.requires or [] if "extra ==" not in line]
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))
    assert "pydantic" in linked and "kornia" not in linked and "ray" not in linked
    return folder / "bin" / "python"


def test_the_card_script_needs_few_packages_and_goes_on_where_it_stopped(tmp_path):
    needed = ("torch", "numpy", "safetensors", "pydantic", "pyyaml", "tqdm", "threadpoolctl", "pytest")
    python = clean_python(tmp_path / "env", needed)
    command = [python, "-m", "benchmarks.card", "--small", "--out", tmp_path / "out"]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "DEVICE": "cpu"}

    def call() -> tuple[str, dict]:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads((tmp_path / "out/card-small.json").read_text())["lines"]

    said, lines = call()
    assert "all done" in said
    measured = {name: line for name, line in lines.items() if line["outcome"] == "done"}
    others = {name: line for name, line in lines.items() if line["outcome"] != "done"}
    assert {line["outcome"] for line in others.values()} == {"left out"}
    assert {"ceilings", "tests, test_problem.py", "step of 2 experts, eager, bfloat16"} <= set(measured)
    for name, line in measured.items():
        if name.startswith(("step", "update")):
            assert 0 < line["min"] <= line["median"] <= line["max"]
            assert min(line["floor"], line["floor_of_bytes"], line["peak_mib"]) > 0
            assert line["apart"] < (0.2 if "bfloat16" in name else 1e-3), name
    said, again = call()
    assert {name: again[name] for name in measured} == measured
    assert not [name for name in measured if f"{name} ..." in said]


WORKER = """
import json, os, sys, time
words = json.loads(sys.argv[1])
def tell(**message):
    print(json.dumps(message), flush=True)
for name in ("good", "crash", "broken", "stuck", "last"):
    if name in words["done"]:
        continue
    tell(begin=name)
    if name == "crash":
        os.write(2, b"illegal memory access\\n")
        os._exit(9)
    if name == "broken":
        tell(outcome="failed", error="ValueError: 1")
        sys.exit(1)
    if name == "stuck":
        time.sleep(60)
    tell(outcome="done", median=1.0, said="as expected")
"""


def test_a_line_that_fails_crashes_or_hangs_does_not_stop_the_others(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(card, "WORKER", (sys.executable, str(tmp_path / "worker.py")))
    options = Namespace(minutes=0.05, out=tmp_path, golden="", public=None, small=False, again=False)
    statuses = [card.work(options)]
    while statuses[-1] != 0 and len(statuses) < 9:
        statuses.append(card.work(options))
    assert set(statuses[:-1]) == {card.UNFINISHED} and statuses[-1] == 0
    lines = json.loads((tmp_path / "card.json").read_text())["lines"]
    outcomes = {name: line["outcome"] for name, line in lines.items()}
    assert outcomes == {
        "good": "done",
        "crash": "failed",
        "broken": "failed",
        "stuck": "failed",
        "last": "done",
    }
    assert lines["crash"]["error"] == "the process ended with 9: illegal memory access"
    assert lines["broken"]["error"] == "ValueError: 1"
    assert lines["stuck"]["error"].startswith("not done after ")
    assert "as expected" in card.table(lines)
    kept = card.former_state(Namespace(**vars(options) | {"again": True}))["lines"]
    assert list(kept) == ["good", "last"], "with --again, what has failed is tried again"


def test_a_line_that_goes_on_has_not_failed_where_the_call_ends(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER.replace("tell(begin=name)", "tell(begin=name, goes_on=True)"))
    monkeypatch.setattr(card, "WORKER", (sys.executable, str(tmp_path / "worker.py")))
    done = {"good": {"outcome": "done"}, "crash": {"outcome": "done"}, "broken": {"outcome": "done"}}
    (tmp_path / "card.json").write_text(json.dumps({"lines": done}))
    options = Namespace(minutes=0.05, out=tmp_path, golden="", public=None, small=False, again=False)
    assert card.work(options) == card.UNFINISHED
    assert json.loads((tmp_path / "card.json").read_text())["lines"] == done


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_fails_its_line(value, capsys):
    line = card_lines.Line("line", lambda: {"median": 1.0, "apart": value})
    assert worker.outcome(line) == {"outcome": "failed", "error": f"ArithmeticError: apart is {value}"}


@pytest.mark.parametrize("apart", [2e-3, float("nan")])
def test_a_result_far_from_the_reference_fails_its_line(apart):
    numbers = {"median": 1.0}
    assert card_lines.close(numbers, 1e-4, 1e-3) == {"median": 1.0, "apart": 1e-4}
    failed = worker.outcome(card_lines.Line("line", lambda: card_lines.close(numbers, apart, 1e-3)))
    assert failed["outcome"] == "failed" and "apart from the reference" in failed["error"]
    assert failed["median"] == 1.0, "its time may be right all the same"
    json.dumps(failed, allow_nan=False)


def test_a_failed_line_shows_what_its_error_says_first(capsys):
    def work():
        raise RuntimeError("illegal memory access\nCompile with TORCH_USE_CUDA_DSA")

    assert worker.outcome(card_lines.Line("line", work))["error"] == "RuntimeError: illegal memory access"


def test_asking_for_the_device_leaves_tf32_on_where_it_is_asked_for():
    options = card_lines.Options(Path(), Path(), None, True, 0.0, {})
    options.device  # noqa: B018, picks it
    with tf32_if_asked("tf32"):
        assert options.device.type
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_the_lines_can_be_chosen_by_their_names():
    options = card_lines.Options(Path(), Path(), None, True, 0.0, {}, only="row")
    assert {line.name.split(",")[0] for line in worker.wanted(options)} == {"ceilings", "row"}


def test_the_card_script_says_which_packages_are_missing(monkeypatch):
    monkeypatch.setattr(card, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(SystemExit, match="error: missing packages: no_such_package"):
        card.main()


def test_a_line_that_needs_a_package_is_left_out():
    def needs(package: str) -> card_lines.Line:
        return card_lines.Line("line", lambda: importlib.import_module(package))

    assert worker.outcome(needs("no_such_package")) == {
        "outcome": "left out",
        "said": "needs no_such_package",
    }
    assert worker.outcome(needs("stages.no_such_module"))["outcome"] == "failed"


# The order of mask and augmentation


def test_the_two_rows_differ_in_the_order_alone(tmp_path):
    plan = mask_order.plan_of("--mdt", "0.2")
    assert plan == mask_order.Plan("digits-mtt-ipc10-mdt", 0.2, 3, 5)
    mask_order.project_of(plan, 7, tmp_path / "project", Path("stages").resolve())
    suite = read_yaml(tmp_path / "project/suites/digits.yaml")
    before, after = suite["runs"]["before"], suite["runs"]["after"]
    assert not before["distill"].pop("mask_after_augmentation")
    assert after["distill"].pop("mask_after_augmentation")
    assert before == after == read_yaml(Path("suites/digits.yaml"))["runs"][plan.row] | {"mdt": 0.2}
    assert (list(suite["datasets"]), list(suite["buffers"])) == (["digits"], ["digits"])
    params = read_yaml(tmp_path / "project/params.yaml")
    assert (params["seed"], params["train"]["repeats"]) == (7, 5)


def test_a_row_without_a_mask_needs_a_ratio():
    with pytest.raises(UserError, match="digits-mtt-ipc10 has no mask; .* --mdt 0.1"):
        mask_order.plan_of("--row", "digits-mtt-ipc10")


def test_the_orders_are_compared_in_pairs():
    accuracies = {"before": [[90, 92], [80, 84]], "after": [[91, 93], [83, 87]]}
    networks = []
    for order, by_seed in accuracies.items():
        for seed, of_seed in enumerate(by_seed):
            shares = {"accuracy": [value / 100 for value in of_seed], "ece": [0.1, 0.2]}
            networks += mask_order.scores_of({"raw": shares, "mts": shares}, seed, order)
    accuracy, raw, _ = mask_order.differences(networks)
    assert (accuracy["before"], accuracy["after"]) == (pytest.approx(86.5), pytest.approx(88.5))
    assert accuracy["by_seed"] == pytest.approx([1, 3])
    assert accuracy["difference"] == pytest.approx(2)
    assert accuracy["standard_error"] == pytest.approx(1)  # of 1 and 3: a deviation of sqrt(2), by sqrt(2)
    assert accuracy["standard_error_of_pairs"] == pytest.approx(np.sqrt(4 / 3) / 2)  # of 1, 1, 3, 3
    assert raw["difference"] == raw["standard_error"] == 0
    single = mask_order.differences([network for network in networks if network["seed"] == 0])[0]
    assert single["standard_error"] is None
    assert single["standard_error_of_pairs"] == pytest.approx(0, abs=1e-9)


def test_the_stages_make_a_row_in_both_orders(tmp_path, monkeypatch, capsys):
    make_project(tmp_path)
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    suite = tmp_path / "suites/shapes.yaml"
    absolute = f"source: {tmp_path / 'pictures'}"  # the stages work in another folder
    suite.write_text(suite.read_text().replace("source: pictures", absolute))
    monkeypatch.chdir(tmp_path)
    write_json(
        tmp_path / "reports/benchmarks/mask_order.json",
        {"rows": {"another": {"settings": {}, "differences": []}}},
    )
    mask_order.main("--row", "shapes-mtt-ipc2", "--mdt", "0.3", "--seeds", "1", "--repeats", "2")
    rows = json.loads((tmp_path / "reports/benchmarks/mask_order.json").read_text())["rows"]
    assert list(rows) == ["another", "shapes-mtt-ipc2"]
    networks = rows["shapes-mtt-ipc2"]["networks"]
    made = [(network["order"], network["network"]) for network in networks]
    assert made == [("before", 0), ("before", 1), ("after", 0), ("after", 1)]
    assert all(0 <= network[score] <= 100 for network in networks for score in mask_order.SCORES)
    assert networks[0]["ece_raw"] != networks[2]["ece_raw"]
    assert "| `shapes-mtt-ipc2` | 1 | 2 | accuracy |" in capsys.readouterr().out


def test_the_committed_differences_are_those_of_the_committed_networks():
    rows = json.loads(Path("reports/benchmarks/mask_order.json").read_text())["rows"]
    for of_row in rows.values():
        settings = of_row["settings"]
        assert len(of_row["networks"]) == 2 * settings["seeds"] * settings["repeats"]
        assert mask_order.differences(of_row["networks"]) == of_row["differences"]
    assert mask_order.table(rows) in (ROOT / "benchmarks/README.md").read_text()


# The whole pipeline


def test_the_clock_notes_when_a_stage_began_and_ended(tmp_path):
    for name in ("stages", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    times = tmp_path / "times.jsonl"
    programs = repro.python_with_clock(tmp_path / "bin")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TIMELINE": str(times)}
    subprocess.run("python -m stages.code", shell=True, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "data/code/train.json").exists()
    (stage,) = [json.loads(line) for line in times.read_text().splitlines()]
    assert stage["stage"] == "code"
    assert stage["begun"] < stage["imported"] < stage["ended"]


def test_a_timeline_parts_dvc_python_and_work():
    train = {"stage": "train a", "begun": 10.0, "imported": 12.0, "ended": 20.0}
    report = {"stage": "report", "begun": 21.0, "imported": 21.5, "ended": 24.0}
    lines = repro.timeline([report, train], 7.0, 26.0)
    assert lines == [
        {"stage": "train a", "dvc": 3.0, "start": 2.0, "work": 8.0},
        {"stage": "report", "dvc": 1.0, "start": 0.5, "work": 2.5},
        {"stage": "", "dvc": 2.0, "start": 0.0, "work": 0.0},
    ]
    assert repro.summed(lines) == {"stages": 2, "dvc": 6.0, "start": 2.5, "work": 10.5}


def test_one_color_is_changed(tmp_path):
    file = tmp_path / "stages/reporting/style.py"
    file.parent.mkdir(parents=True)
    before = (ROOT / "stages/reporting/style.py").read_text()
    file.write_text(before)
    repro.change_color(tmp_path)
    pairs = zip(before.splitlines(), file.read_text().splitlines(), strict=True)
    changed = [new.strip() for old, new in pairs if old != new]
    assert changed == ['"mts": "#000000",']


# The tables


def test_tables_show_shares_of_the_way_before(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    share = {"of_plain": 0.5, "peak_of_plain": 0.25}
    plain = {"way": "plain", "setting": "digits", "median": 2.0}
    half = {"way": "ours, bfloat16", "setting": "digits", "median": 1.0} | share
    for benchmark in ("buffer", "train", "distill", "calibrate"):
        write_json(tmp_path / f"{benchmark}.json", {"settings": {}, "results": [plain, half]})
    write_json(tmp_path / "public.json", {"settings": {}, "results": []})
    _, ways = table.tables()
    assert "| `buffer` | digits, bfloat16 | 2 | 1 | 0.50 | 0.25 |" in ways


def test_the_readme_shows_what_was_measured():
    readme = (Path(__file__).parent.parent / "benchmarks/README.md").read_text()
    for text in table.tables():
        assert text in readme
        assert text.count("\n") > 6
