"""Agreement with the public reference implementations, on the files of GOLDEN_DIR (../shared/golden)."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import optimum
from stages.distillation.gradient_distance import matching_distance
from stages.distillation.trajectory_matching import matching_loss
from stages.distillation.unroll import InnerLoss, InnerTraining, unrolled_gradient
from stages.images.augment import (
    CROP_SHARE,
    CUTOUT_SHARE,
    OPERATIONS,
    Draw,
    augment,
    brightness,
    contrast,
    saturation,
)
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax, nll
from stages.networks.convnet import ConvNet
from stages.settings.calibrate import CalibrateSettings
from stages.training.flat import FlatNetwork

FIRST_ORDER = 1e-4  # relative error that is allowed in float32
SECOND_ORDER = 1e-3  # of gradients through gradients
BOUNDS = [0.001, 1000.0]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    theirs = theirs.cpu()
    return float((ours.detach().cpu() - theirs).norm() / theirs.norm())


@pytest.fixture
def golden(golden_dir, device):
    """A function that loads a golden file to the device, by its name."""

    def load(name: str) -> dict[str, Tensor]:
        file = golden_dir / f"{name}.safetensors"
        if not file.exists():
            pytest.skip(f"{file} is not here")
        return {key: value.to(device) for key, value in load_file(file).items()}

    return load


def network_for(about: dict, images: Tensor) -> ConvNet:
    _, channels, size, _ = images.shape
    network = ConvNet(channels, size, about["classes"], about["width"], about["depth"])
    return network.to(images.device)


def weights(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters in a golden file, by their names."""
    names = [name for name in data if name.startswith("param.")]
    return {name.removeprefix("param."): data[name] for name in names}


def flat_weights(data: dict[str, Tensor], order: list[str]) -> Tensor:
    """The parameters in a golden file as one vector, in that order."""
    parameters = weights(data)
    return torch.cat([parameters[name].flatten() for name in order])


@pytest.mark.parametrize("name", ["convnet_d3_32", "convnet_d4_64", "convnet_d5_128"])
def test_convnet(name, golden, golden_index):
    data = golden(name)
    about = golden_index[name]
    network = network_for(about, data["images"])
    network.load_state_dict(weights(data))
    names = [name for name, _ in network.named_parameters()]
    assert names == about["parameter_order"]
    assert relative_error(network(data["images"]), data["logits"]) < FIRST_ORDER
    flat_logits = FlatNetwork(network)(flat_weights(data, names), data["images"])
    assert relative_error(flat_logits, data["logits"]) < FIRST_ORDER


@pytest.mark.parametrize("name", ["mtt_plain", "mtt_masked"])
def test_mtt(name, golden, golden_index):
    data = golden(name)
    images = data["images"].requires_grad_()
    inner = InnerLoss(FlatNetwork(network_for(golden_index[name], images)))

    def batch(step):
        rows = data["batch_indices"][step]
        return images[rows] * data["mask"][step], data["labels"][rows]

    def outer(theta):
        return matching_loss(theta, data["start"], data["target"])

    training = InnerTraining(data["start"], batch, len(data["batch_indices"]), data["learning_rate"])
    result = unrolled_gradient(inner, training, [images], outer)
    assert relative_error(result.loss, data["loss"]) < FIRST_ORDER
    assert relative_error(result.final, data["final_params"]) < FIRST_ORDER
    assert relative_error(result.gradients[0], data["grad_images"]) < SECOND_ORDER
    assert relative_error(result.lr_gradient, data["grad_learning_rate"]) < SECOND_ORDER


def test_rtp(golden, golden_index):
    data = golden("rtp_bptt")
    about = golden_index["rtp_bptt"]
    images = data["images"].requires_grad_()
    network = FlatNetwork(network_for(about, images))
    inner = InnerLoss(network)
    start = flat_weights(data, network.names)
    lr = torch.tensor(about["learning_rate"], device=images.device)

    def batch(step):
        rows = data["batch_indices"][step]
        return images[rows], data["labels"][rows]

    def outer(theta):
        return inner.loss(theta, data["real_images"], data["real_labels"])

    training = InnerTraining(start, batch, about["steps"], lr, about["momentum"])
    result = unrolled_gradient(inner, training, [images], outer)
    assert relative_error(result.loss, data["loss"]) < FIRST_ORDER
    assert relative_error(result.gradients[0], data["grad_images"]) < SECOND_ORDER


def test_dc(golden, golden_index):
    data = golden("dc_match")
    images = data["synthetic_images"].requires_grad_()
    network = FlatNetwork(network_for(golden_index["dc_match"], images))
    inner = InnerLoss(network)
    theta = flat_weights(data, network.names).requires_grad_()
    real_gradient = inner.gradient(theta, data["real_images"], data["real_labels"])
    loss = inner.loss(theta, images, data["synthetic_labels"])
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    distance = matching_distance(network, gradient, real_gradient)
    assert relative_error(distance, data["loss"]) < FIRST_ORDER
    (images_gradient,) = torch.autograd.grad(distance, images)
    assert relative_error(images_gradient, data["grad_synthetic_images"]) < SECOND_ORDER


def test_augmentations(golden):
    data = golden("dsa_augment")
    images = data.pop("images")
    parts_of_color = {"brightness": brightness, "saturation": saturation, "contrast": contrast}
    assert data, "no augmentation in the file"
    for key, expected in data.items():
        name, drawn = key.split("_")
        number = uniform_number(name, drawn, side=images.shape[2])
        u = torch.full((1, 3), number, device=images.device)
        if name in parts_of_color:
            augmented = parts_of_color[name](images, u[:, 0])
        else:
            assert name in OPERATIONS
            augmented = augment(images, Draw(name, u))
        assert relative_error(augmented, expected) < FIRST_ORDER, key


def uniform_number(name: str, drawn: str, side: int) -> float:
    """The uniform number of a draw: `u<number>` is the number itself, `v<number>` the integer it gives."""
    value = float(drawn[1:])
    if drawn[0] == "u":
        return value
    if name == "crop":
        reach = int(side * CROP_SHARE + 0.5)
        return (value + reach + 0.5) / (2 * reach + 1)
    length = int(side * CUTOUT_SHARE + 0.5)
    return (value + 0.5) / (side + 1 - length % 2)


def test_calibration(golden, golden_index):
    data = golden("calibration")
    results = golden_index["calibration"]["results"]
    assert results, "no case in the index"
    for case, numbers in results.items():
        logits = data[f"{case}.logits"].cpu().numpy()
        labels = data[f"{case}.labels"].cpu().numpy()
        assert ece(np.exp(log_softmax(logits)), labels, 10) == pytest.approx(numbers["ece"], rel=FIRST_ORDER)
        check_early_stopped(logits, labels, numbers)
        best = optimum(logits, labels, BOUNDS).temperature
        assert best == pytest.approx(numbers["temperature_optimum"], rel=FIRST_ORDER)
        loss = nll(log_softmax(logits / best), labels)
        assert loss == pytest.approx(numbers["nll_at_optimum"], rel=1e-6)


def check_early_stopped(logits: np.ndarray, labels: np.ndarray, numbers: dict[str, float]) -> None:
    """Compare the temperatures of all LBFGS runs of a case."""
    runs = 0
    for key, temperature in numbers.items():
        if "lbfgs" not in key:
            continue
        runs += 1
        lr, iterations = re.fullmatch(r"temperature_lbfgs_lr(.+)_iter(\d+)", key).groups()
        settings = CalibrateSettings(
            start=1.5, lr=float(lr), max_iter=int(iterations), share=0.1, bounds=BOUNDS
        )
        fit = early_stopped(logits, labels, settings)
        assert fit.temperature == pytest.approx(temperature, rel=FIRST_ORDER)
    assert runs > 0, "no LBFGS run in the index"
