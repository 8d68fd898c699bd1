"""The networks that a distilled set is tried on: shapes, stacking, initial weights, images too small."""

import pytest
import torch
from torch import nn

from stages.architectures import build
from stages.images.prepared import LabelledImages
from stages.networks import alexnet, mlp
from stages.networks.convnet import ConvNet, HalvingPool
from stages.rules.names import names_in
from stages.runtime.errors import UserError
from stages.runtime.randomness import generator
from stages.settings.network import NetworkSettings
from stages.training.flat import FlatNetwork

CPU = torch.device("cpu")
SETTINGS = NetworkSettings(width=4, depth=3)
KEY = "architectures.x.networks"
SMALLEST = {"convnet": 8, "mlp": 1, "alexnet": 8, "vgg11": 32, "resnet18": 16}  # pixels

# Numbers of weights in `networks.py` of https://github.com/VICO-UoE/DatasetCondensation, for 3 channels,
# 32 pixels and 10 classes.
WEIGHTS = {"mlp": 411_146, "alexnet": 1_872_202, "vgg11": 9_231_114, "resnet18": 11_173_962}


def two_images(channels: int, size: int) -> LabelledImages:
    images = torch.randn(2, channels, size, size, generator=generator("images"))
    return LabelledImages(images, torch.arange(2), classes=10)


def test_every_network_is_tested():
    assert set(SMALLEST) == set(names_in("networks"))


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("channels, size", [(3, 32), (1, 32), (3, 64), (3, 128)])
def test_a_network_fits_every_data_set(name, channels, size):
    data = two_images(channels, size)
    network = build(name, data, SETTINGS, KEY, CPU)
    theta = network.initial(generator(0))
    logits = network(theta, data.images)
    assert theta.shape == (network.size,)
    assert logits.shape == (2, 10)
    assert bool(logits.isfinite().all())
    assert not torch.allclose(logits[0], logits[1], atol=1e-4), "the images make a difference"


@pytest.mark.parametrize("name", SMALLEST)
def test_a_network_is_no_linear_function_of_its_images(name):
    data = two_images(3, 32)
    network = build(name, data, SETTINGS, KEY, CPU)
    theta = network.initial(generator(0))
    first, second = data.images.split(1)
    together = network(theta, first + second) + network(theta, torch.zeros_like(first))
    apart = network(theta, first) + network(theta, second)
    assert not torch.allclose(together, apart, rtol=1e-2, atol=1e-2 * float(apart.abs().max()))


def test_every_layer_of_the_mlp_and_of_alexnet_but_the_last_is_followed_by_a_relu():
    """As in `networks.py` of VICO-UoE/DatasetCondensation."""
    for module in (mlp, alexnet):
        layers = list(module.build(3, 32, 10, SETTINGS).modules())
        with_weights = [i for i, layer in enumerate(layers) if isinstance(layer, (nn.Linear, nn.Conv2d))]
        followed = [isinstance(layers[i + 1], nn.ReLU) for i in with_weights[:-1]]
        assert len(followed) > 1 and all(followed)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_network_has_as_many_weights_as_the_public_one(name):
    assert build(name, two_images(3, 32), SETTINGS, KEY, CPU).size == WEIGHTS[name]


@pytest.mark.parametrize("name", SMALLEST)
def test_images_that_are_too_small_are_refused(name):
    smallest = SMALLEST[name]
    build(name, two_images(1, smallest), SETTINGS, KEY, CPU)
    if smallest > 1:
        with pytest.raises(UserError, match=f"{KEY}: .*allowed: "):
            build(name, two_images(1, smallest - 1), SETTINGS, KEY, CPU)


def test_a_network_deeper_than_its_images_is_refused():
    with pytest.raises(ValueError, match="network.depth: 4"):
        ConvNet(channels=1, size=8, classes=10, width=4, depth=4)


@pytest.mark.parametrize("name", SMALLEST)
def test_stacked_networks_have_the_gradients_of_each_alone(name):
    data = two_images(3, 32)
    network = FlatNetwork(build(name, data, SETTINGS, KEY, CPU).module.double())
    images = data.images.double()
    thetas = torch.stack([network.initial(generator(i)) for i in range(2)]).double()

    def loss(theta):
        return nn.functional.cross_entropy(network(theta, images), data.labels)

    together = torch.func.vmap(torch.func.grad(loss))(thetas)
    for theta, gradient in zip(thetas, together):
        leaf = theta.clone().requires_grad_()
        (alone,) = torch.autograd.grad(loss(leaf), leaf)
        assert torch.allclose(gradient, alone, rtol=1e-7, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("name", SMALLEST)
def test_the_logits_of_an_image_do_not_depend_on_other_images(name):
    """As with instance norm, and not with batch norm."""
    data = two_images(3, 32)
    network = build(name, data, SETTINGS, KEY, CPU)
    theta = network.initial(generator(0))
    together = network(theta, data.images)
    alone = network(theta, data.images[:1])
    assert torch.allclose(together[:1], alone, atol=1e-4)


def test_initial_weights_are_spread_as_pytorchs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = mlp.build(3, 32, 10, SETTINGS)
    network = FlatNetwork(module)
    ours = network.split(network.initial(generator(0)))
    for name, parameter in module.named_parameters():
        theirs = parameter.detach()
        few = theirs.numel() < 200
        assert float(ours[name].std()) == pytest.approx(float(theirs.std()), rel=0.35 if few else 0.05)
        assert float(ours[name].abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.2)


@pytest.mark.parametrize("size", [2, 3, 4, 8, 25, 32, 128])
def test_halving_pool_is_pytorchs(size):
    draws = generator("pool")
    images, direction = torch.randn(2, 2, 3, size, size, generator=draws, dtype=torch.float64)
    ours = HalvingPool(size).double()
    theirs = nn.AvgPool2d(2)
    close = {"rtol": 1e-14, "atol": 1e-15}
    assert torch.allclose(ours(images), theirs(images), **close)
    our_gradient = torch.func.vjp(ours, images)[1](ours(direction))[0]
    their_gradient = torch.func.vjp(theirs, images)[1](theirs(direction))[0]
    assert torch.allclose(our_gradient, their_gradient, **close)
    even_rows = size // 2 * 2
    of_another_size = direction[..., :even_rows, :].repeat(1, 1, 1, 3)
    assert torch.equal(ours(of_another_size), theirs(of_another_size))


def test_halving_pool_refuses_a_single_pixel_as_pytorchs_does():
    with pytest.raises(RuntimeError, match="size"):
        HalvingPool(1)(torch.zeros(2, 3, 1, 1))


def test_halving_pool_adds_no_weights():
    module = build("convnet", two_images(3, 32), SETTINGS, KEY, CPU).module
    pools = [layer for layer in module.modules() if isinstance(layer, HalvingPool)]
    assert len(pools) == 3
    assert not any(pool.state_dict() for pool in pools)
