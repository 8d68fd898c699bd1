"""Sets with soft labels: read, trained on, and calibrated by what their labels say. Hard ones are one-hot."""

import json
from contextlib import chdir
from pathlib import Path

import numpy as np
import project
import pytest
import torch
import torch.nn.functional as F
import yaml
from project import PARAMS, make_project, run, write_yaml
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from test_calibration import torchs_lbfgs
from torch import Tensor

from stages.calibrators.early_stopped import early_stopped, lbfgs_path
from stages.calibrators.optimum import optimum
from stages.images.distilled import load_set
from stages.images.prepared import LabelledImages
from stages.metrics.scores import log_softmax
from stages.pictures import grid
from stages.runtime.errors import UserError
from stages.runtime.files import read_about, read_result
from stages.settings.calibrate import CalibrateSettings
from stages.settings.rows import Entry, Row
from stages.tools.export import export
from stages.training.loop import examples

CLASSES = 3
PER_CLASS = 4
HARD, ONE_HOT, SOFT = "shapes-hard", "shapes-one-hot", "shapes-soft"
WITHOUT_FOCAL = {"cross_entropy", "mixup", "label_smoothing", "holdout"}


# The fits


def some_logits(seed: int = 0, dtype=np.float32) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((40, 5))).astype(dtype)


def some_targets() -> np.ndarray:
    """Probabilities that the logits above are too sure of."""
    logits = 0.4 * some_logits(0, np.float64) + 0.3 * some_logits(1, np.float64)
    return np.exp(log_softmax(logits)).astype(np.float32)


def paper_settings() -> CalibrateSettings:
    return CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=[0.05, 20.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_hot_labels_give_the_very_temperatures_of_classes(dtype):
    z = some_logits(dtype=dtype)
    labels = np.random.default_rng(2).integers(0, 5, len(z))
    one_hot = np.eye(5, dtype=np.float32)[labels]
    settings = paper_settings()
    assert optimum(z, one_hot, settings.bounds) == optimum(z, labels, settings.bounds)
    assert early_stopped(z, one_hot, settings) == early_stopped(z, labels, settings)


def test_the_optimum_minimises_the_soft_nll():
    z = some_logits(dtype=np.float64)
    targets = some_targets()

    def soft_nll(log_temperature: float) -> float:
        log_p = log_softmax(z / np.exp(log_temperature))
        return -float((targets * log_p).sum(1).mean())

    best = minimize_scalar(soft_nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    for dtype in (np.float32, np.float64):
        fit = optimum(z.astype(dtype), targets, [0.05, 20.0])
        assert fit.temperature == pytest.approx(float(np.exp(best.x)), rel=1e-5)
        assert not fit.bound_hit


def test_the_early_stopped_run_is_that_of_pytorch_on_the_soft_nll():
    z, targets = some_logits().astype(float), some_targets().astype(float)
    theirs = torchs_lbfgs(z, targets, 1.5, 0.02, 50)
    assert lbfgs_path(z, targets, 1.5, 0.02, 50)[-1] == pytest.approx(theirs, rel=1e-6)


# Sets from elsewhere


def soft_set() -> tuple[Tensor, Tensor]:
    """Images and logits of their labels; class 1 is likeliest for more images than the others."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(CLASSES * PER_CLASS, 3, 8, 8, generator=draws)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    logits = 3 * F.one_hot(labels, CLASSES).float() + torch.randn(len(labels), CLASSES, generator=draws)
    logits[0] = torch.tensor([0.0, 2.0, 1.0])
    return images, logits


def soft_row(reads: str, **distill) -> dict:
    return project.row(backbone="file", ipc=PER_CLASS, reads=reads, distill=distill, lr=0.05, epochs=2)


@pytest.fixture
def shapes(tmp_path, monkeypatch) -> Path:
    """A prepared project with a row that reads data/sets/mine; the working directory of the test."""
    suite = project.suite()
    suite["runs"] = {SOFT: soft_row("sets/mine")}
    suite["buffers"] = suite["architectures"] = suite["reach"] = suite["choices"] = {}
    suite["svd"] = suite["features"] = {}
    monkeypatch.chdir(make_project(tmp_path, suites={"shapes": suite}))
    run("prepare", "shapes")
    Path("data/sets/mine").mkdir(parents=True)
    return tmp_path


def write_pair(images: Tensor, labels: Tensor, name: str = "_best") -> None:
    torch.save(images, f"data/sets/mine/images{name}.pt")
    torch.save(labels, f"data/sets/mine/labels{name}.pt")


def take_in(**changes) -> dict[str, Tensor]:
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    suite["runs"][SOFT] |= changes
    write_yaml(Path("suites/shapes.yaml"), suite)
    run("distill", SOFT)
    return load_file(Row(SOFT).distilled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_probabilities_are_taken_as_they_are(dtype, shapes):
    images, logits = soft_set()
    write_pair(images, logits.softmax(1).to(dtype))
    for distill in ({}, {"labels": "probabilities"}):
        taken = take_in(distill=distill)
        assert torch.allclose(taken["targets"], logits.softmax(1), atol=1e-3)
        assert torch.allclose(taken["targets"].sum(1), torch.ones(len(images)), atol=1e-6)
        assert taken["targets"].dtype == torch.float32
        assert taken["labels"].dtype == torch.int64
        assert torch.equal(taken["labels"], logits.argmax(1))
        assert torch.equal(taken["images"], images)


def test_of_logits_softmax_makes_probabilities(shapes):
    images, logits = soft_set()
    write_pair(images, logits)
    taken = take_in(distill={"labels": "logits"})
    assert torch.allclose(taken["targets"], logits.softmax(1), atol=1e-6)
    assert torch.equal(taken["labels"], logits.argmax(1))


def test_datms_three_files_are_a_set(shapes):
    images, logits = soft_set()
    write_pair(images, logits, "")
    torch.save(torch.tensor(0.018), "data/sets/mine/lr.pt")
    taken = take_in(distill={"labels": "logits"}, lr="learned")
    assert float(taken["step_size"]) == pytest.approx(0.018)


def test_a_file_of_dcs_code_may_have_soft_labels(shapes):
    images, logits = soft_set()
    data = [[images, logits.softmax(1)], [images + 1, logits.softmax(1)]]
    torch.save({"data": data}, "data/sets/mine/res_x.pt")
    taken = take_in()
    assert taken["targets"].shape == (2 * len(images), CLASSES)
    assert taken["set"].tolist() == [0] * len(images) + [1] * len(images)
    row = Row(SOFT)
    second = load_set(row.distilled, row.prepared).of_repeat(1)
    assert torch.equal(second.targets, taken["targets"][len(images) :])


def whole(values: Tensor) -> Tensor:
    return values.argmax(1)


@pytest.mark.parametrize(
    "labels, distill, expected",
    [
        (lambda z: z, {}, r"soft labels from -\S+ to \S+ with sums .* are no probabilities"),
        (lambda z: z.softmax(1) * 2, {}, "with sums from 2 to 2 are no probabilities"),
        (lambda z: z, {"labels": "probabilities"}, "are no probabilities"),
        (lambda z: z.softmax(1), {"labels": "logits"}, "are probabilities, but distill.labels is 'logits'"),
        (whole, {"labels": "logits"}, "classes as labels, but distill.labels is 'logits'; leave it out"),
        (lambda z: z / 0, {"labels": "logits"}, "labels with 36 numbers that are not finite"),
        (lambda z: z[:, :2], {}, r"labels \(12, 2\); allowed for this data set: .* and \(N,\) or \(N, 3\)"),
        (lambda z: z[:6], {}, r"images \(12, 3, 8, 8\), labels \(6, 3\)"),
    ],
)
def test_soft_labels_that_cannot_be_used_are_refused(labels, distill, expected, shapes):
    images, logits = soft_set()
    write_pair(images, labels(logits))
    with pytest.raises(UserError, match=expected) as caught:
        take_in(distill=distill)
    assert "images_best.pt" in str(caught.value) and len(str(caught.value).splitlines()) <= 2
    assert not Row(SOFT).distilled.exists()


def test_the_message_on_unknown_soft_labels_names_the_key(shapes):
    write_pair(*soft_set())
    with pytest.raises(UserError, match="`distill.labels: logits`"):
        take_in()


def test_all_images_with_soft_labels_are_as_many_as_the_row_says(shapes):
    write_pair(*soft_set())
    with pytest.raises(UserError, match="12 images with soft labels, but the row's ipc is 2, which makes 6"):
        take_in(distill={"labels": "logits"}, ipc=2)


def test_several_sets_have_likeliest_classes_of_the_same_sizes(shapes):
    images, logits = soft_set()
    other = logits.roll(1, 1)
    data = [[images, logits.softmax(1)], [images, other.softmax(1)]]
    torch.save({"data": data}, "data/sets/mine/res_x.pt")
    with pytest.raises(UserError, match="several sets with soft labels, .*; allowed: one set"):
        take_in()


# All stages


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """All stages on one set with hard, with one-hot and with soft labels."""
    suite = project.suite()
    suite["buffers"] = {}
    suite["svd"] = suite["features"] = {}
    rows = (HARD, ONE_HOT, SOFT)
    suite["runs"] = {name: soft_row(f"sets/{name}") for name in rows}
    named = {"suite": "shapes", "dataset": "shapes"}
    suite["reach"] = {name: named for name in rows}
    suite["choices"] = {SOFT: named}
    suite["architectures"] = {SOFT: named | {"networks": ["mlp"]}}
    suite["svd"] = {SOFT: named | {"drop": [0, 0.2], "epochs": 1}}
    folder = make_project(tmp_path_factory.mktemp("project"), suites={"shapes": suite})
    images, logits = soft_set()
    classes = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    one_hot = F.one_hot(classes, CLASSES).float()
    tensors = {HARD: classes, ONE_HOT: one_hot, SOFT: logits.softmax(1)}
    with chdir(folder):
        for name, labels in tensors.items():
            Path(f"data/sets/{name}").mkdir(parents=True)
            save_file({"images": images, "labels": labels}, f"data/sets/{name}/set.safetensors")
        run("check")
        project.run_all(suite)
    return folder


@pytest.fixture
def built(pipeline, monkeypatch) -> Path:
    monkeypatch.chdir(pipeline)
    return pipeline


def test_one_hot_labels_train_the_very_networks_of_classes(built):
    hard = load_file(Row(HARD).weights)
    one_hot = load_file(Row(ONE_HOT).weights)
    assert hard.keys() == WITHOUT_FOCAL | {"focal"} and one_hot.keys() == WITHOUT_FOCAL
    for group in WITHOUT_FOCAL:
        assert torch.equal(hard[group], one_hot[group]), group


def test_one_hot_labels_give_the_very_results_of_classes(built):
    for file in ("temperatures", "shipped", "ablation", "reach"):
        hard, one_hot = (read_result(getattr(Row(name), file)) for name in (HARD, ONE_HOT))
        for result in (hard, one_hot):
            for key in ("row", "made_from", "set"):
                result.pop(key, None)
        if file == "reach":
            hard["entries"] = [entry for entry in hard["entries"] if "focal" not in entry["on"]]
        assert hard == one_hot, file


def test_soft_labels_train_other_networks(built):
    soft = load_file(Row(SOFT).weights)
    hard = load_file(Row(HARD).weights)
    for group in WITHOUT_FOCAL:
        assert soft[group].isfinite().all() and not torch.equal(soft[group], hard[group])


def test_soft_labels_are_the_targets_of_training(built):
    row = Row(SOFT)
    data = load_set(row.distilled, row.prepared).data
    assert torch.equal(examples(data, torch.device("cpu")).targets, soft_set()[1].softmax(1))


def test_a_loss_that_needs_classes_is_absent_with_a_reason(built, capsys):
    row = Row(SOFT)
    about = read_about(row.weights)
    reason = "it needs a class for each image, and the labels of the set are soft"
    assert about["absent"] == {"focal": reason}
    assert "absent" not in read_about(Row(HARD).weights)
    run("train", SOFT)
    assert f"{SOFT}: no networks with focal: {reason}" in capsys.readouterr().out
    table = Path("reports/tables/table1.md").read_text()
    _, _, names, _, *lines = table.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|") for line in lines if line.startswith("| shapes")}
    focal = [name.strip() for name in names.split("|")].index("Focal")
    assert cells[SOFT][focal].strip() == "-" and cells[HARD][focal].strip() != "-"


def test_temperatures_are_fitted_on_what_the_labels_say(built):
    row = Row(SOFT)
    tensors = load_file(row.fitting_logits)
    targets = load_file(row.distilled)["targets"]
    fitted = json.loads(row.temperatures.read_text())["methods"]
    keys = {"ts": "ts/0/0.1", "mts": "mts/0.3/0.1", "mts_holdout": "mts_holdout/0.3/0.1"}
    settings = CalibrateSettings(**PARAMS["calibrate"])
    for method, key in keys.items():
        labels = tensors[f"{key}.labels"]
        assert labels.shape == (2, CLASSES, CLASSES)
        for of_repeat in labels:
            for of_image in of_repeat:
                assert bool((targets == of_image).all(1).any()), "the labels are those of an image of the set"
        z = tensors[key].numpy()
        expected = [early_stopped(*pair, settings).temperature for pair in zip(z, labels.numpy())]
        assert fitted[method]["early_stopped"]["temperature"] == expected
        exact = [optimum(*pair, settings.bounds).temperature for pair in zip(z, labels.numpy())]
        assert fitted[method]["converged"]["temperature"] == exact


def test_what_has_to_have_classes_is_skipped_and_the_rest_is_there(built):
    choices = json.loads(Row(SOFT).choices.read_text())["entries"]
    families = {entry["family"] for entry in choices}
    assert {"step_size", "mixup", "label_smoothing", "mts"} <= families and "focal" not in families
    reach = json.loads(Row(SOFT).reach.read_text())["entries"]
    without_images = {entry["choice"] for entry in reach if entry["part"] == "without_images"}
    assert without_images == {"folds", "augmented", "agreement"}
    assert Row(SOFT).picture.exists()
    assert "mlp" in json.loads(Row(SOFT).architectures.read_text())
    assert len(json.loads(Row(SOFT).singular_values.read_text())["dropped"]) == 2


def test_features_of_networks_that_are_absent_are_refused(built):
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    entry = {
        "suite": "shapes",
        "dataset": "shapes",
        "outside": "shapes-turned",
        "losses": ["cross_entropy", "focal"],
    }
    write_yaml(Path("suites/shapes.yaml"), suite | {"features": {SOFT: entry}})
    try:
        with pytest.raises(
            UserError, match="losses: 'focal', but the row has no networks .*; allowed: cross_ent"
        ):
            run("features", SOFT)
    finally:
        write_yaml(Path("suites/shapes.yaml"), suite)


def test_a_soft_set_is_taken_out_and_in_again(built, tmp_path):
    row = Row(SOFT)
    made = load_file(row.distilled)
    export(row, tmp_path / "out")
    labels = torch.load(tmp_path / "out/labels_best.pt", weights_only=True)
    assert torch.equal(labels, made["targets"])
    assert not load_file(tmp_path / "out/set.safetensors").keys() ^ {*made.keys(), "temperature"}
    pictures = sorted(path.parent.name for path in (tmp_path / "out/pictures").rglob("*.png"))
    assert pictures == sorted(project.CLASSES[label] for label in made["labels"].tolist())
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    again = Path("data/sets/again")
    again.mkdir()
    for files in (("set.safetensors",), ("images_best.pt", "labels_best.pt")):
        for name in files:
            (tmp_path / "out" / name).rename(again / name)
        rows = suite["runs"] | {"shapes-again": soft_row("sets/again")}
        write_yaml(Path("suites/shapes.yaml"), suite | {"runs": rows})
        run("distill", "shapes-again")
        taken = load_file(Row("shapes-again").distilled)
        assert torch.allclose(taken["targets"], made["targets"], atol=1e-6)
        assert torch.equal(taken["labels"], made["labels"])
        for name in files:
            (again / name).unlink()
    write_yaml(Path("suites/shapes.yaml"), suite)


def test_a_row_may_have_the_soft_set_of_another_row(built):
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    rows = suite["runs"] | {"shapes-again": soft_row(f"distill/{SOFT}")}
    write_yaml(Path("suites/shapes.yaml"), suite | {"runs": rows})
    run("distill", "shapes-again")
    write_yaml(Path("suites/shapes.yaml"), suite)
    taken = load_file("data/distill/shapes-again/set.safetensors")
    made = load_file(Row(SOFT).distilled)
    assert taken.keys() == made.keys()
    assert torch.allclose(taken["targets"], made["targets"], atol=1e-7)


def test_every_class_begins_a_line_of_the_picture():
    """Two images of class 0, one of class 1 and three of class 2, of one pixel each."""
    labels = np.array([0, 2, 1, 0, 2, 2])
    pictures = np.arange(6)[:, None, None, None] / 10 * np.ones((6, 1, 1, 3))
    drawn = grid(pictures, labels)[1::2, 1::2, 0]
    assert drawn.tolist() == [[0.0, 0.3, 1.0], [0.2, 1.0, 1.0], [0.1, 0.4, 0.5]]


def test_images_at_positions_keep_their_labels():
    images, logits = soft_set()
    data = LabelledImages(images, logits.argmax(1), CLASSES, logits.softmax(1))
    rows = torch.tensor([3, 1])
    assert torch.equal(data.at(rows).targets, data.targets[rows])
    assert data.is_soft and data.soft_or_hard is data.targets
    hard = data._replace(targets=None)
    assert not hard.is_soft and hard.soft_or_hard is hard.labels and hard.at(rows).targets is None


def test_no_stage_mixes_devices_on_soft_labels(pretend, shapes, monkeypatch):
    """On tensors that pretend to be on a GPU, as in test_devices.py."""
    monkeypatch.setattr(Entry, "device", torch.device("cuda"))
    write_pair(*soft_set())
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    named = {"suite": "shapes", "dataset": "shapes"}
    write_yaml(Path("suites/shapes.yaml"), suite | {"reach": {SOFT: named}, "choices": {SOFT: named}})
    with pretend.pretend_cuda():
        take_in(distill={"labels": "logits"})
        run("train", SOFT)
        for stage in ("temperature", "masked", "reach"):
            run(stage)
