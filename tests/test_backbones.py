"""The backbones: gradients against finite differences in float64, single updates, masks, and references."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT

from stages.backbones import dc, dsa, full, kmeans, random, rtp
from stages.distillation import gradient_matching
from stages.distillation.back_propagation_through_time import clipped
from stages.distillation.backbone import Backbone, Problem
from stages.distillation.gradient_matching import class_gradients, matching_distance
from stages.distillation.learn import learn
from stages.distillation.unroll import InnerLoss
from stages.images.prepared import LabelledImages
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork

CLASSES = 5
LOOPS = {"iterations": 2, "outer_loops": 2, "inner_loops": 1, "batch_real": 6}
RTP = {"iterations": 2, "syn_steps": 3, "batch_syn": 1, "batch_real": 4, "lr_net": 0.1, "clip": 1e9}


class Case(NamedTuple):
    """A backbone with its settings."""

    module: ModuleType
    settings: dict

    def start(self, problem: Problem, **changes) -> Backbone:
        settings = self.module.Settings(**self.settings | changes)
        return self.module.start(problem, settings)


CASES = {
    "dc": Case(dc, LOOPS),
    "dsa": Case(dsa, LOOPS),
    "rtp": Case(rtp, RTP),
    "rtp with memory addressing": Case(rtp, RTP | {"n_basis": 20, "l2": 0}),
}


def five_classes(device, ipc=2, mdt=0.1) -> Problem:
    """8x8 images of five classes in float64, and a smooth network: kinks would spoil finite differences."""
    labels = torch.arange(40) % CLASSES
    noise = torch.randn(40, 2, 8, 8, generator=generator("real"), dtype=torch.float64)
    means = torch.randn(CLASSES, 2, 8, 8, generator=generator("classes"), dtype=torch.float64)
    images = noise + means[labels]
    real = LabelledImages(images.to(device), labels.to(device), CLASSES)
    module = ConvNet(channels=2, size=8, classes=CLASSES, width=4, depth=1).double().to(device)
    module.features[2] = torch.nn.Softplus()
    return Problem(real, FlatNetwork(module), ipc, mdt, Path("data/nothing"), seed=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mdt", [0, 0.1, [0.0, 0.1]])
def test_the_gradient_equals_finite_differences(name, mdt, device):
    def first_update(shift):
        backbone = CASES[name].start(five_classes(device, mdt=mdt))
        for key, difference in shift.items():
            variable = backbone.variables[key]
            variable.value = variable.value + difference
        return next(backbone.updates(1))

    h = 1e-5
    _, gradients = first_update({})
    for key, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator(key), dtype=torch.float64).to(device)
        loss_ahead, _ = first_update({key: h * direction})
        loss_behind, _ = first_update({key: -h * direction})
        slope = float(loss_ahead - loss_behind) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5), key


@pytest.mark.parametrize("name", ["dc", "dsa"])
@pytest.mark.parametrize("mdt", [0, 0.1])
def test_classes_matched_together_or_one_by_one_give_the_same_update(name, mdt, device, monkeypatch):
    def first_update(together):
        monkeypatch.setattr(gradient_matching, "how_many_together", lambda *_: together)
        loss, gradients = next(CASES[name].start(five_classes(device, mdt=mdt)).updates(1))
        return loss, gradients["images"]

    loss, gradient = first_update(1)
    for together in (2, CLASSES):
        other_loss, other_gradient = first_update(together)
        assert torch.allclose(other_loss, loss, rtol=1e-10)
        assert torch.allclose(other_gradient, gradient, rtol=1e-8)


def test_stacked_class_gradients_equal_those_one_by_one(device):
    problem = five_classes(device)
    loss = InnerLoss(problem.network)
    theta = problem.network.initial(generator(0)).double().to(device)
    images = list(problem.real.images.split(8))
    labels = list(problem.real.labels.split(8))
    one_by_one = class_gradients(loss, theta, images, labels, stacked=False)
    stacked = class_gradients(loss, theta, images, labels, stacked=True)
    assert one_by_one.shape == (5, problem.network.size)
    assert torch.allclose(stacked, one_by_one, rtol=1e-8, atol=1e-12)


def test_class_gradients_take_batches_of_different_sizes(device):
    problem = five_classes(device)
    loss = InnerLoss(problem.network)
    theta = problem.network.initial(generator(0)).double().to(device)
    images = problem.real.images
    labels = problem.real.labels
    gradients = class_gradients(loss, theta, [images[:8], images[8:11]], [labels[:8], labels[8:11]], True)
    assert torch.allclose(gradients[0], loss.gradient(theta, images[:8], labels[:8]))
    assert torch.allclose(gradients[1], loss.gradient(theta, images[8:11], labels[8:11]))


def test_bfloat16_products_change_the_gradient_a_little(device):
    problem = five_classes(device)
    theta = problem.network.initial(generator(0)).to(device)
    images = problem.real.images.float()
    network = FlatNetwork(problem.network.module.float())
    exact = InnerLoss(network).gradient(theta, images, problem.real.labels)
    rounded = InnerLoss(network, precision="bfloat16").gradient(theta, images, problem.real.labels)
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("name", CASES)
def test_images_that_are_not_numbers_end_in_a_reason_and_not_in_a_bad_set(name, device):
    problem = five_classes(device)
    problem.real.images.fill_(torch.nan)
    backbone = CASES[name].start(problem, iterations=40)
    with pytest.raises(UserError, match="10 times in a row. Lower the learning rates"):
        learn(backbone, None, name)


@pytest.mark.parametrize("name", CASES)
def test_a_learning_rate_that_explodes_ends_in_a_reason_and_not_in_a_bad_set(name, device):
    backbone = CASES[name].start(five_classes(device), iterations=40, lr_img=1e300)
    with pytest.raises(UserError, match="10 times in a row. Lower the learning rates"):
        learn(backbone, None, name)


@pytest.mark.parametrize("name", CASES)
def test_learning_lowers_the_loss(name, device):
    changes = {"iterations": 40, "lr_img": 0.5}
    if CASES[name].module is rtp:
        changes |= {"batch_real": 40, "batch_syn": None, "syn_steps": 8, "lr_img": 5.0}
    backbone = CASES[name].start(five_classes(device, mdt=0), **changes)
    count = 6 if "memory" in name else 2
    assert backbone.labels.bincount().tolist() == [count] * CLASSES
    assert backbone.images().shape == (CLASSES * count, 2, 8, 8)
    curve, skipped = learn(backbone, None, name)
    assert skipped == 0
    assert backbone.images().isfinite().all()
    assert sum(curve["loss"][-8:]) < sum(curve["loss"][:8])


def test_memory_addressing_stores_no_more_than_plain_images(device):
    backbone = CASES["rtp"].start(five_classes(device), n_basis=20)
    stored = sum(variable.value.numel() for variable in backbone.variables.values())
    plain = 2 * CLASSES * 2 * 8 * 8
    another_image_of_each_class = CLASSES * 20
    assert plain - another_image_of_each_class < stored <= plain


def test_memory_addressing_with_too_many_basis_images_is_refused(device):
    expected = "n_basis: 40 basis images .* take more room than 2 images a class"
    with pytest.raises(UserError, match=expected):
        CASES["rtp"].start(five_classes(device), n_basis=40)


def test_images_are_updated_once_in_each_outer_loop(device):
    backbone = CASES["dc"].start(five_classes(device))
    assert len(list(backbone.updates(0))) == 2


def test_a_gradient_has_no_distance_to_itself():
    network = five_classes("cpu").network
    gradient = torch.randn(network.size, generator=generator(0), dtype=torch.float64)
    assert float(matching_distance(network, gradient, gradient)) == pytest.approx(0, abs=1e-4)


def test_the_opposite_gradient_has_a_distance_of_two_for_each_output_row():
    network = five_classes("cpu").network
    gradient = torch.randn(network.size, generator=generator(0), dtype=torch.float64)
    rows = sum(shape[0] for shape in network.shapes if len(shape) > 1)
    assert float(matching_distance(network, gradient, -gradient)) == pytest.approx(2 * rows, abs=1e-4)


def test_a_clipped_gradient_keeps_its_direction():
    gradients = {"a": torch.full((3,), 4.0), "b": torch.full((4,), -4.0)}
    short = clipped(gradients, 2.0)
    assert float(torch.cat([*short.values()]).norm()) == pytest.approx(2.0, rel=1e-4)
    assert torch.allclose(short["a"][0], -short["b"][0])


def test_a_gradient_below_the_limit_is_not_clipped():
    gradients = {"a": torch.full((3,), 4.0), "b": torch.full((4,), -4.0)}
    assert torch.allclose(clipped(gradients, 100.0)["a"], gradients["a"])


@pytest.mark.parametrize("module", [random, kmeans])
def test_references_are_different_real_images_of_their_classes(module):
    real = five_classes("cpu").real
    backbone = module.start(five_classes("cpu", ipc=3), module.Settings())
    images = backbone.images()
    assert backbone.labels.tolist() == [k for k in range(CLASSES) for _ in range(3)]
    rows = []
    for image in images:
        (row,) = (real.images == image).all((1, 2, 3)).nonzero().flatten()
        rows.append(int(row))
    assert real.labels[rows].tolist() == backbone.labels.tolist()
    assert len(set(rows)) == 15


def test_kmeans_takes_the_image_in_the_middle_of_a_cluster():
    brightness = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 5.2] * 2)
    images = brightness.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    real = LabelledImages(images, torch.tensor([0] * 6 + [1] * 6), 2)
    problem = Problem(real, five_classes("cpu").network, ipc=2, mdt=0, reads=Path(), seed=0)
    backbone = kmeans.start(problem, kmeans.Settings())
    means = backbone.images()[:2].mean((1, 2, 3))
    assert sorted(means.tolist()) == pytest.approx([0.1, 5.1])


def test_full_copies_no_image():
    backbone = full.start(five_classes("cpu"), full.Settings())
    assert backbone.images is None


def test_the_published_loops_of_dc_are_no_defaults():
    with pytest.raises(ValueError):
        dc.Settings(iterations=1)


def test_the_settings_of_all_backbones_are_read_without_torch():
    code = """
import importlib, pathlib, sys
for file in pathlib.Path("stages/backbones").glob("[!_]*.py"):
    importlib.import_module(f"stages.backbones.{file.stem}").Settings
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
