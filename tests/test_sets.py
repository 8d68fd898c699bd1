"""Rows with several sets: each repeat of training has its own, for its networks and their temperatures."""

from contextlib import chdir
from pathlib import Path

import project
import pytest
import torch
from project import PARAMS, make_project, run
from safetensors.torch import load_file

from stages.calibrators import mts, ts
from stages.images.distilled import DistilledSet, load_set
from stages.runtime.files import write_tensors
from stages.settings.rows import Row
from stages.settings.train import TrainKeys
from stages.train import kept_rows
from stages.training.groups import train_settings
from stages.training.repeats import setup_of

ROW = "shapes-random-ipc4"
SETS = 3
REPEATS = 4  # the last one has the first set again
GROUPS = ("cross_entropy", "holdout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project with a row of three random sets, and its networks."""
    params = PARAMS | {"train": PARAMS["train"] | {"repeats": REPEATS, "losses": ["cross_entropy"]}}
    suite = project.suite()
    keys = {"reads": "nothing", "lr": 0.05, "distill": {"sets": SETS}, "epochs": 2}
    suite["runs"] = {ROW: project.row(backbone="random", ipc=4, **keys)}
    folder = make_project(tmp_path_factory.mktemp("project"), params, {"shapes": suite})
    with chdir(folder):
        run("prepare", "shapes")
        run("distill", ROW)
        run("train", ROW)
        run("masked")
    return folder


def the_set() -> DistilledSet:
    row = Row(ROW)
    return load_set(row.distilled, row.prepared)


def test_repeats_have_one_set_after_the_other(trained):
    with chdir(trained):
        distilled = the_set()
    assert distilled.sets == SETS
    for repeat in range(REPEATS):
        data = distilled.of_repeat(repeat)
        first = 12 * (repeat % SETS)
        assert torch.equal(data.images, distilled.data.images[first : first + 12])
        assert data.labels.bincount().tolist() == [4, 4, 4]
    assert not torch.equal(distilled.of_repeat(0).images, distilled.of_repeat(1).images)


def test_a_set_is_of_no_concern_to_the_networks_and_temperatures_of_other_repeats(trained, monkeypatch):
    """Another second set changes what the second repeat trains on and is calibrated on, and nothing else."""
    monkeypatch.chdir(trained)
    row = Row(ROW)
    tensors = load_file(row.distilled)
    files = {"weights": row.weights, "fitting": row.fitting_logits}
    before = {name: load_file(file) for name, file in files.items()}
    second = tensors["set"] == 1
    changed = tensors["images"].clone()
    changed[second] = torch.randn(changed[second].shape, generator=torch.Generator().manual_seed(0))
    write_tensors(row.distilled, tensors | {"images": changed})
    try:
        run("train", ROW)
        run("masked")
        after = {name: load_file(file) for name, file in files.items()}
    finally:
        write_tensors(row.distilled, tensors)
    for name, keys in (("weights", GROUPS), ("fitting", logits_of(before["fitting"]))):
        for key in keys:
            same = [torch.equal(a, b) for a, b in zip(before[name][key], after[name][key])]
            assert same == [True, False, True, True], (name, key)


def logits_of(fitting: dict[str, torch.Tensor]) -> list[str]:
    return [key for key in fitting if not key.endswith("labels")]


def test_ts_keeps_images_of_its_own_set_from_training(trained, monkeypatch):
    """What TS is fitted on and what its network has trained on are the set of the repeat, split in two."""
    monkeypatch.chdir(trained)
    row = Row(ROW)
    settings = train_settings()
    setup = setup_of(row, row.keys(TrainKeys), settings)
    rows = kept_rows(setup, settings.holdout)
    distilled = the_set()
    for repeat in range(REPEATS):
        data = distilled.of_repeat(repeat)
        fitted_on, labels = ts.fitting_images(data, settings.holdout, 0, row.seed, repeat)
        assert labels.tolist() == [0, 1, 2]
        trained_on = setup.data.images[rows[repeat]]
        assert len(trained_on) == 9
        both = torch.cat([fitted_on, trained_on])
        assert sorted(map(str, both.tolist())) == sorted(map(str, data.images.tolist()))


def test_mts_fits_on_images_of_its_own_set(trained, monkeypatch):
    monkeypatch.chdir(trained)
    distilled = the_set()
    for repeat in range(REPEATS):
        data = distilled.of_repeat(repeat)
        images, _ = mts.fitting_images(data, 0.1, 0, 0, repeat)
        for image in images:
            assert bool((data.images == image).all(dim=(1, 2, 3)).any())


def test_a_row_with_one_set_has_it_in_every_repeat(trained):
    with chdir(trained):
        data = the_set().data
    alone = DistilledSet(data, step_size=None, teacher_step_size=None, number=None)
    assert alone.sets == 1
    assert alone.rows(3) is None
    assert alone.of_repeat(3) is data
