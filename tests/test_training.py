"""The training loop: losses in closed form, independence of what runs beside, resumption after a kill."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.losses import cross_entropy, focal, label_smoothing, mixup
from stages.shared import training
from stages.shared.convnet import ConvNet
from stages.shared.engine import run_units
from stages.shared.flat import FlatNetwork
from stages.shared.images import NormalisedImages, Transform
from stages.shared.randomness import generator
from stages.shared.training import Schedule, train

SETTINGS = SimpleNamespace(mixup_alpha=1.0, label_smoothing=0.1, focal_gamma=1.0)
SCHEDULE = Schedule(epochs=6, lr=0.05, batch=8, momentum=0.9, weight_decay=5e-4, drop=True)


@pytest.fixture
def data(device):
    images = torch.randn(20, 1, 8, 8, generator=generator("data")).to(device)
    return FlatNetwork(ConvNet(1, 8, 4, 8, 2).to(device)), images, F.one_hot(torch.arange(20) % 4, 4).float().to(device)


@pytest.mark.parametrize("loss", [cross_entropy, mixup, label_smoothing, focal])
def test_many_at_once_equal_one_at_a_time(data, loss):
    network, images, targets = data
    keys = [(0, "test", i) for i in range(3)]
    together = train(network, loss, SETTINGS, images, targets, SCHEDULE, keys, keep_snapshots=True)
    for i, key in enumerate(keys):
        alone = train(network, loss, SETTINGS, images, targets, SCHEDULE, [key], keep_snapshots=True)
        assert torch.allclose(together.snapshots[i], alone.snapshots[0], rtol=1e-3, atol=1e-4)
        assert torch.allclose(together.losses[i], alone.losses[0], rtol=1e-3)
    assert not torch.allclose(together.theta[0], together.theta[1], atol=1e-2)


def test_networks_may_train_on_some_of_the_images(data):
    network, images, targets = data
    rows = [torch.arange(12), torch.arange(8, 20)]
    together = train(network, cross_entropy, None, images, targets, SCHEDULE, [(0, 0), (0, 1)], rows=rows)
    alone = train(network, cross_entropy, None, images[8:], targets[8:], SCHEDULE, [(0, 1)])
    assert torch.allclose(together.theta[1], alone.theta[0], rtol=1e-3, atol=1e-4)


def test_images_normalised_by_batch_train_the_same_network(data):
    """uint8 images that are normalised as they are taken out, against all of them normalised at once."""
    network, _, targets = data
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=generator("pixels")).to(targets.device)
    lazy = NormalisedImages(pixels, Transform(*(torch.tensor([value]).to(targets.device) for value in (0.4, 4.0, 0.25))))
    whole = (pixels / 255 - 0.4) * 4
    assert torch.equal(lazy[:], whole) and torch.equal(torch.cat(list(lazy.split(7))), whole) and torch.equal(lazy[targets[:, 0] > 0], whole[targets[:, 0] > 0])
    by_batch, at_once = (train(network, cross_entropy, None, images, targets, SCHEDULE, [(0, 0)]) for images in (lazy, whole))
    assert torch.equal(by_batch.theta, at_once.theta)


def test_what_is_compiled_trains_the_same_networks(data, monkeypatch):
    """The functions that are handed to the compiler, without it, for one network and for two."""
    network, images, targets = data
    handed = []
    for keys in ([(0, 0)], [(0, 0), (0, 1)]):
        eager = train(network, focal, SETTINGS, images, targets, SCHEDULE, keys)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "compile", lambda function, **_: handed.append(function) or function)
            patch.setattr(training, "worth_compiling", lambda *_: True)
            compiled = train(network, focal, SETTINGS, images, targets, SCHEDULE, keys)
        assert torch.allclose(compiled.theta, eager.theta, rtol=1e-3, atol=1e-4) and torch.allclose(compiled.losses, eager.losses, rtol=1e-3)
    assert len(handed) == 2


def test_a_batch_in_parts_trains_the_same_network(data, monkeypatch):
    network, images, targets = data
    whole = train(network, focal, SETTINGS, images, targets, SCHEDULE, [(0, 0)])
    for part in (3, 1):
        monkeypatch.setattr(training, "part_size", lambda *_: part)
        in_parts = train(network, focal, SETTINGS, images, targets, SCHEDULE, [(0, 0)])
        assert torch.allclose(in_parts.theta, whole.theta, rtol=1e-3, atol=1e-4)
        assert torch.allclose(in_parts.losses, whole.losses, rtol=1e-4) and torch.allclose(in_parts.accuracies, whole.accuracies)


def test_the_loop_is_sgd_as_pytorch_has_it(data, monkeypatch):
    """torch.optim.SGD with its momentum and weight decay, and a fresh one at a tenth of the rate for the last epochs."""
    monkeypatch.setattr(training, "augment", lambda images, drawn: images)
    network, images, targets = data
    key, theta = (3, "sgd"), network.initial(generator(3, "sgd", "initial")).to(images.device).requires_grad_()
    for epoch in range(SCHEDULE.epochs):
        if epoch in (0, SCHEDULE.epochs // 2 + 2):
            lr = SCHEDULE.lr * (1 if epoch == 0 else 0.1)
            optimiser = torch.optim.SGD([theta], lr=lr, momentum=0.9, weight_decay=5e-4)
        draws = generator(*key, epoch)
        for rows in torch.randperm(20, generator=draws).split(8):
            training.draw(draws, len(rows))
            optimiser.zero_grad()
            F.cross_entropy(network(theta, images[rows]), targets[rows]).backward()
            optimiser.step()
    ours = train(network, cross_entropy, None, images, targets, SCHEDULE, [key]).theta[0]
    assert torch.allclose(ours, theta.detach(), rtol=1e-4, atol=1e-5)


def test_a_killed_run_resumes_to_the_same_end(data, tmp_path, monkeypatch):
    network, images, targets = data
    whole = train(network, mixup, SETTINGS, images, targets, SCHEDULE, [(0, 0)], keep_snapshots=True)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    calls, mix = [], mixup.mix

    def killed(*arguments):
        calls.append(0)
        if len(calls) == 10:  # in the fourth epoch of three batches
            raise KeyboardInterrupt
        return mix(*arguments)

    monkeypatch.setattr(mixup, "mix", killed)
    part = tmp_path / "part.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(network, mixup, SETTINGS, images, targets, SCHEDULE, [(0, 0)], True, part)
    assert part.exists()
    resumed = train(network, mixup, SETTINGS, images, targets, SCHEDULE, [(0, 0)], True, part)
    assert len(calls) == 10 + 3 * 3, "three epochs were left"
    for ours, theirs in zip(resumed, whole):
        assert torch.equal(ours, theirs)


def test_cross_entropy_and_label_smoothing_are_pytorchs():
    logits, labels = torch.randn(7, 5, generator=generator(0)), torch.arange(7) % 5
    targets = F.one_hot(labels, 5).float()
    assert torch.allclose(cross_entropy.loss(logits, targets, SETTINGS), F.cross_entropy(logits, labels))
    _, smooth = label_smoothing.mix(logits, targets, None, SETTINGS)
    assert torch.allclose(label_smoothing.loss(logits, smooth, SETTINGS), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_focal_loss():
    targets = torch.tensor([[0.0, 1.0]])
    p = 0.3
    logits = torch.log(torch.tensor([[1 - p, p]]))
    assert float(focal.loss(logits, targets, SETTINGS)) == pytest.approx(-(1 - p) * np.log(p), rel=1e-5)
    plain = SimpleNamespace(focal_gamma=0.0)
    assert torch.allclose(focal.loss(logits, targets, plain), F.cross_entropy(logits, targets))


def test_mixup_is_the_two_label_loss():
    """Soft targets give lambda CE(y) + (1 - lambda) CE(y'), as in the public code; for alpha 1 lambda is uniform."""
    images, targets, shares = torch.randn(50, 1, 2, 2, generator=generator(0)), torch.eye(50), []
    logits = torch.randn(50, 50, generator=generator(1))
    for i in range(400):
        mixed, soft = mixup.mix(images, targets, generator("lambda", i), SETTINGS)
        assert torch.allclose(mixed, (soft @ images.flatten(1)).view(mixed.shape), atol=1e-5), "images mix as their labels do"
        if soft.diagonal().max() < 1:  # no image met itself
            share, other = soft[0, 0], (soft - soft.diagonal().diag()).argmax(1)
            by_hand = share * F.cross_entropy(logits, torch.arange(50)) + (1 - share) * F.cross_entropy(logits, other)
            assert torch.allclose(mixup.loss(logits, soft, SETTINGS), by_hand, atol=1e-5)
            shares.append(float(share))
    assert len(shares) > 50
    assert abs(np.mean(shares) - 0.5) < 4 * np.sqrt(1 / 12 / len(shares)) and abs(np.var(shares) - 1 / 12) < 0.02


def test_a_full_gpu_is_given_half_as_many_networks(capsys):
    """Without one: what is handed on is a list of numbers, and what runs it says that memory has run out."""
    tried, done = [], []

    def run(units):
        tried.append(len(units))
        if len(units) > 3:
            raise torch.OutOfMemoryError
        done.extend(units)

    run_units(run, range(10), 0, torch.device("cuda"), "test")
    assert done == list(range(10)) and tried == [10, 5, 3, 3, 3, 1]
    assert "out of GPU memory: going on with 3 networks at once" in capsys.readouterr().err

    def never(units):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run_units(never, range(2), 0, torch.device("cuda"), "test")
