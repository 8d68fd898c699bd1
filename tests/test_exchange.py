"""Sets and expert trajectories that were made elsewhere, and sets for use elsewhere."""

import copy
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import project
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from project import CLASSES, make_project, run, write_yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.images.prepared import LabelledImages, Transform, load_split, load_transform
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.files import read_about
from stages.settings.rows import Buffer, Row
from stages.settings.train import TrainKeys
from stages.tools.export import export
from stages.training.flat import FlatNetwork
from stages.training.groups import train_settings
from stages.training.repeats import setup_of

SET = Path("data/sets/mine")  # the folder that the imported row reads
ROW = "shapes-file"


@pytest.fixture(scope="module", params=["zca", "none"])
def prepared_project(request, tmp_path_factory) -> Path:
    """A project with its images prepared: three classes of 8x8 pictures in color."""
    suite = project.suite()
    suite["datasets"]["shapes"]["images"]["whitening"] = request.param
    folder = make_project(tmp_path_factory.mktemp("project"), suites={"shapes": suite})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("prepare", "shapes")
    return folder


@pytest.fixture
def shapes(prepared_project, tmp_path, monkeypatch) -> Path:
    """A copy of that project, which is the working directory of the test."""
    folder = tmp_path / "project"
    shutil.copytree(prepared_project, folder)
    (folder / SET).mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Images and labels of two images a class, not in the order of the classes."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 8, 8, generator=draws), torch.tensor([2, 0, 1, 1, 0, 2])


def add(kind: str, name: str, values: dict) -> None:
    """Add an entry to the suite of the project."""
    path = Path("suites/shapes.yaml")
    suite = yaml.safe_load(path.read_text())
    suite[kind][name] = values
    write_yaml(path, suite)


def change(kind: str, name: str, **values) -> None:
    """Give keys of an entry of the suite other values."""
    path = Path("suites/shapes.yaml")
    suite = yaml.safe_load(path.read_text())
    suite[kind][name] |= values
    write_yaml(path, suite)


def take_in(folder: Path = SET, ipc: int = 2, **distill) -> dict[str, Tensor]:
    """Distil a row that reads the set in the folder, which lies below data/.

    Args:
        distill: the keys of the row's `distill:`.
    """
    reads = str(folder.relative_to("data"))
    add("runs", ROW, project.row(backbone="file", ipc=ipc, reads=reads, distill=distill))
    run("distill", ROW)
    return load_file(Row(ROW).distilled)


# Sets from elsewhere


def write_as_mtt(images: Tensor, labels: Tensor) -> None:
    torch.save(images, SET / "images_best.pt")
    torch.save(labels, SET / "labels_best.pt")


def write_as_dc(images: Tensor, labels: Tensor) -> None:
    write_experiments([[images, labels]])


def write_experiments(data: list[list[Tensor]]) -> None:
    """A file of DC's code, with images and labels of each experiment."""
    accuracies = {"ConvNet": [np.float64(0.28), np.mean([0.1, 0.2])]}  # as the public code leaves them
    torch.save({"data": data, "accs_all_exps": accuracies}, SET / "res_DC_CIFAR10_ConvNet_2ipc.pt")


def write_as_this_project(images: Tensor, labels: Tensor) -> None:
    step_sizes = {"step_size": torch.tensor(0.03), "teacher_step_size": torch.tensor(0.05)}
    save_file({"images": images, "labels": labels} | step_sizes, SET / "set.safetensors")


@pytest.mark.parametrize(
    "write, step_size, teacher_step_size",
    [(write_as_mtt, 0.02, 0.01), (write_as_dc, 0.02, 0.01), (write_as_this_project, 0.03, 0.05)],
)
def test_a_set_from_elsewhere_is_taken_in_as_it_is(write, step_size, teacher_step_size, shapes, pair):
    write(*pair)
    taken = take_in(step_size=0.02, teacher_step_size=0.01)
    assert torch.equal(taken["images"], pair[0])
    assert torch.equal(taken["labels"], pair[1])
    assert "set" not in taken
    assert float(taken["step_size"]) == pytest.approx(step_size)
    assert float(taken["teacher_step_size"]) == pytest.approx(teacher_step_size)


def test_the_experiments_of_dc_are_sets_of_the_row(shapes, pair):
    images, labels = pair
    write_experiments([[images, labels], [images + 1, labels.flip(0)]])
    taken = take_in()
    assert torch.equal(taken["images"], torch.cat([images, images + 1]))
    assert torch.equal(taken["labels"], torch.cat([labels, labels.flip(0)]))
    assert taken["set"].tolist() == [0] * 6 + [1] * 6


def test_every_experiment_of_dc_has_the_images_that_the_row_says(shapes, pair):
    images, labels = pair
    other_labels = torch.tensor([0, 0, 0, 1, 1, 2])
    write_experiments([[images, labels], [images, other_labels]])
    with pytest.raises(UserError, match="1 to 3 images a class, but the row's ipc is 2"):
        take_in()


# Sets of other rows


def teacher_row(**changes) -> dict:
    """A row with the set of shapes-mtt-ipc2, at the step size that the learned one started from."""
    keys = {"backbone": "file", "made_by": "mtt", "lr": "teacher", "distill": {}}
    return project.row(reads="distill/shapes-mtt-ipc2", **keys | changes)


def test_a_row_may_have_the_set_of_another_row(shapes):
    run("buffer", "shapes")
    run("distill", "shapes-mtt-ipc2")
    made = load_file(Row("shapes-mtt-ipc2").distilled)
    add("runs", ROW, teacher_row())
    run("check")
    run("distill", ROW)
    taken = load_file(Row(ROW).distilled)
    assert taken.keys() == made.keys()
    for key in made:
        assert torch.equal(taken[key], made[key]), key
    assert float(made["teacher_step_size"]) == pytest.approx(project.MTT["lr_teacher"])
    assert float(made["step_size"]) != float(made["teacher_step_size"])


@pytest.mark.parametrize("lr, key", [("learned", "step_size"), ("teacher", "teacher_step_size"), (0.3, None)])
def test_networks_are_trained_at_the_step_size_that_the_row_asks_for(lr, key, shapes, pair):
    write_as_this_project(*pair)
    taken = take_in()
    change("runs", ROW, lr=lr)
    row = Row(ROW)
    schedule = setup_of(row, row.keys(TrainKeys), train_settings()).schedule
    assert schedule.lr == pytest.approx(float(taken[key]) if key else lr)


def test_a_row_may_have_its_own_number_of_networks_and_precision(shapes, pair):
    write_as_this_project(*pair)
    take_in()
    logits = {}
    for precision in ("float32", "bfloat16"):
        change("runs", ROW, train={"repeats": 3, "precision": precision})
        run("train", ROW)
        logits[precision] = load_file(Row(ROW).logits)["cross_entropy"]
        assert len(logits[precision]) == 3 > project.PARAMS["train"]["repeats"]
    assert not torch.equal(logits["float32"], logits["bfloat16"])
    assert torch.allclose(logits["float32"], logits["bfloat16"], atol=0.3), "bfloat16 rounds"


def test_a_set_without_a_teachers_step_size_cannot_be_trained_at_it(shapes, pair):
    write_as_mtt(*pair)
    take_in(step_size=0.02)
    change("runs", ROW, lr="teacher")
    with pytest.raises(UserError, match="lr: 'teacher', but .* allowed: .* a distill.teacher_step_size"):
        run("train", ROW)


def test_a_row_may_have_all_random_sets_of_another_row(shapes):
    run("distill", "shapes-random-ipc1")
    made = load_file(Row("shapes-random-ipc1").distilled)
    random_set = {"made_by": "random", "ipc": 1, "lr": 0.05, "reads": "distill/shapes-random-ipc1"}
    add("runs", ROW, teacher_row() | random_set)
    run("distill", ROW)
    taken = load_file(Row(ROW).distilled)
    assert taken["set"].tolist() == made["set"].tolist() == [number for number in range(5) for _ in range(3)]
    assert torch.equal(taken["images"], made["images"])


# Files of MTT's code in other forms


def write_numbered(images: Tensor, labels: Tensor, step_size: Tensor) -> None:
    """As they lie in the folder of a run that was stopped early; `lr_*.pt` as successors of MTT write it."""
    torch.save(images.clone().requires_grad_(), SET / "images_100.pt")
    torch.save(labels, SET / "labels_100.pt")
    torch.save(step_size.requires_grad_(), SET / "lr_100.pt")
    torch.save(images, SET / "images_zca_100.pt")


def test_a_pair_may_have_a_number_and_its_step_size_beside_it(shapes, pair):
    write_numbered(*pair, torch.tensor(0.04))
    taken = take_in(step_size=0.02)
    assert torch.equal(taken["images"], pair[0])
    assert float(taken["step_size"]) == pytest.approx(0.04)


def test_a_step_size_below_zero_is_refused(shapes, pair):
    write_numbered(*pair, torch.tensor(-0.04))
    with pytest.raises(UserError, match="lr_100.pt: a step size of -0.04"):
        take_in()


def test_two_numbered_pairs_are_refused(shapes, pair):
    write_numbered(*pair, torch.tensor(0.04))
    torch.save(pair[0], SET / "images_200.pt")
    with pytest.raises(UserError, match="2 files images_<number>.pt; allowed: one, or images_best.pt"):
        take_in()


def test_labels_may_be_kept_as_floats(shapes, pair):
    write_as_mtt(pair[0], pair[1].float())
    taken = take_in()
    assert taken["labels"].dtype == torch.int64
    assert "step_size" not in taken


class Code:
    """A pickle that would run something."""

    def __reduce__(self):
        return os.mkdir, ("this-must-not-exist",)


def save(name: str, value) -> None:
    torch.save(value, SET / f"{name}_best.pt")


def cut_images_file(images, labels):
    content = (SET / "images_best.pt").read_bytes()
    (SET / "images_best.pt").write_bytes(content[:900])


def remove_all_images(images, labels):
    save("images", images[:0])
    save("labels", labels[:0])


def remove_all_files(images, labels):
    for file in SET.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (
            lambda x, y: save("images", Code()),
            "images_best.pt: cannot be read as tensors: Weights only load failed",
        ),
        (
            lambda x, y: (SET / "images_best.pt").write_bytes(pickle.dumps(Code())),
            "images_best.pt: cannot be read as tensors",
        ),
        (cut_images_file, "images_best.pt: cannot be read as tensors"),
        (
            lambda x, y: (SET / "images_best.pt").write_text("no tensor"),
            "images_best.pt: cannot be read as tensors",
        ),
        (
            lambda x, y: (SET / "labels_best.pt").unlink(),
            "labels_best.pt: missing beside images_best.pt",
        ),
        (
            lambda x, y: save("labels", torch.eye(6)),
            r"labels \(6, 6\); allowed for this data set: \(N, 3, 8, 8\) and \(N,\) or \(N, 3\)",
        ),
        (lambda x, y: save("lr", "fast"), "lr_best.pt: expected a number"),
        (
            lambda x, y: save("images", x[:, :1]),
            r"images \(6, 1, 8, 8\), labels \(6,\); allowed for this data set: \(N, 3, 8, 8\)",
        ),
        (lambda x, y: save("images", x[:5]), r"images \(5, 3, 8, 8\), labels \(6,\)"),
        (lambda x, y: save("images", x / 0), "images with 1152 numbers that are not finite"),
        (lambda x, y: save("labels", y + 1), "labels from 1 to 3; allowed: 0 to 2"),
        (lambda x, y: save("labels", y * 0.5), "labels that are not whole numbers"),
        (remove_all_images, "0 to 0 images a class"),
        (
            lambda x, y: save("labels", y.clamp(max=1)),
            "0 to 4 images a class, but the row's ipc is 2",
        ),
        (remove_all_files, "no distilled set; allowed: images_best.pt with labels_best.pt"),
        (lambda x, y: save("images", {"images": x}), "images_best.pt: expected a tensor but got dict"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(spoil, expected, shapes, pair):
    write_as_mtt(*pair)
    spoil(*pair)
    with pytest.raises(UserError, match=expected) as caught:
        take_in()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(SET) in message
    assert not Path("data/distill").exists()
    assert not Path("this-must-not-exist").exists()


def test_another_dict_than_that_of_dc_is_refused(shapes):
    torch.save({"data": [3]}, SET / "res_x.pt")
    with pytest.raises(UserError, match="res_x.pt: expected a dict with `data`"):
        take_in()


def test_pictures_are_whitened_like_the_data_set(shapes):
    """The set is the first two training pictures of each class: the very images that the split has."""
    for name in CLASSES:
        (SET / name).mkdir()
        for file in ("0.png", "1.png"):
            shutil.copy(Path("pictures/train") / name / file, SET / name / file)
    taken = take_in()
    split = load_split(Path("data/prepare/shapes"), "train")
    rows = [0, 1, 20, 21, 40, 41]
    assert torch.allclose(taken["images"], split.images[rows], atol=1e-5)
    assert taken["labels"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda: (SET / "right").rename(SET / "wrong"), "only in one of them: right, wrong"),
        (
            lambda: Image.new("RGB", (9, 8)).save(SET / "middle" / "0.png"),
            "9x8 pixels; allowed for this data set: 8x8",
        ),
        (lambda: (SET / "middle" / "0.png").write_text("a middle"), "not a readable image"),
        (lambda: [(SET / name / "0.png").unlink() for name in CLASSES], "no picture in any of its folders"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(spoil, expected, shapes):
    for name in CLASSES:
        (SET / name).mkdir()
        Image.new("RGB", (8, 8)).save(SET / name / "0.png")
    spoil()
    with pytest.raises(UserError, match=expected):
        take_in(ipc=1)


# Temperatures that come with a set


def write_temperature_in_the_set(images: Tensor, labels: Tensor) -> None:
    tensors = {"images": images, "labels": labels, "temperature": torch.tensor(1.7)}
    save_file(tensors, SET / "set.safetensors")


def write_temperature_beside_the_set(images: Tensor, labels: Tensor) -> None:
    write_as_mtt(images, labels)
    (SET / "temperature.txt").write_text("1.7\n")


@pytest.mark.parametrize("write", [write_temperature_in_the_set, write_temperature_beside_the_set])
def test_a_set_keeps_the_temperature_that_it_came_with(write, shapes, pair, monkeypatch):
    write(*pair)
    taken = take_in(step_size=0.02)
    assert float(taken["temperature"]) == pytest.approx(1.7)
    monkeypatch.setattr("stages.temperature.train_groups", lambda *arguments: pytest.fail("trained"))
    run("temperature", ROW)
    row = Row(ROW)
    shipped = json.loads(row.shipped.read_text())
    assert shipped["temperature"] == pytest.approx(1.7)
    assert shipped["own"] == shipped["accuracy"] == [] and shipped["images"] == 0
    assert not row.real_logits.exists()


def test_a_set_without_a_temperature_gets_one(shapes, pair):
    write_as_mtt(*pair)
    assert "temperature" not in take_in(step_size=0.02)
    run("temperature", ROW)
    shipped = json.loads(Row(ROW).shipped.read_text())
    assert shipped["temperature"] > 0
    assert len(shipped["own"]) == 2 and shipped["images"] == 30
    assert Row(ROW).real_logits.exists()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("hot", "temperature.txt: 'hot'; allowed: a number > 0"),
        ("", "temperature.txt: ''; allowed: a number > 0"),
        ("1.5 1.6", "temperature.txt: '1.5 1.6'; allowed: a number > 0"),
        ("0", "temperature.txt: a temperature of 0; allowed: a number > 0"),
        ("-2", "temperature.txt: a temperature of -2; allowed: a number > 0"),
        ("inf", "temperature.txt: a temperature of inf; allowed: a number > 0"),
        ("nan", "temperature.txt: a temperature of nan; allowed: a number > 0"),
    ],
)
def test_a_temperature_file_that_cannot_be_used_is_refused(text, expected, shapes, pair):
    write_as_mtt(*pair)
    (SET / "temperature.txt").write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        take_in()
    assert len(str(caught.value).splitlines()) == 1
    assert not Row(ROW).distilled.exists()


@pytest.mark.parametrize(
    "value, expected",
    [
        (torch.tensor(0.0), "set.safetensors: a temperature of 0; allowed: a number > 0"),
        (torch.tensor([1.0, 2.0]), "set.safetensors: not a distilled set"),
    ],
)
def test_a_temperature_in_a_set_that_cannot_be_used_is_refused(value, expected, shapes, pair):
    images, labels = pair
    save_file({"images": images, "labels": labels, "temperature": value}, SET / "set.safetensors")
    with pytest.raises(UserError, match=expected):
        take_in()


def test_a_set_of_real_images_keeps_their_positions_if_they_are_there(shapes):
    real = load_split(Path("data/prepare/shapes"), "train")
    positions = torch.tensor([3, 21, 40])
    tensors = {"images": real.images[positions], "labels": real.labels[positions], "positions": positions}
    save_file(tensors, SET / "set.safetensors")
    assert torch.equal(take_in(ipc=1)["positions"], positions)
    for elsewhere in (positions + 1, positions + 100):
        save_file(tensors | {"positions": elsewhere}, SET / "set.safetensors")
        assert "positions" not in take_in(ipc=1)


# Sets for elsewhere


def test_a_set_that_is_taken_out_and_in_again_gives_the_same_logits(shapes, pair):
    write_as_this_project(*pair)
    images = take_in()["images"]
    exported = Path("data/sets/exported")
    only_pt = Path("data/sets/only-pt")
    export(Row(ROW), exported)
    only_pt.mkdir()
    for name in ("images_best.pt", "labels_best.pt"):
        shutil.move(exported / name, only_pt / name)
    network = ConvNet(3, 8, 3, 4, 2).eval()
    with torch.no_grad():
        expected = network(images)
        for folder in (exported, only_pt):
            assert torch.equal(network(take_in(folder)["images"]), expected)


def test_an_exported_folder_is_taken_in_as_a_whole(shapes, pair):
    """It has the set in several forms; the one with step sizes, several sets and positions is read."""
    images, labels = pair
    real = load_split(Path("data/prepare/shapes"), "train")
    positions = torch.tensor([3, 21, 40, 4, 22, 41])
    tensors = {
        "images": real.images[positions],
        "labels": real.labels[positions],
        "positions": positions,
        "set": torch.tensor([0, 0, 0, 1, 1, 1]),
        "step_size": torch.tensor(0.03),
        "teacher_step_size": torch.tensor(0.05),
        "temperature": torch.tensor(1.5137264159, dtype=torch.float64),
    }
    save_file(tensors, SET / "set.safetensors")
    first = take_in(ipc=1)
    exported = Path("data/sets/exported")
    export(Row(ROW), exported)
    again = take_in(exported, ipc=1)
    assert again.keys() == first.keys() == tensors.keys()
    for name, tensor in first.items():
        assert torch.equal(again[name], tensor), name
    assert float(first["temperature"]) == 1.5137264159
    assert float(torch.load(exported / "lr_best.pt", weights_only=True)) == pytest.approx(0.03)


def test_bytes_are_no_images_that_a_network_has_seen(shapes, pair):
    images, labels = pair
    write_as_mtt((images.abs() * 50).byte(), labels)
    with pytest.raises(
        UserError, match="images in uint8; allowed: floats of 16 bits or more, as the network"
    ):
        take_in()


def test_a_temperature_is_taken_out_and_in_again_with_its_set(shapes, pair, monkeypatch):
    """Both forms have the number, and a row that reads either keeps it."""
    write_as_this_project(*pair)
    take_in()
    run("temperature", ROW)
    row = Row(ROW)
    temperature = json.loads(row.shipped.read_text())["temperature"]
    exported = Path("data/sets/exported")
    only_pt = Path("data/sets/only-pt")
    export(row, exported)
    tensors = load_file(exported / "set.safetensors")
    assert float(tensors["temperature"]) == temperature
    assert float((exported / "temperature.txt").read_text()) == temperature
    assert tensors.keys() - {"temperature"} == load_file(row.distilled).keys()
    assert read_about(row.distilled).items() <= read_about(exported / "set.safetensors").items()

    only_pt.mkdir()
    for name in ("images_best.pt", "labels_best.pt", "temperature.txt"):
        shutil.move(exported / name, only_pt / name)
    monkeypatch.setattr("stages.temperature.train_groups", lambda *arguments: pytest.fail("trained"))
    for folder in (exported, only_pt):
        take_in(folder, step_size=0.02)
        run("temperature", ROW)
        shipped = json.loads(row.shipped.read_text())
        assert shipped["temperature"] == pytest.approx(temperature, rel=1e-6)
        again = Path(f"{folder.name}-again")
        row.shipped.unlink()
        export(row, again)
        text = (again / "temperature.txt").read_text()
        assert float(text) == pytest.approx(temperature, rel=1e-6), "it came with the set"


def test_an_exported_set_says_how_images_are_normalised_and_networks_trained(shapes, pair):
    write_as_mtt(*pair)
    take_in(step_size=0.02)
    export(Row(ROW), Path("exported"))
    about = read_about(Path("exported/set.safetensors"))
    row, params = Row(ROW), yaml.safe_load(Path("params.yaml").read_text())
    assert about["images"]["whitening"] == row.dataset.value("images")["whitening"]
    assert "source" not in about["images"], "it may be a path of this machine"
    assert about["training"]["epochs"] == row.value("epochs")
    assert about["training"]["batch"] == params["train"]["batch"]
    assert about["training"]["lr"] == row.value("lr")
    transform = Transform(**load_file("exported/transform.safetensors"))
    pixels = load_file("data/prepare/shapes/test.safetensors")["images"][:5] / 255
    seen = load_split(row.prepared, "test").images[:5]
    assert torch.allclose(transform.forward(pixels), seen, atol=1e-5)


def test_a_set_without_a_temperature_is_exported_and_one_line_says_so(shapes, pair, capsys):
    write_as_mtt(*pair)
    take_in(step_size=0.02)
    row = Row(ROW)
    export(row, Path("exported"))
    notice = capsys.readouterr().err
    assert notice.startswith(f"exported without a temperature: {row.shipped} is not there yet")
    assert len(notice.splitlines()) == 1
    assert "temperature" not in load_file("exported/set.safetensors")
    assert not Path("exported/temperature.txt").exists()


def test_the_temperature_of_an_earlier_set_is_not_exported(shapes, pair, capsys):
    write_as_mtt(*pair)
    take_in(step_size=0.02)
    run("temperature", ROW)
    write_as_mtt(pair[0] + 1, pair[1])
    take_in(step_size=0.02)
    export(Row(ROW), Path("exported"))
    assert "is of an earlier set" in capsys.readouterr().err
    assert not Path("exported/temperature.txt").exists()


def test_exported_pictures_are_the_images_to_eight_bits(shapes):
    prepared = Path("data/prepare/shapes")
    split = load_split(prepared, "train")
    write_as_mtt(split.images[[0, 20, 40]], torch.arange(3))
    images = take_in(ipc=1)["images"]
    export(Row(ROW), Path("exported"))
    originals = (load_transform(prepared).backward(images) * 255).round().permute(0, 2, 3, 1).numpy()
    for original, name in zip(originals, CLASSES):
        (file,) = (Path("exported/pictures") / name).iterdir()
        pixels = np.asarray(Image.open(file)).astype(float)
        assert np.abs(pixels - original).max() <= 1


def test_a_folder_that_exists_is_not_exported_to(shapes, pair):
    write_as_mtt(*pair)
    take_in()
    Path("exported").mkdir()
    with pytest.raises(UserError, match="exported: exists"):
        export(Row(ROW), Path("exported"))
    assert not list(Path().glob(".exported*"))


def test_a_set_that_is_not_there_cannot_be_exported(shapes):
    with pytest.raises(UserError, match="is not there yet; dvc repro distill@shapes-mtt-ipc2 makes it"):
        export(Row("shapes-mtt-ipc2"), Path("exported"))


def plain_accuracy(images: Tensor, labels: Tensor, test: LabelledImages, seed: int) -> float:
    """What anybody would write: modules and an optimiser of PyTorch, nothing of this project."""
    torch.manual_seed(seed)
    blocks = []
    for channels in (1, 16):
        convolution = nn.Conv2d(channels, 16, 3, padding=1)
        blocks += [convolution, nn.InstanceNorm2d(16, affine=True), nn.ReLU(), nn.AvgPool2d(2)]
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64, 10))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(100):
        order = torch.randperm(len(labels))
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[order]), labels[order]).backward()
        optimiser.step()
    with torch.no_grad():
        predictions = network.eval()(test.images).argmax(1)
    return float((predictions == test.labels).float().mean())


def test_an_exported_set_trains_plain_pytorch_networks_to_the_same_accuracy(tmp_path, monkeypatch):
    repeats = 8
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= {"repeats": repeats, "losses": ["cross_entropy"]}
    params["device"] = "cpu"
    loops = {"iterations": 3, "outer_loops": 5, "inner_loops": 5, "lr_net": 0.2}
    dsa = project.row(backbone="dsa", ipc=10, reads="nothing", distill=loops)
    suite = project.suite()
    suite["datasets"]["shapes"] = {
        "suite": "shapes",
        "images": {"source": "digits", "whitening": "zca"},
        "network": {"width": 16, "depth": 2},
    }
    suite["runs"] = {"digits-dsa": dsa | {"epochs": 100, "lr": 0.05, "augment": False}}
    monkeypatch.chdir(make_project(tmp_path, params, {"shapes": suite}))
    run("prepare", "shapes")
    run("distill", "digits-dsa")
    run("train", "digits-dsa")
    row = Row("digits-dsa")

    export(row, Path("exported"))
    images = torch.load("exported/images_best.pt", weights_only=True)
    labels = torch.load("exported/labels_best.pt", weights_only=True)
    test = load_split(row.prepared, "test")
    theirs = torch.tensor([plain_accuracy(images, labels, test, seed) for seed in range(repeats)])
    logits = load_file(row.logits)
    ours = (logits["cross_entropy"].argmax(2) == logits["labels"]).float().mean(1)
    standard_error = float((ours.var() + theirs.var()).sqrt()) / repeats**0.5
    difference = abs(float(ours.mean() - theirs.mean()))
    assert difference < 4 * standard_error < 0.03
    assert float(ours.mean()) > 0.85


# Expert trajectories of MTT's own code

REPLAY = Path("replay")


def write_replay_buffers() -> list:
    """Write three trajectories of three epochs as MTT's buffer.py does, in two files, and return them.

    A file is a list of experts, each a list of snapshots, each a list of parameters.
    """
    REPLAY.mkdir()
    trajectories = []
    for _ in range(3):
        networks = [ConvNet(3, 8, 3, 4, 2) for _ in range(4)]
        trajectories.append([parameters_of(network) for network in networks])
    torch.save(trajectories[:2], REPLAY / "replay_buffer_0.pt")
    torch.save(trajectories[2:], REPLAY / "replay_buffer_1.pt")
    return trajectories


def parameters_of(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def take_in_buffer(epochs: int) -> Tensor:
    """Make a buffer from the replay buffers; its snapshots, `(experts, epochs + 1, P)`."""
    entry = {"suite": "shapes", "dataset": "shapes", "files": str(REPLAY), "epochs": epochs}
    add("buffers", "mtt", entry)
    run("buffer", "mtt")
    return load_file(Buffer("mtt").folder / "trajectories.safetensors")["snapshots"]


def test_replay_buffers_become_trajectories(shapes):
    trajectories = write_replay_buffers()
    snapshots = take_in_buffer(epochs=2)
    assert snapshots.shape[:2] == (3, 3)
    network = ConvNet(3, 8, 3, 4, 2)
    for parameter, value in zip(network.parameters(), trajectories[2][1]):
        parameter.data = value
    images = torch.randn(2, 3, 8, 8)
    flat = FlatNetwork(copy.deepcopy(network))
    assert torch.allclose(flat(snapshots[2, 1], images), network(images), atol=1e-6)
    curve = (Buffer("mtt").folder / "curve.csv").read_text()
    assert curve.splitlines()[0] == "epoch,accuracy"


def save_replay_buffer(value) -> None:
    torch.save(value, REPLAY / "replay_buffer_1.pt")


def cut_replay_buffer():
    content = (REPLAY / "replay_buffer_1.pt").read_bytes()
    (REPLAY / "replay_buffer_1.pt").write_bytes(content[:2000])


def remove_replay_buffers():
    for file in REPLAY.iterdir():
        file.unlink()


def write_infinite_trajectory():
    snapshot = [value / 0 for value in parameters_of(ConvNet(3, 8, 3, 4, 2))]
    save_replay_buffer([[snapshot] * 4])


def write_still_trajectory():
    snapshot = parameters_of(ConvNet(3, 8, 3, 4, 2))
    save_replay_buffer([[snapshot] * 4])


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (cut_replay_buffer, "replay_buffer_1.pt: cannot be read as tensors"),
        (lambda: save_replay_buffer(Code()), "replay_buffer_1.pt: cannot be read as tensors"),
        (
            lambda: save_replay_buffer({"x": 3}),
            "replay_buffer_1.pt: expected a list of trajectories",
        ),
        (
            lambda: save_replay_buffer([[[torch.zeros(3)]]]),
            "replay_buffer_1.pt: snapshots of another network",
        ),
        (remove_replay_buffers, "buffers.mtt.files: .* has no replay_buffer"),
        (write_infinite_trajectory, "not finite"),
        (write_still_trajectory, "stands still; MTT's code, run on a CPU"),
    ],
)
def test_replay_buffers_that_cannot_be_used_are_refused(spoil, expected, shapes):
    write_replay_buffers()
    spoil()
    with pytest.raises(UserError, match=expected):
        take_in_buffer(epochs=3)
    assert not Buffer("mtt").folder.exists()


def test_replay_buffers_that_are_too_short_are_refused(shapes):
    write_replay_buffers()
    expected = "a trajectory of 3 epochs; allowed for buffers.mtt.epochs: at most that, not 4"
    with pytest.raises(UserError, match=expected):
        take_in_buffer(epochs=4)
