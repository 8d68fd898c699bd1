"""The paper's four data sets, each from its images to its line of the table, by the suite's `-quick` row."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, outside
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from stages.architectures import architectures
from stages.buffer import BufferSettings, buffer
from stages.calibrate import by_method, calibrate, wanted
from stages.calibrators.settings import CalibrateSettings, SweepSettings
from stages.check import Row
from stages.distill import distill
from stages.evaluate import EvaluateSettings, evaluate
from stages.masked import masked
from stages.prepare import prepare
from stages.report import report
from stages.shared.convnet import NetworkSettings
from stages.shared.images import NormalisedImages, load_split, load_transform
from stages.shared.settings import pick
from stages.shared.sources import ImageSettings
from stages.train import TrainSettings, train_row

CPU = torch.device("cpu")
SHAPES = {"cifar10": (10, 32, 500), "cifar100": (100, 32, 1000), "tinyimagenet": (200, 64, 1000), "imagenette": (10, 128, 200)}  # classes, side, images


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """../shared/data as a data root; of CIFAR's 120,000 files, those that the `-quick` rows take."""
    root = tmp_path_factory.mktemp("raw")
    for file in sorted(outside("DATA_DIR", "data").glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            taken = {}
            for name in sorted(archive.namelist()):
                taken.setdefault(Path(name).parent, []).append(name)
            for names in taken.values():
                archive.extractall(root, names[:60] if "cifar" in file.name else names)
    return root


@pytest.fixture(scope="module", params=SHAPES)
def built(request, root, tmp_path_factory) -> tuple[str, Path]:
    """All stages of a suite's `-quick` row, with two repeats instead of five; folder/<stage> as in data/."""
    dataset, folder = request.param, tmp_path_factory.mktemp(request.param)
    suite, params = (yaml.safe_load((ROOT / file).read_text()) for file in (f"suites/{dataset}.yaml", "params.yaml"))
    name, key = f"{dataset}-mtt-ipc1-quick", f"{dataset}-quick"
    row, scratch = Row.model_validate(suite["runs"][name]), folder / "scratch"
    network = NetworkSettings.model_validate(suite["datasets"][key]["network"])
    training = TrainSettings.model_validate(params["train"] | {"repeats": 2})
    calibration = CalibrateSettings.model_validate(params["calibrate"])
    prepared, distilled = folder / "prepare", folder / "distill" / "set.safetensors"

    prepare(ImageSettings.model_validate(suite["datasets"][key]["images"]), prepared, root=root)
    buffer(pick(BufferSettings, suite["buffers"][key], key), network, prepared, folder / "buffer", 0, CPU, scratch)
    distill(row, name, network, prepared, folder / "buffer", folder / "distill", 0, CPU, scratch)
    train_row(row, name, training, network, prepared, distilled, folder / "train", 0, CPU, scratch)
    sweep = SweepSettings(ratios=[], shares=[], starts=[], steps=[])
    masked(sweep, training.holdout, calibration.share, row.mask_ratio, network, prepared, distilled, folder / "train/weights.safetensors", folder / "masked.safetensors", 0, CPU)
    fitting = by_method(load_arrays(folder / "masked.safetensors"), wanted(calibration, training.holdout, row.mask_ratio))
    calibrate(calibration, row.mask_ratio, fitting, folder / "calibrate.json")
    evaluate(EvaluateSettings(bins=10, resamples=20), calibration.bounds, name, folder / "train/logits.safetensors", folder / "calibrate.json", folder / f"evaluate/{name}.json", folder / "metrics.json")
    others = training.model_copy(update={"repeats": 1})
    few = row.model_copy(update={"epochs": 1})
    architectures(["vgg11", "mlp"], few, name, others, network, 10, prepared, distilled, folder / f"evaluate/architectures/{name}.json", 0, CPU, scratch)
    report({dataset: {"runs": {name: suite["runs"][name]}, "architectures": {name: {"networks": ["vgg11", "mlp"]}}, "features": {}}}, params, folder, folder / "reports")
    return dataset, folder


def test_a_data_set_gets_to_the_tables(built):
    dataset, folder = built
    classes, side, count = SHAPES[dataset]
    info = json.loads((folder / "prepare/info.json").read_text())
    assert len(info["classes"]) == classes and info["shape"] == [3, side, side] and sum(info["counts"]["train"]) == count
    made, before = load_file(folder / "distill/set.safetensors"), load_split(folder / "prepare", "train")
    assert made["images"].shape == (classes, 3, side, side) and made["labels"].tolist() == list(range(classes))
    assert all(not bool((before.images[before.labels == k] == made["images"][k]).all((1, 2, 3)).any()) for k in range(classes)), "images were learned"
    for table in ("table5", "architectures"):
        text = (folder / f"reports/{table}.md").read_text()
        assert f"| {dataset}-mtt-ipc1-quick |" in text and "missing" not in text.split("\n\n")[1]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["accuracy"] <= 100 and 0 < metrics["ece_raw"] < 100


def test_whitening_is_kornias_and_is_undone(built):
    """On the real images: ZCA against kornia's own, mean and deviation against the definition."""
    dataset, folder = built
    raw, images = load_file(folder / "prepare/train.safetensors")["images"] / 255, load_split(folder / "prepare", "train").images
    assert float((load_transform(folder / "prepare").backward(images[:]) - raw).abs().max()) < 1e-4
    if dataset == "cifar10":  # once: its decomposition of a 3072 x 3072 matrix takes longer than all the rest
        from kornia.enhance import ZCAWhitening

        assert float((images - ZCAWhitening(eps=0.1, compute_inv=True).fit(raw)(raw)).abs().max()) < 1e-4
    if not dataset.startswith("cifar"):
        mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert isinstance(images, NormalisedImages) and torch.allclose(images[:], (raw - mean) / std, atol=1e-5)
