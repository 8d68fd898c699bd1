"""What may not change while a stage runs, and results that know which code has made them."""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from project import PARAMS, ROOT, make_project, write_yaml

from stages import buffer
from stages.runtime.checkpoint import digest
from stages.runtime.errors import UserError
from stages.runtime.files import write_result
from stages.runtime.reuse import code_version
from stages.tools.records import recorded
from stages.tools.unchanged import check_settings, settings_of

ROW = ("shapes-mtt-ipc2",)
PIPELINE = {"stages": {"test_unchanged": {"params": ["seed", "train.momentum"], "deps": ["suites"]}}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    write_yaml(Path("dvc.yaml"), PIPELINE)
    return tmp_path


def main() -> None:
    """A stage of all rows, called `test_unchanged` as this file is."""
    write_result(Path("data/test_unchanged/all.json"), {})


def change(section: str, key: str, value: object) -> None:
    write_yaml(Path("params.yaml"), PARAMS | {section: PARAMS[section] | {key: value}})


def test_a_setting_that_changes_while_its_stage_runs_ends_it(project):
    def changing() -> None:
        main()
        change("train", "momentum", 0.5)

    with pytest.raises(UserError, match="params.yaml: train.momentum was changed while test_unchanged ran"):
        recorded(changing)()
    assert not Path("reports/records/test_unchanged.json").exists()


def test_a_setting_of_other_stages_may_change(project):
    def changing() -> None:
        main()
        change("train", "batch", 7)

    recorded(changing)()
    assert Path("reports/records/test_unchanged.json").exists()


def test_a_suite_that_changes_while_a_stage_for_all_rows_runs_ends_it(project):
    def changing() -> None:
        main()
        suite = Path("suites/shapes.yaml")
        suite.write_text(suite.read_text() + "# another line\n")

    with pytest.raises(UserError, match="suites/shapes.yaml was changed"):
        recorded(changing)()


@pytest.mark.parametrize("stage", ["prepare", "buffer", "distill", "train"])
def test_the_settings_of_a_stage_are_those_that_dvc_compares(project, stage):
    (project / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    names = ("shapes",) if stage in ("prepare", "buffer") else ROW
    settings = settings_of(stage, names)
    assert not [place for place in settings if "$" in place]
    params = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["do"]["params"]
    assert len(settings) == sum(len(keys_of(entry)) for entry in params)
    assert any(value is not None for value in settings.values())
    check_settings(stage, names, settings)


def keys_of(entry: str | dict) -> list[str]:
    """The keys of an entry of `params`: a key of params.yaml, or a file with its keys."""
    return [key for keys in entry.values() for key in keys] if isinstance(entry, dict) else [entry]


@pytest.fixture
def module(project) -> Path:
    """A module that the stage `code` has listed, and that was edited since."""
    path = Path("stages/module.py")
    path.parent.mkdir()
    path.write_text("one = 1\n")
    write_result(
        Path("data/code/test_unchanged.json"), {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    return path


def test_a_stage_of_dvc_does_not_run_code_that_was_edited_after_it_was_listed(module, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "test_unchanged")
    recorded(main)()
    module.write_text("one = 2  # another size\n")
    with pytest.raises(UserError, match="stages/module.py was edited"):
        recorded(main)()
    monkeypatch.delenv("DVC_STAGE")
    recorded(main)()


def test_the_version_of_the_code_is_that_of_the_files(module):
    listed = code_version("test_unchanged")
    assert listed == Path("data/code/test_unchanged.json").read_text()
    module.write_text("one = 2  # another size\n")
    edited = code_version("test_unchanged")
    module.unlink()
    assert len({listed, edited, code_version("test_unchanged")}) == 3


def test_checkpoints_belong_to_the_code_of_the_stage_that_runs_as_main(monkeypatch):
    as_module = digest({}, [])
    monkeypatch.delitem(sys.modules, "stages.buffer")
    assert digest({}, []) != as_module
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=buffer.__file__))
    assert digest({}, []) == as_module


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "[]", '{"runs": [{}]}', '{"runs": 1}'])
def test_records_that_are_none_begin_anew(project, text, capsys):
    file = Path("reports/records/test_unchanged.json")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    recorded(main)()
    assert f"{file} is no file of records" in capsys.readouterr().err
    assert "data/test_unchanged/all.json" in file.read_text()
