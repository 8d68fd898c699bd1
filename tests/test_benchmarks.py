"""The benchmarks' ways come to the same numbers, and what they print and draw is what was measured."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT, make_project

from benchmarks import buffer, calibrate, distill, growth, mask_order, measure, public, repro, table, train
from benchmarks.measure import distance
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


def test_a_floor_is_below_what_was_measured():
    rates = measure.rates(runs=2)
    a = torch.randn(1024, 1024)
    fastest = min(measure.timed(lambda: a @ a) for _ in range(4))
    floor = 2 * 1024**3 / rates["float32_operations"]
    assert fastest > 0.3 * floor
    assert np.isfinite(list(rates.values())).all()


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
