"""The backbones: gradients against finite differences in float64, one step, masks, references."""

from pathlib import Path

import pytest
import torch

from stages.distill import learn
from stages.distillers import dc, dsa, full, kmeans, random, rtp
from stages.shared.convnet import ConvNet
from stages.shared.flat import FlatNetwork
from stages.shared.gradient_matching import MatchingSettings, matching_distance
from stages.shared.images import LabelledImages
from stages.shared.method import Problem
from stages.shared.randomness import generator

CLASSES = 5
LOOPS = {"iterations": 2, "outer_loops": 2, "inner_loops": 1, "batch_real": 6}
RTP = {"iterations": 2, "syn_steps": 3, "batch_syn": 4, "batch_real": 8, "lr_net": 0.1, "clip": 1e9}
BACKBONES = {
    "dc": (dc, LOOPS),
    "dsa": (dsa, LOOPS),
    "rtp": (rtp, RTP),
    "rtp with memory addressing": (rtp, RTP | {"n_basis": 3, "l2": 0}),
}


def problem(device, ipc=2, mdt=0.1) -> Problem:
    """Five classes of 8x8 images in float64, and a smooth network (ReLU's kinks would spoil finite differences)."""
    images = torch.randn(40, 2, 8, 8, generator=generator("real"), dtype=torch.float64).to(device)
    labels = torch.arange(40, device=device) % CLASSES
    images += torch.randn(CLASSES, 2, 8, 8, generator=generator("classes"), dtype=torch.float64).to(device)[labels]
    module = ConvNet(channels=2, size=8, classes=CLASSES, width=4, depth=1).double().to(device)
    module.features[2] = torch.nn.Softplus()
    return Problem(LabelledImages(images, labels, CLASSES), FlatNetwork(module), ipc, mdt, Path("data/nothing"), seed=0)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("mdt", [0, 0.1, [0.0, 0.1]])
def test_the_gradient_equals_finite_differences(name, mdt, device):
    backbone, settings = BACKBONES[name]

    def loss_at(shift):
        method = backbone.start(problem(device, mdt=mdt), backbone.Settings(**settings))
        for key, direction in shift.items():
            method.variables[key].value = method.variables[key].value + direction
        return next(method.steps(1))

    _, gradients = loss_at({})
    for key, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator(key), dtype=torch.float64).to(device)
        h = 1e-5
        difference = (loss_at({key: h * direction})[0] - loss_at({key: -h * direction})[0]) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-5), key


@pytest.mark.parametrize("name", BACKBONES)
def test_learning_lowers_the_loss(name, device):
    backbone, settings = BACKBONES[name]
    more = {"batch_real": 40, "batch_syn": None, "syn_steps": 8, "lr_img": 5.0} if backbone is rtp else {"lr_img": 0.5}
    method = backbone.start(problem(device, mdt=0), backbone.Settings(**settings | {"iterations": 40} | more))
    assert method.labels.bincount().tolist() == [2] * CLASSES and method.images().shape == (10, 2, 8, 8)
    curve, skipped = learn(method, None, name)
    assert skipped == 0 and method.images().isfinite().all()
    assert sum(curve["loss"][-8:]) < sum(curve["loss"][:8])


def test_images_are_updated_once_an_outer_loop(device):
    method = dc.start(problem(device), dc.Settings(**LOOPS))
    assert len(list(method.steps(0))) == 2


def test_a_gradient_has_no_distance_to_itself_and_two_to_its_opposite_an_output_row():
    network = problem("cpu").network
    gradient = torch.randn(network.size, generator=generator(0), dtype=torch.float64)
    rows = sum(shape[0] for shape in network.shapes if len(shape) > 1)
    assert float(matching_distance(network, gradient, gradient)) == pytest.approx(0, abs=1e-4)
    assert float(matching_distance(network, gradient, -gradient)) == pytest.approx(2 * rows, abs=1e-4)


def test_a_clipped_gradient_keeps_its_direction():
    gradients = {"a": torch.full((3,), 4.0), "b": torch.full((4,), -4.0)}
    clipped = rtp.clipped(gradients, 2.0)
    assert float(torch.cat([*clipped.values()]).norm()) == pytest.approx(2.0, rel=1e-4)
    assert torch.allclose(clipped["a"][0], -clipped["b"][0])
    assert torch.allclose(rtp.clipped(gradients, 100.0)["a"], gradients["a"])


@pytest.mark.parametrize("backbone", [random, kmeans])
def test_references_are_real_images_of_their_class(backbone):
    here = problem("cpu", ipc=3)
    method = backbone.start(here, backbone.Settings())
    assert method.labels.tolist() == [k for k in range(CLASSES) for _ in range(3)]
    for image, label in zip(method.images(), method.labels):
        same = (here.real.images == image).all((1, 2, 3)).nonzero().flatten()
        assert len(same) == 1 and here.real.labels[same] == label
    assert len({tuple(image.flatten().tolist()) for image in method.images()}) == 15


def test_kmeans_takes_the_middle_of_a_cluster():
    images = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 5.2] * 2).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    real = LabelledImages(images, torch.tensor([0] * 6 + [1] * 6), 2)
    method = kmeans.start(Problem(real, None, 2, 0, Path(), seed=0), kmeans.Settings())
    assert sorted(round(float(image.mean()), 3) for image in method.images()[:2]) == [0.1, 5.1]


def test_full_copies_nothing():
    assert full.start(problem("cpu"), full.Settings()).images is None


def test_published_loops_are_the_callers():
    with pytest.raises(ValueError):
        MatchingSettings(iterations=1)
