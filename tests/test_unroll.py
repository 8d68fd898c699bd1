"""Exact gradients through unrolled SGD, against finite differences in float64 and against the graph of all steps."""

import pytest
import torch
import torch.nn.functional as F

from stages.distillers.mtt import matching_loss
from stages.shared.augment import augment, draw
from stages.shared.convnet import ConvNet
from stages.shared.engine import part_size
from stages.shared.flat import FlatNetwork
from stages.shared.masking import mask_images
from stages.shared.randomness import generator
from stages.shared.sampling import chunks_of
from stages.shared.unroll import InnerLoss, unrolled_gradient

STEPS = 4


@pytest.fixture
def problem(device):
    """A tiny smooth problem in float64: images, labels, start, target, network."""
    draws = generator("unroll")
    network = FlatNetwork(ConvNet(channels=2, size=8, classes=3, width=4, depth=1).double().to(device))
    network.module.features[2] = torch.nn.Softplus()  # ReLU's kinks would spoil finite differences
    images = torch.randn(6, 2, 8, 8, generator=draws, dtype=torch.float64).to(device)
    labels = torch.arange(6, device=device) % 3
    start = network.initial(draws).double().to(device)
    return network, images, labels, start, start + 0.1 * torch.randn(start.shape, generator=draws, dtype=torch.float64).to(device)


def batches(images, labels, mask_ratio):
    rows = [part.to(images.device) for part in chunks_of(len(images), 4, STEPS, generator("rows"))]

    def batch(step):
        masked = mask_images(images[rows[step]], mask_ratio, generator("mask", step))
        return augment(masked, draw(generator("augment", step), len(masked))), labels[rows[step]]

    return batch


def graph_of_all_steps(network, start, batch, lr, momentum, outer):
    """The plain way: backward through every step at once."""
    theta, velocity = start.requires_grad_(), 0
    for step in range(STEPS):
        images, labels = batch(step)
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(theta, images), labels), theta, create_graph=True)
        velocity = momentum * velocity + gradient
        theta = theta - lr * velocity
    return outer(theta)


@pytest.mark.parametrize("mask_ratio", [0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_equals_finite_differences_and_the_full_graph(problem, mask_ratio, momentum):
    network, images, labels, start, target = problem
    lr = torch.tensor(0.3, dtype=torch.float64, device=images.device)

    def outer(theta):
        return matching_loss(theta, start, target)

    def run(images, lr):
        leaf = images.detach().requires_grad_()
        return unrolled_gradient(InnerLoss(network), start, batches(leaf, labels, mask_ratio), STEPS, [leaf], lr, outer, momentum)

    result = run(images, lr)
    direction = torch.randn(images.shape, generator=generator("direction"), dtype=torch.float64).to(images.device)
    h = 1e-5
    along = (run(images + h * direction, lr).loss - run(images - h * direction, lr).loss) / (2 * h)
    assert float((result.gradients[0] * direction).sum()) == pytest.approx(float(along), rel=1e-6)
    assert float(result.lr_gradient) == pytest.approx(float((run(images, lr + h).loss - run(images, lr - h).loss) / (2 * h)), rel=1e-6)

    leaf, rate = images.clone().requires_grad_(), lr.clone().requires_grad_()
    loss = graph_of_all_steps(network, start.clone(), batches(leaf, labels, mask_ratio), rate, momentum, outer)
    loss.backward()
    assert torch.allclose(result.loss, loss.detach())
    assert torch.allclose(result.gradients[0], leaf.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(result.lr_gradient, rate.grad)


def test_forward_over_reverse_gives_the_same_products(problem):
    network, images, labels, start, target = problem
    inner = InnerLoss(network)
    backward, forward = inner.products(start, images, labels, target), inner._forward_over_reverse(start, images, labels, target)
    for ours, theirs in zip(backward, forward):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_what_is_compiled_gives_the_same_numbers(problem, monkeypatch):
    """The functions that are handed to the compiler, without it."""
    network, images, labels, start, target = problem
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    eager, handed = InnerLoss(network), InnerLoss(network, compiled=True)
    with torch.no_grad():
        assert torch.allclose(eager.gradient(start, images, labels), handed.gradient(start, images, labels), rtol=1e-9, atol=1e-12)
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*(inner.products(start, images, labels, target) for inner in (eager, handed))))
    assert not start.requires_grad


def test_chunks_use_every_image_once_before_any_comes_again():
    chunks = chunks_of(10, 4, 6, generator(0))
    assert [len(c) for c in chunks] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(chunks[:3]).tolist()) == sorted(torch.cat(chunks[3:]).tolist()) == list(range(10))


def test_parts_of_a_batch_make_the_whole(device, monkeypatch):
    """A CPU works through a batch in parts: their weighted sum, exact in float64 whatever their sizes."""
    module = ConvNet(channels=2, size=8, classes=3, width=4, depth=1).double().to(device)
    inner, draws = InnerLoss(FlatNetwork(module)), generator("parts")
    theta = inner.network.initial(draws).double().to(device)
    v, images = torch.randn(theta.shape, generator=draws).to(theta), torch.randn(11, 2, 8, 8, generator=draws).to(theta)
    labels = (torch.arange(11) % 3).to(device)
    found = []
    for part in (11, 4, 1):
        monkeypatch.setattr("stages.shared.unroll.part_size", lambda *_: part)
        leaf = theta.clone().requires_grad_()
        loss = inner.whole_loss(leaf, images, labels)
        found.append([inner.gradient(theta, images, labels), *inner.products(theta, images, labels, v), loss.detach(), *torch.autograd.grad(loss, leaf)])
    assert torch.allclose(found[0][0], found[0][-1])
    assert torch.allclose(found[0][-2], F.cross_entropy(inner.network(theta, images), labels))
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-14) for a, b in zip(found[0], other))


@pytest.mark.parametrize("count, image_bytes, size", [(256, 512 * 1024, 16), (100, 512 * 1024, 10), (10, 512 * 1024, 10), (125, 512 * 1024, 18), (7, 2**30, 1)])
def test_parts_fit_the_cache_and_divide_the_batch_where_they_can(count, image_bytes, size):
    assert part_size(count, image_bytes, torch.device("cpu")) == size
    assert part_size(count, image_bytes, torch.device("cuda")) == count
