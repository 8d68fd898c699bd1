"""The networks that a distilled set is tried on: shapes, stacking, initial weights, what is too small."""

import importlib

import pytest
import torch
from torch import nn

from stages.architectures import build
from stages.check import names_in
from stages.shared.convnet import HalvingPool, NetworkSettings
from stages.shared.errors import UserError
from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages
from stages.shared.randomness import generator

CPU, SETTINGS = torch.device("cpu"), NetworkSettings(width=4, depth=3)
SMALLEST = {"convnet": 8, "mlp": 1, "alexnet": 8, "vgg11": 32, "resnet18": 16}
WEIGHTS = {"mlp": 411_146, "alexnet": 1_872_202, "vgg11": 9_231_114, "resnet18": 11_173_962}  # 3 channels, 32 pixels, 10 classes


def images(channels: int, size: int, count: int = 2) -> LabelledImages:
    return LabelledImages(torch.randn(count, channels, size, size, generator=generator("images")), torch.arange(count), 10)


def test_every_network_is_tested():
    assert set(SMALLEST) == set(names_in("networks"))


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("channels, size", [(3, 32), (1, 32), (3, 64), (3, 128)])
def test_a_network_fits_every_data_set(name, channels, size):
    data = images(channels, size)
    network = build(name, data, SETTINGS, "x", CPU)
    theta = network.initial(generator(0))
    logits = network(theta, data.images)
    assert theta.shape == (network.size,) and logits.shape == (2, 10) and bool(logits.isfinite().all())
    assert not torch.allclose(logits[0], logits[1], atol=1e-4), "the images make a difference"


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_number_of_weights_is_that_of_the_fields_networks(name):
    """Counted on `networks.py` of https://github.com/VICO-UoE/DatasetCondensation."""
    assert build(name, images(3, 32), SETTINGS, "x", CPU).size == WEIGHTS[name]


@pytest.mark.parametrize("name", SMALLEST)
def test_images_that_are_too_small_are_refused(name):
    smallest = SMALLEST[name]
    build(name, images(1, smallest), SETTINGS, "architectures.x.networks", CPU)
    if smallest > 1:
        with pytest.raises(UserError, match="architectures.x.networks: .*allowed: "):
            build(name, images(1, smallest - 1), SETTINGS, "architectures.x.networks", CPU)


@pytest.mark.parametrize("name", SMALLEST)
def test_stacked_networks_have_the_gradients_of_each_alone(name):
    data = images(3, 32)
    network = build(name, data, SETTINGS, "x", CPU)
    thetas = torch.stack([network.initial(generator(i)) for i in range(2)])

    def loss(theta):
        return nn.functional.cross_entropy(network(theta, data.images), data.labels)

    together = torch.func.vmap(torch.func.grad(loss))(thetas)
    for theta, gradient in zip(thetas, together):
        alone = torch.autograd.grad(loss(leaf := theta.clone().requires_grad_()), leaf)[0]
        assert torch.allclose(gradient, alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize("name", SMALLEST)
def test_no_norm_looks_at_other_images(name):
    """Instance norm, not batch norm: an image's logits are its own."""
    data = images(3, 32)
    network = build(name, data, SETTINGS, "x", CPU)
    theta = network.initial(generator(0))
    assert torch.allclose(network(theta, data.images)[:1], network(theta, data.images[:1]), atol=1e-4)


def test_initial_weights_are_spread_as_pytorchs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = importlib.import_module("stages.networks.mlp").build(3, 32, 10, None)
    flat = FlatNetwork(module)
    ours = flat.split(flat.initial(generator(0)))
    for name, theirs in module.named_parameters():
        assert float(ours[name].std()) == pytest.approx(float(theirs.detach().std()), rel=0.35 if theirs.numel() < 200 else 0.05)
        assert float(ours[name].abs().max()) == pytest.approx(float(theirs.detach().abs().max()), rel=0.2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 25, 32, 128])
def test_halving_pool_is_pytorchs(size):
    images, direction = torch.randn(2, 2, 3, size, size, generator=generator("pool"), dtype=torch.float64)
    ours, theirs = HalvingPool(size).double(), nn.AvgPool2d(2)
    if size == 1:
        with pytest.raises(RuntimeError, match="size"):
            ours(images)
        return
    assert torch.allclose(ours(images), theirs(images), rtol=1e-14, atol=1e-15)
    assert torch.allclose(*(torch.func.vjp(pool, images)[1](pool(direction))[0] for pool in (ours, theirs)), rtol=1e-14, atol=1e-15)
    other = direction[..., : size // 2 * 2, :].repeat(1, 1, 1, 3)  # of another size than it was made for
    assert torch.equal(ours(other), theirs(other))


def test_halving_pool_adds_no_weights():
    module = build("convnet", images(3, 32), SETTINGS, "x", CPU).module
    assert not [name for name in module.state_dict() if "quarters" in name]
