"""Agreement with the public reference implementations, on the files of GOLDEN_DIR (default ../shared/golden)."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import optimum
from stages.calibrators.settings import CalibrateSettings
from stages.distillers.mtt import matching_loss
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax, nll
from stages.shared.augment import CROP_SHARE, CUTOUT_SHARE, OPERATIONS, Draw, augment, brightness, contrast, saturation
from stages.shared.convnet import ConvNet
from stages.shared.flat import FlatNetwork
from stages.shared.gradient_matching import matching_distance
from stages.shared.unroll import InnerLoss, unrolled_gradient

FIRST_ORDER, SECOND_ORDER = 1e-4, 1e-3
BOUNDS = [0.001, 1000.0]


def relative_error(ours, theirs):
    return float((ours.detach().cpu() - theirs).norm() / theirs.norm())


@pytest.fixture
def golden(golden_dir, device):
    def load(name):
        file = golden_dir / f"{name}.safetensors"
        if not file.exists():
            pytest.skip(f"{file} is not here")
        return {key: value.to(device) for key, value in load_file(file).items()}

    return load


def network_for(about, images):
    return ConvNet(images.shape[1], images.shape[2], about["classes"], about["width"], about["depth"]).to(images.device)


def weights(golden):
    return {name.removeprefix("param."): value for name, value in golden.items() if name.startswith("param.")}


@pytest.mark.parametrize("name", ["convnet_d3_32", "convnet_d4_64", "convnet_d5_128"])
def test_convnet(name, golden, golden_index):
    data, about = golden(name), golden_index[name]
    network = network_for(about, data["images"])
    network.load_state_dict(weights(data))
    assert [n for n, _ in network.named_parameters()] == about["parameter_order"]
    flat = torch.cat([weights(data)[n].flatten() for n in about["parameter_order"]])
    for logits in (network(data["images"]), FlatNetwork(network)(flat, data["images"])):
        assert relative_error(logits, data["logits"].cpu()) < FIRST_ORDER


@pytest.mark.parametrize("name", ["mtt_plain", "mtt_masked"])
def test_mtt(name, golden, golden_index):
    data = golden(name)
    images = data["images"].requires_grad_()
    inner = InnerLoss(FlatNetwork(network_for(golden_index[name], images)))

    def batch(step):
        rows = data["batch_indices"][step]
        return images[rows] * data["mask"][step], data["labels"][rows]

    result = unrolled_gradient(
        inner, data["start"], batch, len(data["batch_indices"]), [images], data["learning_rate"],
        lambda theta: matching_loss(theta, data["start"], data["target"]),
    )  # fmt: skip
    assert relative_error(result.loss, data["loss"].cpu()) < FIRST_ORDER
    assert relative_error(result.final, data["final_params"].cpu()) < FIRST_ORDER
    assert relative_error(result.gradients[0], data["grad_images"].cpu()) < SECOND_ORDER
    assert relative_error(result.lr_gradient, data["grad_learning_rate"].cpu()) < SECOND_ORDER


def test_rtp(golden, golden_index):
    data, about = golden("rtp_bptt"), golden_index["rtp_bptt"]
    images = data["images"].requires_grad_()
    network = FlatNetwork(network_for(about, images))
    inner = InnerLoss(network)
    start = torch.cat([weights(data)[n].flatten() for n in network.names])
    result = unrolled_gradient(
        inner, start, lambda s: (images[data["batch_indices"][s]], data["labels"][data["batch_indices"][s]]),
        about["steps"], [images], torch.tensor(about["learning_rate"], device=images.device),
        lambda theta: inner.loss(theta, data["real_images"], data["real_labels"]), momentum=about["momentum"],
    )  # fmt: skip
    assert relative_error(result.loss, data["loss"].cpu()) < FIRST_ORDER
    assert relative_error(result.gradients[0], data["grad_images"].cpu()) < SECOND_ORDER


def test_dc(golden, golden_index):
    data, about = golden("dc_match"), golden_index["dc_match"]
    images = data["synthetic_images"].requires_grad_()
    network = FlatNetwork(network_for(about, images))
    inner = InnerLoss(network)
    theta = torch.cat([weights(data)[n].flatten() for n in network.names]).requires_grad_()
    theirs = inner.gradient(theta, data["real_images"], data["real_labels"])
    (ours,) = torch.autograd.grad(inner.loss(theta, images, data["synthetic_labels"]), theta, create_graph=True)
    distance = matching_distance(network, ours, theirs)
    assert relative_error(distance, data["loss"].cpu()) < FIRST_ORDER
    assert relative_error(data["per_parameter_distance"].sum(), data["loss"].cpu()) < FIRST_ORDER
    (gradient,) = torch.autograd.grad(distance, images)
    assert relative_error(gradient, data["grad_synthetic_images"].cpu()) < SECOND_ORDER


def test_augmentations(golden):
    data = golden("dsa_augment")
    images = data.pop("images")
    height = images.shape[2]
    reach, cut = int(height * CROP_SHARE + 0.5), int(height * CUTOUT_SHARE + 0.5)
    parts = {"brightness": brightness, "saturation": saturation, "contrast": contrast}
    assert data, "no augmentation in the file"
    for key, expected in data.items():
        name, drawn = key.split("_")
        value = float(drawn[1:])
        if drawn[0] == "v":  # an integer draw: the uniform number that gives it
            value = (value + reach + 0.5) / (2 * reach + 1) if name == "crop" else (value + 0.5) / (height + 1 - cut % 2)
        u = torch.full((1, 3), value, device=images.device)
        ours = parts[name](images, u[:, 0]) if name in parts else augment(images, Draw(name, u))
        assert name in parts or name in OPERATIONS
        assert relative_error(ours, expected.cpu()) < FIRST_ORDER, key


def test_calibration(golden, golden_index):
    data, expected = golden("calibration"), golden_index["calibration"]["results"]
    assert expected, "no case in the index"
    for case, numbers in expected.items():
        logits, labels = data[f"{case}.logits"], data[f"{case}.labels"]
        z, y = logits.cpu().numpy(), labels.cpu().numpy()
        assert ece(np.exp(log_softmax(z)), y, 10) == pytest.approx(numbers["ece"], rel=FIRST_ORDER)
        runs = [(key, *re.fullmatch(r"temperature_lbfgs_lr(.+)_iter(\d+)", key).groups()) for key in numbers if "lbfgs" in key]
        assert runs, "no LBFGS run in the index"
        for key, lr, iterations in runs:
            settings = CalibrateSettings(start=1.5, lr=float(lr), max_iter=int(iterations), share=0.1, bounds=BOUNDS)
            assert early_stopped(z, y, settings).temperature == pytest.approx(numbers[key], rel=FIRST_ORDER)
        best = optimum(z, y, BOUNDS).temperature
        assert best == pytest.approx(numbers["temperature_optimum"], rel=FIRST_ORDER)
        assert nll(log_softmax(z / best), y) == pytest.approx(numbers["nll_at_optimum"], rel=1e-6)
