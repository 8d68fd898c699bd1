"""Files that are whole or absent, checkpoints of exactly one piece of work, and random numbers by key."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from stages.runtime.checkpoint import STAGES, digest, scratch
from stages.runtime.checksums import DamagedError, check_brought, is_whole
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import (
    read_about,
    read_arrays,
    read_result,
    read_tensors,
    replacing,
    tensor_names,
    write_curve,
    write_json,
    write_result,
    write_tensors,
)
from stages.runtime.randomness import generator
from stages.runtime.reuse import former_result, is_made_from, read_json

# ---- files ----


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"x": float("nan")})
    with pytest.raises(OSError, match="disk full"), replacing(file) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert file.read_text() == '{\n  "x": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "name, write, content",
    [
        ("a.json", write_json, {"x": 1}),
        ("a.json", write_result, {"x": 1}),
        ("a.safetensors", write_tensors, {"x": torch.arange(1000)}),
    ],
)
def test_a_file_is_whole_on_the_disk_before_it_replaces_another(name, write, content, tmp_path, monkeypatch):
    steps = []

    def put_on_disk(descriptor):
        steps.append(os.fstat(descriptor))

    def rename(temporary, path, replace=os.replace):
        steps.append(os.stat(temporary))
        replace(temporary, path)

    monkeypatch.setattr("os.fsync", put_on_disk)
    monkeypatch.setattr("os.replace", rename)
    write(tmp_path / name, content)
    on_disk, renamed = steps
    assert (on_disk.st_ino, on_disk.st_size) == (renamed.st_ino, renamed.st_size)
    assert on_disk.st_size == (tmp_path / name).stat().st_size


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")

    def write(*_):
        with replacing(tmp_path / "set.safetensors") as temporary:
            temporary.symlink_to(full)
            temporary.write_bytes(bytes(10_000))

    with pytest.raises(SystemExit, match="error: .*No space left on device"):
        run_stage(write)
    assert not list(tmp_path.iterdir())


def test_tensors_on_a_full_disk_leave_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SafetensorError("Error while serializing: IoError(No space left on device)")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="set.safetensors: .*No space left"):
        write_tensors(tmp_path / "set.safetensors", {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_the_user_ends_in_one_line():
    def refuse(*_):
        raise UserError("train.lr: 'fast' is not allowed")

    with pytest.raises(SystemExit, match="^error: train.lr: 'fast' is not allowed$"):
        run_stage(refuse)


@pytest.mark.parametrize(
    "words, main, expected",
    [
        ([], lambda name: None, "0 words; allowed: <name>"),
        (["a", "b"], lambda name: None, "2 words; allowed: <name>"),
        (["a"], lambda: None, "1 words; allowed: none"),
    ],
)
def test_words_that_a_stage_does_not_take_end_in_one_line(words, main, expected, monkeypatch):
    monkeypatch.setattr("sys.argv", ["stage", *words])
    with pytest.raises(SystemExit, match=f"^error: {expected}$"):
        run_stage(main)


def test_what_is_said_about_tensors_can_be_read_again(tmp_path):
    file = tmp_path / "set.safetensors"
    write_tensors(file, {"x": torch.zeros(1)}, {"seed": 3})
    assert read_about(file) == {"seed": 3}
    write_tensors(file, {"x": torch.zeros(1)})
    assert read_about(file) == {}


def test_a_curve_is_names_and_a_line_for_each_point(tmp_path):
    write_curve(tmp_path / "curve.csv", {"iteration": [1, 2], "loss": [0.123456789, 3e-9]})
    assert (tmp_path / "curve.csv").read_text() == "iteration,loss\n1,0.123457\n2,3e-09\n"


# ---- checksums ----

READERS = {
    "set.safetensors": [read_tensors, read_arrays, read_about, tensor_names],
    "result.json": [read_result],
}


def written(name: str, folder: str = "data/train/a") -> Path:
    """A file as a stage writes it."""
    path = Path(folder, name)
    if path.suffix == ".json":
        write_result(path, {"ece": [0.1, 1e-9], "made_from": "x"})
    else:
        write_tensors(path, {"x": torch.arange(5), "y": torch.ones(2, 3)}, {"made_from": "x"})
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_files_with_a_checksum_give_what_was_written(here):
    assert read_result(written("result.json")) == {"ece": [0.1, 1e-9], "made_from": "x"}
    file = written("set.safetensors")
    assert torch.equal(read_tensors(file)["x"], torch.arange(5))
    assert read_arrays(file)["y"].tolist() == [[1.0] * 3] * 2
    assert read_about(file) == {"made_from": "x"}
    assert tensor_names(file) == {"x", "y"}


def test_a_file_is_the_same_whenever_it_is_written(here):
    for name in READERS:
        before = written(name).read_bytes()
        assert written(name).read_bytes() == before


@pytest.mark.parametrize("name", READERS)
def test_no_bit_of_a_file_can_change_unnoticed(here, name):
    file = written(name)
    whole = file.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        with pytest.raises(DamagedError, match=f"^{file} is damaged"):
            READERS[name][0](file)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("length", [0, 5, 50, -1])
def test_every_reader_notices_a_truncated_file(here, name, length):
    file = written(name)
    file.write_bytes(file.read_bytes()[:length])
    for read in READERS[name]:
        with pytest.raises(DamagedError, match="Delete it and run `dvc repro`"):
            read(file)


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_place_is_noticed(here, name):
    file = written(name)
    other = written(name, "data/train/b")
    other.replace(file)
    with pytest.raises(DamagedError, match=f"^{file} is what was written to {other}"):
        READERS[name][0](file)


def test_other_users_may_read_tensors_as_they_may_read_results(here):
    former = os.umask(0o022)
    try:
        write_tensors(Path("data/a.safetensors"), {"a": torch.zeros(2)})
        write_result(Path("data/a.json"), {})
    finally:
        os.umask(former)
    modes = {oct(path.stat().st_mode) for path in Path("data").iterdir()}
    assert modes == {"0o100644"}


def test_files_outside_data_and_scratch_may_be_moved(here):
    file = written("set.safetensors", "exported")
    moved = file.rename("set.safetensors")
    assert tensor_names(moved) == {"x", "y"}


@pytest.mark.parametrize("name", READERS)
def test_a_former_result_that_is_damaged_is_made_anew(here, name, capsys):
    file = written(name)
    assert former_result(file) if name == "result.json" else is_made_from(file, "x")
    file.write_bytes(file.read_bytes()[:-1])
    assert not (former_result(file) if name == "result.json" else is_made_from(file, "x"))
    assert capsys.readouterr().err.startswith(f"{file} is damaged")
    file.unlink()
    assert not (former_result(file) if name == "result.json" else is_made_from(file, "x"))


def test_a_damaged_file_of_scratch_is_deleted(here, capsys):
    file = written("state.safetensors", "scratch/train")
    assert is_whole(file)
    file.write_bytes(bytes(100))
    assert not is_whole(file)
    assert not file.exists()
    assert capsys.readouterr().err == f"{file} is damaged: it is deleted, and its work is done again\n"
    assert not is_whole(file)


def test_files_of_others_need_no_checksum(here):
    file = written("set.safetensors", "data/sets/a")
    check_brought(file)
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    with pytest.raises(DamagedError):
        check_brought(file)
    save_file({"x": torch.zeros(1)}, file)
    check_brought(file)
    with pytest.raises(DamagedError, match="has no checksum because an earlier version"):
        read_tensors(file)


def test_json_without_a_checksum_is_read_or_refused(here):
    file = Path("reports.json")
    assert read_json(file) == {}
    write_json(file, {"x": 1})
    assert read_json(file) == {"x": 1}
    file.write_text("{")
    with pytest.raises(UserError, match="^reports.json: not JSON"):
        read_json(file)


# ---- checkpoints ----


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A file of input, in the working directory."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "input"
    file.write_text("1")
    return file


def test_a_digest_changes_with_settings_and_inputs(data):
    before = digest({"lr": 1}, [data])
    assert len(before) == 12
    assert digest({"lr": 1}, [data]) == before
    assert digest({"lr": 2}, [data]) != before
    data.write_text("2")
    assert digest({"lr": 1}, [data]) != before


def test_code_that_only_gives_tasks_to_a_cluster_leaves_a_digest_as_it_is(data, monkeypatch):
    before = digest({}, [data])
    cluster = SimpleNamespace(__file__=str(STAGES / "machine/cluster.py"))
    monkeypatch.setitem(sys.modules, "stages.machine.cluster", cluster)
    assert digest({}, [data]) == before
    other = SimpleNamespace(__file__=str(STAGES / "images/released.yaml"))  # which no test loads as code
    monkeypatch.setitem(sys.modules, "stages.other", other)
    assert digest({}, [data]) != before


def test_a_checkpoint_outlives_a_kill_and_ends_with_the_work(data):
    with pytest.raises(KeyboardInterrupt), scratch("train", {}, [data]) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    with scratch("train", {"lr": 2}, [data]) as folder:
        assert not (folder / "half").exists(), "other settings have other checkpoints"
    with scratch("train", {}, [data]) as folder:
        assert (folder / "half").exists()
        assert folder.parent == Path("scratch")
    assert not list(Path("scratch").iterdir())


def test_work_that_is_under_way_is_not_begun_again(data):
    with scratch("train", {}, [data]) as folder:
        message = f"train is already running in another process .lock {folder}.lock.; wait for it or stop it"
        with pytest.raises(UserError, match=message), scratch("train", {}, [data]):
            pytest.fail("begun")
        assert folder.exists()


# ---- randomness ----


def test_generators_depend_on_the_whole_key_and_nothing_else():
    def first(*key: int | str) -> float:
        return float(torch.rand((), generator=generator(*key)))

    keys = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a", 1, 0)]
    numbers = [first(*key) for key in keys]
    assert len(set(numbers)) == 5
    assert first(0, "a", 1) == numbers[0]
