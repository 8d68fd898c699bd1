"""Files that are whole or absent, checkpoints of exactly one piece of work, and random numbers by key."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from stages.runtime.checkpoint import digest, scratch
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_about, replacing, write_curve, write_json, write_tensors
from stages.runtime.randomness import generator

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


def test_what_is_said_about_tensors_can_be_read_again(tmp_path):
    file = tmp_path / "set.safetensors"
    write_tensors(file, {"x": torch.zeros(1)}, {"seed": 3})
    assert read_about(file) == {"seed": 3}
    write_tensors(file, {"x": torch.zeros(1)})
    assert read_about(file) == {}


def test_a_curve_is_names_and_a_line_for_each_point(tmp_path):
    write_curve(tmp_path / "curve.csv", {"iteration": [1, 2], "loss": [0.123456789, 3e-9]})
    assert (tmp_path / "curve.csv").read_text() == "iteration,loss\n1,0.123457\n2,3e-09\n"


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
