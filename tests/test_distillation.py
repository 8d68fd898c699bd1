"""What all backbones share: the loop of a distillation, and exact gradients through unrolled SGD."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.distillation import learn as learn_module
from stages.distillation import unroll
from stages.distillation.backbone import Backbone, Update, Variable
from stages.distillation.learn import learn
from stages.distillation.trajectory_matching import matching_loss
from stages.distillation.unroll import InnerLoss, InnerTraining, Unrolled, unrolled_gradient
from stages.images.augment import augment, draw
from stages.images.masking import mask_images
from stages.images.sampling import chunks_of
from stages.machine.engine import part_size
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork

# The loop


class Parabola:
    """A backbone that minimises (x - 3)^2 from 0; a step size falls beside it, by 0.001 an update.

    Args:
        bad: iterations whose gradient is not a number.
        loss: of an iteration, if not that of the parabola.
    """

    def __init__(
        self,
        bad: tuple[int, ...] = (),
        iterations: int = 30,
        loss: Callable[[int], Tensor] | None = None,
    ):
        self.x = Variable(torch.zeros(2, 2), 0.1, momentum=0.5)
        self.step_size = Variable(torch.tensor(1.0), 0.01, positive=True)
        self.bad = bad
        self.loss = loss
        variables = {"images": self.x, "step_size": self.step_size}
        self.backbone = Backbone(self.images, torch.arange(2), iterations, variables, self.updates)

    def images(self) -> Tensor:
        return self.x.value

    def updates(self, iteration: int) -> Iterator[Update]:
        difference = self.x.value - 3
        loss = self.loss(iteration) if self.loss else difference.square().sum()
        gradient = torch.full((2, 2), torch.nan) if iteration in self.bad else 2 * difference
        yield loss, {"images": gradient, "step_size": torch.tensor(0.1)}


def test_it_descends_and_keeps_the_curve():
    parabola = Parabola()
    curve, skipped = learn(parabola.backbone, None, "row")
    assert list(curve) == ["iteration", "loss", "step_size"]
    assert curve["iteration"] == list(range(30))
    assert curve["loss"][-1] < 1e-3 < curve["loss"][0]
    assert skipped == 0
    assert torch.allclose(parabola.images(), torch.full((2, 2), 3.0), atol=0.05)
    assert curve["step_size"][-1] == pytest.approx(1 - 30 * 0.001, rel=1e-4)


def test_the_update_is_that_of_pytorchs_sgd():
    parabola = Parabola(iterations=5)
    learn(parabola.backbone, None, "row")
    x = torch.zeros(2, 2, requires_grad=True)
    optimiser = torch.optim.SGD([x], lr=0.1, momentum=0.5)
    for _ in range(5):
        optimiser.zero_grad()
        (x - 3).square().sum().backward()
        optimiser.step()
    assert torch.allclose(parabola.images(), x.detach())


def test_a_bad_update_is_skipped_and_counted():
    parabola = Parabola(bad=(3, 4, 20))
    _, skipped = learn(parabola.backbone, None, "row")
    assert skipped == 3
    assert parabola.images().isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_distillation_that_stays_bad_stops_with_a_reason(value):
    def loss(iteration):
        return torch.tensor(1.0 if iteration < 7 else value)

    expected = r"row: iteration 16: the loss is (nan|inf), 10 times in a row. Lower .*images 0.1"
    with pytest.raises(UserError, match=expected):
        learn(Parabola(loss=loss).backbone, None, "row")


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_a_distillation_without_memory_says_what_to_lower(problem):
    """`run_stage` adds the note to its line."""

    def loss(iteration):
        raise problem

    parabola = Parabola(loss=loss)
    parabola.backbone.memory = {"batch_real": 256, "syn_steps": 50}
    with pytest.raises(type(problem)) as seen:
        learn(parabola.backbone, None, "row")
    advice = "lower sizes of the row's distill section (now: batch_real 256, syn_steps 50)"
    assert seen.value.__notes__ == [advice]


def test_other_errors_say_nothing_of_memory():
    def loss(iteration):
        raise RuntimeError("shapes do not match")

    parabola = Parabola(loss=loss)
    parabola.backbone.memory = {"batch_real": 256}
    with pytest.raises(RuntimeError, match="shapes") as seen:
        learn(parabola.backbone, None, "row")
    assert not getattr(seen.value, "__notes__", [])


def test_a_step_size_that_would_leave_its_range_stops_the_distillation():
    parabola = Parabola()
    parabola.step_size.lr = 100.0
    with pytest.raises(UserError, match=r"step_size would leave \(0, inf\)"):
        learn(parabola.backbone, None, "row")
    assert float(parabola.step_size.value) == 1.0, "no such value was ever kept"


def test_a_killed_distillation_resumes_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr(learn_module, "CHECKPOINT_SECONDS", -1)
    whole = Parabola(bad=(3, 20))
    expected = learn(whole.backbone, None, "row")

    def killed_at_11(iteration):
        if iteration == 11:
            raise KeyboardInterrupt
        return (killed.x.value - 3).square().sum()

    killed = Parabola(bad=(3, 20), loss=killed_at_11)
    state = tmp_path / "state.safetensors"
    curve = tmp_path / "curve.csv"
    with pytest.raises(KeyboardInterrupt):
        learn(killed.backbone, state, "row", curve)
    watched = pd.read_csv(curve)
    assert watched["loss"].tolist() == pytest.approx(expected.curve["loss"][:11], rel=1e-5)
    resumed = Parabola(bad=(3, 20))
    assert learn(resumed.backbone, state, "row") == expected
    assert torch.equal(resumed.images(), whole.images())
    assert torch.equal(resumed.step_size.value, whole.step_size.value)


# Gradients through unrolled SGD

STEPS = 4


class Tiny(NamedTuple):
    """A tiny smooth problem in float64: ReLU's kinks would spoil finite differences."""

    network: FlatNetwork
    images: Tensor
    labels: Tensor
    start: Tensor
    target: Tensor

    def outer(self, theta: Tensor) -> Tensor:
        return matching_loss(theta, self.start, self.target)

    def batches(self, images: Tensor, mask_ratio: float) -> unroll.Batch:
        """Masked and augmented batches of four images."""
        chunks = chunks_of(len(images), 4, STEPS, generator("rows"))

        def batch(step):
            rows = chunks[step].to(images.device)
            masked = mask_images(images[rows], mask_ratio, generator("mask", step))
            drawn = draw(generator("augment", step), len(masked))
            return augment(masked, drawn), self.labels[rows]

        return batch


@pytest.fixture
def tiny(device) -> Tiny:
    draws = generator("unroll")
    module = ConvNet(channels=2, size=8, classes=3, width=4, depth=1).double().to(device)
    module.features[2] = torch.nn.Softplus()
    network = FlatNetwork(module)
    images = torch.randn(6, 2, 8, 8, generator=draws, dtype=torch.float64)
    start = network.initial(draws).double()
    target = start + 0.1 * torch.randn(start.shape, generator=draws, dtype=torch.float64)
    labels = torch.arange(6) % 3
    return Tiny(network, images.to(device), labels.to(device), start.to(device), target.to(device))


def graph_of_all_steps(tiny: Tiny, batch: unroll.Batch, lr: Tensor, momentum: float) -> Tensor:
    """The outer loss in the plain way, with one graph through every step."""
    theta = tiny.start.clone().requires_grad_()
    velocity = torch.zeros_like(theta)
    for step in range(STEPS):
        images, labels = batch(step)
        loss = F.cross_entropy(tiny.network(theta, images), labels)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        velocity = momentum * velocity + gradient
        theta = theta - lr * velocity
    return tiny.outer(theta)


def unrolled(tiny: Tiny, images: Tensor, lr: Tensor, mask_ratio: float, momentum: float) -> Unrolled:
    leaf = images.detach().requires_grad_()
    batch = tiny.batches(leaf, mask_ratio)
    training = InnerTraining(tiny.start, batch, STEPS, lr, momentum)
    return unrolled_gradient(InnerLoss(tiny.network), training, [leaf], tiny.outer)


@pytest.mark.parametrize("mask_ratio", [0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_unrolled_gradient_equals_finite_differences(tiny, mask_ratio, momentum):
    images = tiny.images
    lr = torch.tensor(0.3, dtype=torch.float64, device=images.device)
    h = 1e-5

    def loss_at(images, lr):
        return unrolled(tiny, images, lr, mask_ratio, momentum).loss

    result = unrolled(tiny, images, lr, mask_ratio, momentum)
    draws = generator("direction")
    direction = torch.randn(images.shape, generator=draws, dtype=torch.float64).to(images.device)
    slope = (loss_at(images + h * direction, lr) - loss_at(images - h * direction, lr)) / (2 * h)
    lr_slope = (loss_at(images, lr + h) - loss_at(images, lr - h)) / (2 * h)
    assert float((result.gradients[0] * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert float(result.lr_gradient) == pytest.approx(float(lr_slope), rel=1e-6)


@pytest.mark.parametrize("mask_ratio", [0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_unrolled_gradient_equals_that_of_the_graph_of_all_steps(tiny, mask_ratio, momentum):
    lr = torch.tensor(0.3, dtype=torch.float64, device=tiny.images.device)
    result = unrolled(tiny, tiny.images, lr, mask_ratio, momentum)
    leaf = tiny.images.clone().requires_grad_()
    rate = lr.clone().requires_grad_()
    loss = graph_of_all_steps(tiny, tiny.batches(leaf, mask_ratio), rate, momentum)
    loss.backward()
    assert torch.allclose(result.loss, loss.detach())
    assert torch.allclose(result.gradients[0], leaf.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(result.lr_gradient, rate.grad)


def test_forward_over_reverse_gives_the_same_products(tiny):
    inner = InnerLoss(tiny.network)
    point = (tiny.start, tiny.images, tiny.labels, tiny.target)
    for ours, theirs in zip(inner.products(*point), inner._forward_over_reverse(*point)):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_what_is_handed_to_the_compiler_gives_the_same_numbers(tiny, monkeypatch):
    """The functions that would be compiled, without the compiler."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    eager = InnerLoss(tiny.network)
    compiled = InnerLoss(tiny.network, compiled=True)
    point = (tiny.start, tiny.images, tiny.labels)
    with torch.no_grad():
        assert torch.allclose(eager.gradient(*point), compiled.gradient(*point), rtol=1e-9, atol=1e-12)
        products = zip(eager.products(*point, tiny.target), compiled.products(*point, tiny.target))
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in products)
    assert not tiny.start.requires_grad


def test_parts_of_a_batch_make_the_whole(tiny, monkeypatch):
    """A CPU works through a batch in parts; their weighted sum is exact in float64, whatever their sizes."""
    inner = InnerLoss(tiny.network)
    point = (tiny.start, tiny.images, tiny.labels)

    def in_parts_of(size):
        monkeypatch.setattr(unroll, "part_size", lambda *_: size)
        leaf = tiny.start.clone().requires_grad_()
        loss = inner.whole_loss(leaf, tiny.images, tiny.labels)
        (loss_gradient,) = torch.autograd.grad(loss, leaf)
        gradient = inner.gradient(*point)
        products = inner.products(*point, tiny.target)
        return [loss.detach(), loss_gradient, gradient, *products]

    whole = in_parts_of(6)
    assert torch.allclose(whole[0], F.cross_entropy(tiny.network(tiny.start, tiny.images), tiny.labels))
    assert torch.allclose(whole[1], whole[2])
    for size in (4, 1):
        for ours, theirs in zip(in_parts_of(size), whole):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "count, image_bytes, size",
    [
        (256, 512 * 1024, 16),
        (100, 512 * 1024, 10),
        (10, 512 * 1024, 10),
        (125, 512 * 1024, 18),
        (7, 2**30, 1),
    ],
)
def test_parts_fit_the_cache_and_are_of_equal_size_where_they_can_be(count, image_bytes, size, monkeypatch):
    monkeypatch.setattr("stages.machine.engine.room_of_process", lambda device: float("inf"))
    assert part_size(count, image_bytes, torch.device("cpu")) == size
    assert part_size(count, image_bytes, torch.device("cuda")) == count
