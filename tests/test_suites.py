"""The paper's four data sets, by the `-quick` rows of their suites.

CIFAR-10 goes all the way from its images to its lines in the tables. The others end after one update of their
distilled set, because the code that follows is the same for all of them.
"""

import copy
import json
import zipfile
from contextlib import chdir
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, outside
from project import PARAMS, make_project, run
from safetensors.torch import load_file

from stages.images.prepared import NormalisedImages, load_split, load_transform
from stages.settings.rows import Dataset, Row

FACTS = {  # classes, pixels of a side, training images
    "cifar10": (10, 32, 500),
    "cifar100": (100, 32, 1000),
    "tinyimagenet": (200, 64, 1000),
    "imagenette": (10, 128, 200),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR100 = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
MOMENTS = {"cifar100": CIFAR100, "tinyimagenet": IMAGENET, "imagenette": IMAGENET}
PICTURES = {"cifar10": 55, "cifar100": 12}  # of each folder: some more than a quick row takes


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The archives of ../shared/data as a data root; of CIFAR's 120,000 files a few of each class."""
    root = tmp_path_factory.mktemp("raw")
    for file in sorted(outside("DATA_DIR", "data").glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            names = sorted(archive.namelist())
            dataset = file.name.split("-")[0]
            if dataset in PICTURES:
                names = first_of_each_folder(names, PICTURES[dataset])
            archive.extractall(root, names)
    return root


def first_of_each_folder(names: list[str], count: int) -> list[str]:
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(str(Path(name).parent), []).append(name)
    return [name for files in folders.values() for name in files[:count]]


def quick_suite(dataset: str) -> dict:
    """The quick row of a suite alone, with its data set, its buffer and its other networks."""
    whole = yaml.safe_load((ROOT / "suites" / f"{dataset}.yaml").read_text())
    row = f"{dataset}-mtt-ipc1-quick"
    kept = {"datasets": f"{dataset}-quick", "buffers": f"{dataset}-quick", "runs": row, "architectures": row}
    suite = {kind: {name: copy.deepcopy(whole[kind][name])} for kind, name in kept.items()}
    return suite | {"svd": {}, "features": {}}


def project_of(dataset: str, suite: dict, raw: Path, folder: Path) -> Path:
    params = PARAMS | {"data_root": str(raw)}
    return make_project(folder, params, {dataset: suite})


@pytest.fixture(scope="module")
def cifar10(raw, tmp_path_factory) -> Path:
    """Every stage of the quick row, with two repeats, two epochs and two networks."""
    suite = quick_suite("cifar10")
    row = suite["runs"]["cifar10-mtt-ipc1-quick"]
    suite["architectures"]["cifar10-mtt-ipc1-quick"]["networks"] = ["convnet", "mlp"]
    row["epochs"] = 2
    folder = project_of("cifar10", suite, raw, tmp_path_factory.mktemp("cifar10"))
    with chdir(folder):
        distil("cifar10")
        run("train", "cifar10-mtt-ipc1-quick")
        for stage in ("masked", "calibrate", "evaluate", "ablate"):
            run(stage)
        run("architectures", "cifar10-mtt-ipc1-quick")
        for stage in ("pictures", "analyses", "report"):
            run(stage)
    return folder


@pytest.fixture(scope="module", params=["cifar100", "tinyimagenet", "imagenette"])
def distilled(request, raw, tmp_path_factory) -> tuple[str, Path]:
    """A set after one update, by a narrow network along one epoch of one expert.

    CIFAR-100 is normalised as for DC: its whitening has the code of CIFAR-10's, and takes ten seconds.
    """
    dataset = request.param
    suite = quick_suite(dataset)
    images, network = (suite["datasets"][f"{dataset}-quick"][key] for key in ("images", "network"))
    mean, std = MOMENTS[dataset]
    images |= {"whitening": "none", "mean": list(mean), "std": list(std)}
    network["width"] = 8
    suite["buffers"][f"{dataset}-quick"] |= {"experts": 1, "epochs": 1}
    one_step = {"iterations": 1, "syn_steps": 1, "expert_epochs": 1, "max_start_epoch": 1}
    suite["runs"][f"{dataset}-mtt-ipc1-quick"]["distill"] |= one_step
    folder = project_of(dataset, suite, raw, tmp_path_factory.mktemp(dataset))
    with chdir(folder):
        distil(dataset)
    return dataset, folder


def distil(dataset: str) -> None:
    run("check")
    run("prepare", f"{dataset}-quick")
    run("buffer", f"{dataset}-quick")
    run("distill", f"{dataset}-mtt-ipc1-quick")


def check_images_were_learned(dataset: str) -> None:
    """The prepared images are those of the data set, and no distilled image is one of them."""
    classes, side, count = FACTS[dataset]
    prepared = Dataset(f"{dataset}-quick").prepared
    info = json.loads((prepared / "info.json").read_text())
    assert len(info["classes"]) == classes
    assert info["shape"] == [3, side, side]
    assert sum(info["counts"]["train"]) == count
    made = load_file(Row(f"{dataset}-mtt-ipc1-quick").distilled)
    assert made["images"].shape == (classes, 3, side, side)
    assert made["labels"].tolist() == list(range(classes))
    assert made["images"].isfinite().all()
    real = load_split(prepared, "train")
    for label, image in enumerate(made["images"]):
        of_class = real.images[real.labels == label]
        same = (of_class == image).all(dim=(1, 2, 3))
        assert not same.any()


def test_cifar10_gets_to_the_table_of_quick_rows_and_to_no_other(cifar10):
    row = "cifar10-mtt-ipc1-quick"
    with chdir(cifar10):
        check_images_were_learned("cifar10")
        metrics = json.loads(Row(row).metrics.read_text())
    assert 0 <= metrics["accuracy"] <= 100
    assert 0 < metrics["ece_raw"] < 100
    tables = {file.stem: file.read_text() for file in (cifar10 / "reports/tables").glob("*.md")}
    assert [name for name, text in tables.items() if row in text] == ["quick"]
    _, lines, *_ = tables["quick"].split("\n\n")
    assert f"| {row} |" in lines
    assert "missing" not in lines


def test_the_others_are_read_and_their_sets_learned(distilled):
    dataset, folder = distilled
    with chdir(folder):
        check_images_were_learned(dataset)


def test_cifar10_is_zca_whitened(cifar10):
    """The matrix W is symmetric and W (C + 0.1) W = 1, where C is the covariance of the pixels."""
    folder = cifar10 / "data/prepare/cifar10-quick"
    pixels = load_file(folder / "train.safetensors")["images"] / 255
    transform = load_transform(folder)
    images = load_split(folder, "train").images[:]
    centred = pixels.flatten(1) - pixels.flatten(1).mean(0)
    matrix = transform.matrix
    probes = torch.randn(matrix.shape[0], 20, generator=torch.Generator().manual_seed(0))
    turned = matrix @ probes
    covered = centred.T @ (centred @ turned) / (len(centred) - 1) + 0.1 * turned
    assert torch.allclose(matrix, matrix.T, atol=1e-4)
    assert float((matrix @ covered - probes).norm() / probes.norm()) < 1e-3
    assert torch.allclose(images.flatten(1), centred @ matrix, atol=1e-4)
    assert torch.allclose(transform.backward(images), pixels, atol=1e-4)


def test_the_others_are_normalised_by_mean_and_deviation(distilled):
    dataset, folder = distilled
    prepared = folder / f"data/prepare/{dataset}-quick"
    pixels = load_file(prepared / "train.safetensors")["images"] / 255
    images = load_split(prepared, "train").images
    mean, std = (torch.tensor(values)[:, None, None] for values in MOMENTS[dataset])
    assert isinstance(images, NormalisedImages)
    assert torch.allclose(images[:], (pixels - mean) / std, atol=1e-5)
    assert torch.allclose(load_transform(prepared).backward(images[:]), pixels, atol=1e-4)
