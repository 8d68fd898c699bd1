"""Damaged files are harmless or reported, and never end in another result."""

from pathlib import Path

import pytest
from project import suite

from benchmarks import faults

ROWS = (faults.NAME, "shapes-random-ipc1")


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
    assert {"state.safetensors", "expert-0000.safetensors", "part-1-1.safetensors"} <= names
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
    trial = faults.trial(project, "swapped", one, other, faults.random.Random(0))
    project.restore()
    assert trial.outcome == "WRONG"
