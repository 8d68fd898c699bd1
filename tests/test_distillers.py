"""The backbones: gradients against finite differences in float64, one step, masks, references."""

from pathlib import Path

import pytest
import torch

from stages.distill import learn
from stages.distillers import dc, dsa, full, kmeans, random, rtp
from stages.shared import gradient_matching
from stages.shared.convnet import ConvNet
from stages.shared.errors import UserError
from stages.shared.flat import FlatNetwork
from stages.shared.gradient_matching import MatchingSettings, matching_distance
from stages.shared.images import LabelledImages
from stages.shared.method import Problem
from stages.shared.randomness import generator
from stages.shared.unroll import InnerLoss

CLASSES = 5
LOOPS = {"iterations": 2, "outer_loops": 2, "inner_loops": 1, "batch_real": 6}
RTP = {"iterations": 2, "syn_steps": 3, "batch_syn": 1, "batch_real": 4, "lr_net": 0.1, "clip": 1e9}
BACKBONES = {
    "dc": (dc, LOOPS),
    "dsa": (dsa, LOOPS),
    "rtp": (rtp, RTP),
    "rtp with memory addressing": (rtp, RTP | {"n_basis": 20, "l2": 0}),
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


@pytest.mark.parametrize("backbone", [dc, dsa])
@pytest.mark.parametrize("mdt", [0, 0.1])
def test_classes_matched_together_or_one_by_one_are_the_same(backbone, mdt, device, monkeypatch):
    found = []
    for together in (1, 2, CLASSES):
        monkeypatch.setattr(gradient_matching, "how_many_together", lambda *_: together)
        loss, gradients = next(backbone.start(problem(device, mdt=mdt), backbone.Settings(**LOOPS)).steps(1))
        found.append((loss, gradients["images"]))
    for loss, gradient in found[1:]:
        assert torch.allclose(loss, found[0][0], rtol=1e-10) and torch.allclose(gradient, found[0][1], rtol=1e-8)


def test_stacked_class_gradients_are_the_same(device):
    here = problem(device)
    loss, theta = InnerLoss(here.network), here.network.initial(generator(0)).double().to(device)
    images, labels = list(here.real.images.split(8)), list(here.real.labels.split(8))
    one_by_one, stacked = (gradient_matching.class_gradients(loss, theta, images, labels, stacked) for stacked in (False, True))
    assert one_by_one.shape == (5, here.network.size) and torch.allclose(stacked, one_by_one, rtol=1e-8, atol=1e-12)
    uneven = gradient_matching.class_gradients(loss, theta, [images[0], images[1][:3]], [labels[0], labels[1][:3]], True)
    assert torch.allclose(uneven[0], one_by_one[0])


def test_bfloat16_products_bend_the_real_gradient_a_little(device):
    here = problem(device)
    theta, images = here.network.initial(generator(0)).to(device), here.real.images.float()
    network = FlatNetwork(here.network.module.float())
    exact, rounded = (InnerLoss(network, precision=p).gradient(theta, images, here.real.labels) for p in ("float32", "bfloat16"))
    assert rounded.dtype == torch.float32 and 1e-5 < float((rounded - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("bad", ["images that are not numbers", "a learning rate that explodes"])
def test_a_bad_run_ends_in_a_reason_and_not_in_a_bad_set(name, bad, device):
    backbone, settings = BACKBONES[name]
    here = problem(device)
    if bad == "images that are not numbers":
        here.real.images.fill_(torch.nan)
    changes = {"iterations": 40, "lr_img": 1e300 if bad == "a learning rate that explodes" else 0.1}
    method = backbone.start(here, backbone.Settings(**settings | changes))
    with pytest.raises(UserError, match="10 times in a row. Lower the learning rates"):
        learn(method, None, name)


@pytest.mark.parametrize("name", BACKBONES)
def test_learning_lowers_the_loss(name, device):
    backbone, settings = BACKBONES[name]
    more = {"batch_real": 40, "batch_syn": None, "syn_steps": 8, "lr_img": 5.0} if backbone is rtp else {"lr_img": 0.5}
    method = backbone.start(problem(device, mdt=0), backbone.Settings(**settings | {"iterations": 40} | more))
    count = 6 if "memory" in name else 2
    assert method.labels.bincount().tolist() == [count] * CLASSES and method.images().shape == (5 * count, 2, 8, 8)
    curve, skipped = learn(method, None, name)
    assert skipped == 0 and method.images().isfinite().all()
    assert sum(curve["loss"][-8:]) < sum(curve["loss"][:8])


def test_memory_addressing_stores_no_more_than_plain_images(device):
    values = [variable.value for variable in rtp.start(problem(device), rtp.Settings(**RTP | {"n_basis": 20})).variables.values()]
    plain, another_image_a_class = 2 * CLASSES * 2 * 8 * 8, CLASSES * 20
    assert plain - another_image_a_class < sum(value.numel() for value in values) <= plain
    with pytest.raises(UserError, match="n_basis: 40 basis images .* take more room than 2 images a class"):
        rtp.start(problem(device), rtp.Settings(**RTP | {"n_basis": 40}))


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
