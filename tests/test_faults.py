"""Damaged files and killed processes are harmless or reported, and never end in another result."""

import os
import random
import subprocess
from pathlib import Path

import pytest
import torch
from project import suite

from benchmarks.faults import cache, kill, power
from benchmarks.faults import corrupt as faults
from benchmarks.faults.cache import Caching
from stages.runtime.checksums import DamagedError
from stages.runtime.files import read_curve, write_curve, write_tensors, write_text
from stages.tools import objects

ROWS = (faults.NAME, "shapes-random-ipc1")
STAGES = ("check", "code", "prepare", "buffer", "distill")  # of the projects that DVC builds
LONGEST = 6  # seconds until a kill; each stage takes about two
DIGESTS = ("356c9ee60e9da05301adc3bd96f6b383", "0" * 32)  # of "whole", and another


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    values = suite()
    for kind in ("features", "reach", "choices"):
        del values[kind]
    del values["datasets"]["shapes-turned"]
    values["runs"] = {name: values["runs"][name] for name in ROWS}
    values["svd"] = {faults.NAME: values["svd"][faults.NAME]}
    with faults.built_project(tmp_path_factory.mktemp("faults"), values) as built:
        yield built


def test_the_project_has_checkpoints_and_finished_work(project):
    names = {path.name for path in project.targets() if path.parts[0] == "scratch"}
    snapshots = {f"part-1-1.snapshots-{first}.safetensors" for first in (0, 2)}
    assert {"state.safetensors", "expert-0000.safetensors", "part-1-1.safetensors", *snapshots} <= names
    assert project.changed() == []


def test_damage_is_harmless_or_reported(project):
    done = list(faults.trials(project, seed=1, count=10))
    assert len(done) == 10
    assert {trial.kind for trial in done} == set(faults.KINDS)
    assert [trial for trial in done if trial.outcome == "WRONG"] == []
    assert [trial for trial in done if trial.outcome == "reported"]


def test_damage_that_no_checksum_sees_is_called_wrong(project, monkeypatch):
    """The campaign would notice: without checksums, swapped test logits change a result."""
    monkeypatch.setattr("stages.runtime.files.check", lambda path: None)
    one, other = (Path("data/train", name, "logits.safetensors") for name in ROWS)
    monkeypatch.setattr(faults, "reader_of", lambda *_: ("evaluate", faults.NAME))
    trial = faults.trial(project, "swapped", one, other, random.Random(0))
    project.restore()
    assert trial.outcome == "WRONG"


# With DVC


def small_suite() -> dict:
    """A row that learns its set from a buffer, and one data set."""
    values = suite()
    del values["datasets"]["shapes-turned"]
    values["runs"] = {faults.NAME: values["runs"][faults.NAME]}
    return {kind: values[kind] for kind in ("datasets", "buffers", "runs")}


@pytest.fixture(scope="module")
def caching(tmp_path_factory):
    return Caching(tmp_path_factory.mktemp("cache"), small_suite(), STAGES)


def test_a_killed_repro_goes_on_to_equal_results(caching):
    """One kill of each kind."""
    checkout = caching.checkout
    checkout.start_anew()
    killing = kill.Killing(checkout, caching.undisturbed, LONGEST, seed=0)
    done = list(killing.kills(3))
    caching.restore()
    assert [trial.kind for trial in done] == list(kill.KINDS)
    assert [trial for trial in done if trial.outcome == "WRONG"] == []
    assert killing.problems == []


def test_a_machine_that_loses_its_power_goes_on_to_equal_results(caching):
    """What DVC has written last is damaged in each way; what an error names is deleted."""
    checkout = caching.checkout
    checkout.start_anew()
    losing = power.Losing(checkout, caching.undisturbed, LONGEST, seed=1)
    done = list(losing.losses(3))
    caching.restore()
    assert [loss.kind for loss in done] == list(power.KINDS)
    assert [loss for loss in done if loss.outcome == "WRONG"] == []
    assert losing.problems == []


HALF = {"shorter": b"a" * power.BLOCK, "empty": b"", "zeros": bytes(5000)}


@pytest.mark.parametrize("kind", power.KINDS)
def test_a_file_of_which_the_disk_has_not_all(kind, tmp_path):
    file = tmp_path / "object"
    file.write_bytes(b"a" * 5000)
    file.chmod(0o444)
    before = file.stat()
    power.lose(kind, file)
    after = file.stat()
    assert file.read_bytes() == HALF[kind]
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)


def test_a_lost_file_that_is_unread_is_no_problem_and_any_other_is(caching):
    losing = power.Losing(caching.checkout, caching.undisturbed, LONGEST, seed=0)
    names = ("data/check/passed", f"data/distill/{faults.NAME}/set.safetensors")
    for name in names:
        power.lose("zeros", caching.checkout.folder / name)
    losing.left = {names[0]: (caching.checkout.folder / names[0]).read_bytes()}
    different = [name for name in names if not losing.may_differ(name)]
    caching.restore()
    assert different == [names[1]]


def test_an_error_after_a_loss_of_power_has_to_name_a_file():
    loss = power.Loss("empty", "train", 1.0, ["data/train/a/logits.safetensors"], "", "", [])
    damaged = "error: data/train/a/logits.safetensors is damaged: its contents have another checksum"
    assert power.named_in(damaged) == ["data/train/a/logits.safetensors"]
    assert power.judged(loss, [], []).outcome == "harmless"
    assert power.judged(loss, [damaged], []).outcome == "reported"
    assert power.judged(loss, [damaged, "ERROR: something broke"], []).outcome == "WRONG"
    assert power.judged(loss, [f"Traceback (most recent call last): {damaged}"], []).outcome == "WRONG"


def test_a_run_with_another_result_is_a_problem(caching):
    """The campaign would notice a file that is not as it was, one that is left, and a lock."""
    killing = kill.Killing(caching.checkout, caching.undisturbed, LONGEST, seed=0)
    folder = caching.checkout.folder
    (folder / f"data/distill/{faults.NAME}/.set.123.safetensors").touch()
    (folder / "scratch/train.lock").touch()
    killing.check_end(0)
    caching.restore()
    assert killing.problems == [
        f"data/distill/{faults.NAME}/.set.123.safetensors differs",
        "scratch/train.lock differs",
    ]


def test_dvc_names_the_lock_that_a_kill_has_left_empty(caching):
    """The campaign deletes what DVC names, and nothing else is needed."""
    checkout = caching.checkout
    lock = checkout.folder / ".dvc/tmp/rwlock"
    lock.write_text("")
    status, output = checkout.dvc("repro")
    assert status != 0 and kill.broken(output) == [".dvc/tmp/rwlock"]
    lock.unlink()
    assert kill.broken(checkout.must("repro")) == []


def test_a_damaged_object_is_noticed(caching):
    experts = caching.undisturbed["data/buffer/shapes/trajectories.safetensors"]
    file, other = sorted(caching.objects("checkout"), key=lambda path: path.read_bytes() != experts)[:2]
    trial = caching.trial(cache.Fault("one bit", "copy", "checkout", file, other), random.Random(0))
    caching.restore()
    assert trial.outcome == "reported", trial


def test_damaged_objects_are_deleted(tmp_path, capsys):
    whole, damaged = (tmp_path / "files/md5" / digest[:2] / digest[2:] for digest in DIGESTS)
    whole_list, damaged_list = (tmp_path / digest[:2] / f"{digest[2:]}.dir" for digest in DIGESTS)
    for file in (whole, damaged, whole_list, damaged_list):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"whole")
    objects.main(str(tmp_path))
    assert whole.exists() and whole_list.exists()
    assert not damaged.exists() and not damaged_list.exists()
    output = capsys.readouterr().out
    assert f"{damaged} was damaged" in output and f"{damaged_list} was damaged" in output


@pytest.mark.parametrize("damage", power.KINDS)
def test_locks_that_a_kill_has_left_in_part_are_deleted_by_one_command(caching, damage, monkeypatch, capsys):
    """A part of dvc.lock may be a whole one for DVC."""
    checkout = caching.checkout
    checkout.must("repro")
    monkeypatch.chdir(checkout.folder)
    assert objects.broken_locks() == []
    locks = [Path("dvc.lock"), Path(".dvc/tmp/rwlock")]
    for lock in locks:
        power.lose(damage, lock)
    broken = objects.broken_locks()
    assert broken == locks if damage == "zeros" else locks[1] in broken
    objects.main()
    said = capsys.readouterr().out
    assert all(f"{lock} had lost its end" in said for lock in broken)
    checkout.must("repro")
    assert checkout.differences(caching.undisturbed) == []
    caching.restore()


def test_what_is_no_object_and_no_text_does_not_stop_the_deleting(tmp_path, capsys):
    place = tmp_path / "files/md5/ab"
    run = tmp_path / "runs/ab/cd/ef"
    for folder in (place / "folder.unpacked", run.parent):
        folder.mkdir(parents=True)
    (place / "link").symlink_to("nowhere")
    (tmp_path / "runs/ab/stray").touch()
    (place / "damaged").write_bytes(b"damaged")
    run.write_bytes(b"cmd: \xff\n")
    objects.main(str(tmp_path))
    assert "1 damaged objects, 1 damaged runs" in capsys.readouterr().out
    assert (place / "link").is_symlink() and (place / "folder.unpacked").is_dir()
    assert not run.parent.exists() and (tmp_path / "runs/ab/stray").exists()


def test_a_damaged_run_that_stops_dvc_is_deleted(caching):
    """DVC deletes a run that it cannot read, and the folder without a run stops it the next time."""
    checkout = caching.checkout
    place = checkout.folder / ".dvc/cache"
    assert objects.damaged_runs(place) == []
    runs = sorted((place / "runs").glob("??/*/*"))
    runs[0].unlink()
    runs[1].write_text("")
    (checkout.folder / "dvc.lock").unlink()
    assert "NoneType" in checkout.dvc("repro")[1]
    objects.main(str(place))
    assert objects.damaged_runs(place) == [] and not runs[0].parent.exists()
    (checkout.folder / "dvc.lock").unlink(missing_ok=True)
    checkout.must("repro")
    caching.restore()


def test_a_list_that_dvc_writes_where_its_lock_has_no_end_is_seen(caching):
    """It lies beside the other objects, and only the damaged one is deleted."""
    lock = caching.checkout.folder / "dvc.lock"
    before, after = lock.read_text().split("distill@")
    end = after.index("- path: data/prepare/shapes\n") + len("- path: data/prepare/shapes\n")
    lock.write_text(f"{before}distill@{after[:end]}")
    caching.checkout.must("repro")
    place = caching.checkout.folder / ".dvc/cache"
    (written,) = place.glob("??/*")
    assert objects.damaged_objects(place) == []
    written.chmod(0o644)
    written.write_bytes(b"")
    assert objects.damaged_objects(place) == [written]
    caching.restore()


# What the mending rests on


def test_a_damaged_curve_is_reported(tmp_path):
    curve, made_with = tmp_path / "curve.csv", tmp_path / "set.safetensors"
    checksum = write_curve(curve, {"iteration": [1, 2], "loss": [0.5, 0.25]})
    write_tensors(made_with, {"labels": torch.zeros(1)}, checksum)
    assert read_curve(curve, made_with) == {"iteration": ["1", "2"], "loss": ["0.5", "0.25"]}
    curve.write_text(curve.read_text().replace("0.5", "0.4"))
    with pytest.raises(DamagedError, match="curve.csv is damaged"):
        read_curve(curve, made_with)


def test_what_a_killed_process_has_left_of_a_file_goes_with_the_next_one(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, running, other = (
        tmp_path / f".{name}.json" for name in (f"a.{ended.pid}", f"a.{os.getppid()}", f"b.{ended.pid}")
    )
    for file in (left, running, other):
        file.touch()
    write_text(tmp_path / "a.json", "{}")
    assert not left.exists() and running.exists() and other.exists()
