"""Training: the losses, networks that do not depend on those beside them, and resumption after a kill."""

import shutil
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.buffer import Experts
from stages.images.distilled import DistilledSet
from stages.images.prepared import NormalisedImages, Transform
from stages.losses import cross_entropy, focal, focal_detached, label_smoothing, mixup
from stages.networks.convnet import ConvNet
from stages.runtime.randomness import generator
from stages.settings.train import OwnTraining, TrainKeys, TrainSettings
from stages.training import gradients, loop, snapshots
from stages.training.flat import FlatNetwork
from stages.training.groups import schedule_of
from stages.training.loop import Examples, Schedule, train
from stages.training.objective import Loss, Objective
from stages.training.snapshots import delete_checkpoint

SETTINGS = TrainSettings(
    repeats=2,
    losses=["cross_entropy"],
    batch=8,
    momentum=0.9,
    weight_decay=5e-4,
    holdout=0.1,
    mixup_alpha=1.0,
    label_smoothing=0.1,
    focal_gamma=1.0,
    drop=True,
    mixup_first=False,
    precision="float32",
)
SCHEDULE = Schedule(epochs=6, lr=0.05, batch=8, momentum=0.9, weight_decay=5e-4, drop=True)
WITH_SNAPSHOTS = SCHEDULE._replace(keep_snapshots=True)
CROSS_ENTROPY = Loss(cross_entropy)
FOCAL = Loss(focal, SETTINGS)
MIXUP = Loss(mixup, SETTINGS)


@pytest.fixture
def network(device) -> FlatNetwork:
    return FlatNetwork(ConvNet(1, 8, 4, 8, 2).to(device))


@pytest.fixture
def data(device) -> Examples:
    images = torch.randn(20, 1, 8, 8, generator=generator("data"))
    targets = F.one_hot(torch.arange(20) % 4, 4).float()
    return Examples(images.to(device), targets.to(device))


# Networks


def test_initial_weights_follow_pytorch():
    """They have the range and the spread of PyTorch's own layers, and all of them are set."""
    torch.manual_seed(0)
    module = ConvNet(3, 32, 10, 32, 3)
    network = FlatNetwork(module)
    ours = network.split(network.initial(generator(0)))
    parameters = dict(module.named_parameters())
    assert list(ours) == list(parameters)
    for name, parameter in parameters.items():
        theirs = parameter.detach()
        if theirs.numel() > 500:
            assert ours[name].std() == pytest.approx(float(theirs.std()), rel=0.1)
            assert float(ours[name].abs().max()) <= float(theirs.abs().max()) * 1.05
    assert not torch.equal(network.initial(generator(0)), network.initial(generator(1)))


def test_operations_are_counted():
    network = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)))
    assert network.operations(torch.zeros(1, 3, 2, 2)) == 2 * 12 * 5


# The loop


@pytest.mark.parametrize("module", [cross_entropy, mixup, label_smoothing, focal, focal_detached])
def test_many_networks_at_once_equal_one_at_a_time(network, data, module):
    loss = Loss(module, SETTINGS)
    keys = [(0, "test", i) for i in range(3)]
    together = train(network, loss, data, WITH_SNAPSHOTS, keys)
    for i, key in enumerate(keys):
        alone = train(network, loss, data, WITH_SNAPSHOTS, [key])
        assert torch.allclose(together.snapshots[i], alone.snapshots[0], rtol=1e-3, atol=1e-4)
        assert torch.allclose(together.losses[i], alone.losses[0], rtol=1e-3)
    assert not torch.allclose(together.theta[0], together.theta[1], atol=1e-2)


def test_each_network_may_have_images_of_its_own(network, data):
    rows = [torch.arange(12), torch.arange(8, 20)]
    together = train(network, CROSS_ENTROPY, data._replace(rows=rows), SCHEDULE, [(0, 0), (0, 1)])
    last = Examples(data.images[8:], data.targets[8:])
    alone = train(network, CROSS_ENTROPY, last, SCHEDULE, [(0, 1)])
    assert torch.allclose(together.theta[1], alone.theta[0], rtol=1e-3, atol=1e-4)


def test_images_normalised_by_batch_train_the_same_network(network, data, device):
    """uint8 images that are normalised as they are taken out, against all of them normalised at once."""
    draws = generator("pixels")
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=draws).to(device)
    transform = Transform(
        mean=torch.tensor([0.4]).to(device),
        matrix=torch.tensor([4.0]).to(device),
        inverse=torch.tensor([0.25]).to(device),
    )
    lazy = NormalisedImages(pixels, transform)
    whole = (pixels / 255 - 0.4) * 4
    first_class = data.targets[:, 0] > 0
    assert torch.equal(lazy[:], whole)
    assert torch.equal(torch.cat(list(lazy.split(7))), whole)
    assert torch.equal(lazy[first_class], whole[first_class])
    by_batch = train(network, CROSS_ENTROPY, data._replace(images=lazy), SCHEDULE, [(0, 0)])
    at_once = train(network, CROSS_ENTROPY, data._replace(images=whole), SCHEDULE, [(0, 0)])
    assert torch.equal(by_batch.theta, at_once.theta)


@pytest.mark.parametrize("keys", [[(0, 0)], [(0, 0), (0, 1)]])
def test_compiled_functions_train_the_same_networks(network, data, keys, monkeypatch):
    """The functions that the compiler is given, without it; they are compiled once for equal losses."""
    eager = train(network, FOCAL, data, SCHEDULE, keys)
    given = []

    def leave_uncompiled(function, **options):
        given.append(function)
        return function

    monkeypatch.setattr(torch, "compile", leave_uncompiled)
    monkeypatch.setattr(gradients, "worth_compiling", lambda operations, device: True)
    compiled = train(network, FOCAL, data, SCHEDULE, keys)
    assert torch.allclose(compiled.theta, eager.theta, rtol=1e-3, atol=1e-4)
    assert torch.allclose(compiled.losses, eager.losses, rtol=1e-3)

    equal_loss = Loss(focal, SETTINGS.model_copy())
    train(network, equal_loss, data, SCHEDULE, keys)
    assert len(given) == 1
    other_loss = Loss(focal, SETTINGS.model_copy(update={"focal_gamma": 2.0}))
    train(network, other_loss, data, SCHEDULE, keys)
    train(network, other_loss, data, SCHEDULE._replace(precision="bfloat16"), keys)
    assert len(given) == 3


@pytest.mark.parametrize("part", [3, 1])
def test_a_batch_in_parts_trains_the_same_network(network, data, part, monkeypatch):
    whole = train(network, FOCAL, data, SCHEDULE, [(0, 0)])
    monkeypatch.setattr(gradients, "part_size", lambda *of_batch: part)
    in_parts = train(network, FOCAL, data, SCHEDULE, [(0, 0)])
    assert torch.allclose(in_parts.theta, whole.theta, rtol=1e-3, atol=1e-4)
    assert torch.allclose(in_parts.losses, whole.losses, rtol=1e-4)
    assert torch.allclose(in_parts.accuracies, whole.accuracies)


def test_the_loop_is_sgd_as_pytorch_has_it(network, data, monkeypatch):
    """As torch.optim.SGD, and as a new one with a tenth of the step size in the last epochs."""
    monkeypatch.setattr(loop, "augment_each", lambda images, draws: images)
    key = (3, "sgd")
    theta = network.initial(generator(*key, "initial")).to(data.images.device).requires_grad_()
    for epoch in range(SCHEDULE.epochs):
        if epoch == 0:
            optimiser = torch.optim.SGD([theta], lr=0.05, momentum=0.9, weight_decay=5e-4)
        if epoch == SCHEDULE.epochs // 2 + 2:
            optimiser = torch.optim.SGD([theta], lr=0.005, momentum=0.9, weight_decay=5e-4)
        draws = generator(*key, epoch)
        for rows in torch.randperm(20, generator=draws).split(8):
            loop.draw(draws, len(rows))
            optimiser.zero_grad()
            F.cross_entropy(network(theta, data.images[rows]), data.targets[rows]).backward()
            optimiser.step()
    ours = train(network, CROSS_ENTROPY, data, SCHEDULE, [key]).theta[0]
    assert torch.allclose(ours, theta.detach(), rtol=1e-4, atol=1e-5)


def test_the_step_size_falls_after_the_middle():
    assert [SCHEDULE.lr_at(epoch) for epoch in range(6)] == pytest.approx([0.05] * 5 + [0.005])
    constant = SCHEDULE._replace(drop=False)
    assert [constant.lr_at(epoch) for epoch in range(6)] == [0.05] * 6
    assert constant.first_slow_epoch is None


@pytest.mark.parametrize("epochs, slow", [(6, 5), (10, 7), (300, 152), (1000, 502)])
def test_the_step_size_falls_where_it_does_in_the_public_code(epochs, slow):
    """After the epoch with the number `Epoch // 2 + 1`: `evaluate_synset` of VICO-UoE/DatasetCondensation."""
    assert SCHEDULE._replace(epochs=epochs).first_slow_epoch == slow


def test_a_killed_training_resumes_to_the_same_end(network, data, tmp_path, monkeypatch):
    whole = train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)])
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    calls = []
    mix = mixup.mix

    def killed_in_the_fourth_epoch(*arguments):
        calls.append(arguments)
        if len(calls) == 10:  # an epoch has three batches
            raise KeyboardInterrupt
        return mix(*arguments)

    monkeypatch.setattr(mixup, "mix", killed_in_the_fourth_epoch)
    checkpoint = tmp_path / "part.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)], checkpoint)
    assert checkpoint.exists()
    resumed = train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)], checkpoint)
    assert len(calls) == 10 + 3 * 3, "three epochs were left"
    for ours, theirs in zip(resumed, whole):
        assert torch.equal(ours, theirs)


class Clock:
    """In place of the module `time`: 16 seconds pass whenever it is asked, so every second epoch is saved."""

    def __init__(self):
        self.now = 0

    def monotonic(self) -> int:
        self.now += 16
        return self.now


def kill_at_a_save(patch, moment: str, number: int) -> None:
    """End a training as ctrl-C does at one of its saves: before, between or after the save's two files."""
    write_snapshots, write_state = loop.write_snapshots, loop.write_tensors
    begun = []

    def end(at: str) -> None:
        if (at, number) == (moment, len(begun)):
            raise KeyboardInterrupt

    def write_snapshots_or_end(*arguments) -> dict[str, str]:
        begun.append(arguments)
        end("before")
        files = write_snapshots(*arguments)
        end("between")
        return files

    def write_state_and_end(*arguments) -> None:
        write_state(*arguments)
        end("after")

    patch.setattr(loop, "write_snapshots", write_snapshots_or_end)
    patch.setattr(loop, "write_tensors", write_state_and_end)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_training_that_is_killed_while_it_saves_resumes_to_the_same_end(
    moment, number, network, data, tmp_path, monkeypatch
):
    """It is killed twice, and the later runs save after other epochs than the first."""
    keys = [(0, 0), (0, 1)]
    whole = train(network, MIXUP, data, WITH_SNAPSHOTS, keys)
    checkpoint = tmp_path / "part-0-2.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "time", Clock())
        kill_at_a_save(patch, moment, number)
        train(network, MIXUP, data, WITH_SNAPSHOTS, keys, checkpoint)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):  # if there is anything left to save
        kill_at_a_save(patch, moment, 1)
        train(network, MIXUP, data, WITH_SNAPSHOTS, keys, checkpoint)
    resumed = train(network, MIXUP, data, WITH_SNAPSHOTS, keys, checkpoint)
    for ours, theirs in zip(resumed, whole, strict=True):
        assert torch.equal(ours, theirs)
    delete_checkpoint(checkpoint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("problem", ["is missing", "is damaged", "is of another attempt"])
def test_snapshots_that_are_not_those_of_the_checkpoint_are_made_again(
    problem, network, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    name, damaged = "part-0-1.safetensors", "part-0-1.snapshots-3.safetensors"
    other = tmp_path / "other"
    whole = train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)], tmp_path / name)
    train(network, MIXUP, data, WITH_SNAPSHOTS, [(1, 0)], other / name)
    file = tmp_path / damaged
    if problem == "is missing":
        file.unlink()
    elif problem == "is damaged":
        contents = bytearray(file.read_bytes())
        contents[-1] ^= 1
        file.write_bytes(contents)
    else:
        shutil.copy(other / damaged, file)
    again = train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)], tmp_path / name)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file} {problem}")
    for ours, theirs in zip(again, whole, strict=True):
        assert torch.equal(ours, theirs)
    resumed = train(network, MIXUP, data, WITH_SNAPSHOTS, [(0, 0)], tmp_path / name)
    assert torch.equal(resumed.snapshots, whole.snapshots)
    assert not capsys.readouterr().err


def test_a_save_writes_what_is_new_alone(network, data, tmp_path, monkeypatch):
    """Weights, velocity and one snapshot, however many there are."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    write, save = snapshots.write_tensors, loop.State.save
    written: list[int] = []

    def count(file, *others) -> None:
        write(file, *others)
        written[-1] += file.stat().st_size

    def save_and_count(state, *arguments) -> None:
        written.append(0)
        save(state, *arguments)

    monkeypatch.setattr(snapshots, "write_tensors", count)
    monkeypatch.setattr(loop, "write_tensors", count)
    monkeypatch.setattr(loop.State, "save", save_and_count)
    schedule = WITH_SNAPSHOTS._replace(epochs=12)
    trained = train(network, MIXUP, data, schedule, [(0, 0)], tmp_path / "part-0-1.safetensors")
    one = trained.snapshots[0, 0].nbytes
    assert len(written) == 12
    assert all(3 * one < count < 4 * one for count in written[1:]), (written, one)


def test_experts_leave_their_results_alone(network, data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    Experts(network, data, WITH_SNAPSHOTS, 0, tmp_path).run([0, 1])
    assert {file.name for file in tmp_path.iterdir()} == {f"expert-000{i}.safetensors" for i in (0, 1)}


def test_networks_that_go_on_in_halves_keep_what_they_have_learned(network, data, tmp_path, monkeypatch):
    """A GPU may have too little memory for as many networks as it had before."""
    keys = [(0, repeat) for repeat in range(4)]
    whole = train(network, MIXUP, data, WITH_SNAPSHOTS, keys)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    batches = loop.batches
    begun = []

    def killed_in_the_fourth_epoch(*arguments):
        begun.append(arguments)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return batches(*arguments)

    monkeypatch.setattr(loop, "batches", killed_in_the_fourth_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(network, MIXUP, data, WITH_SNAPSHOTS, keys, tmp_path / "part-mixup-0-4.safetensors")
    shutil.copy(tmp_path / "part-mixup-0-4.safetensors", tmp_path / "part-mixup-b-0-4.safetensors")
    for first in (0, 2):
        begun.clear()
        begun.extend([None] * 4)
        half = keys[first : first + 2]
        checkpoint = tmp_path / f"part-mixup-{first}-2.safetensors"
        resumed = train(network, MIXUP, data, WITH_SNAPSHOTS, half, checkpoint)
        assert len(begun) == 4 + 3, "three epochs were left"
        assert torch.allclose(resumed.theta, whole.theta[first : first + 2], atol=1e-6)
        assert resumed.snapshots.shape == whole.snapshots[first : first + 2].shape
        assert torch.allclose(resumed.snapshots, whole.snapshots[first : first + 2], atol=1e-6)
        made = {file.name for file in tmp_path.glob(f"part-mixup-{first}-2.snapshots-*")}
        assert made == {f"part-mixup-{first}-2.snapshots-{number}.safetensors" for number in (0, 5, 6)}
    other = loop.saved_state(tmp_path / "part-focal-0-2.safetensors", keys[:2], torch.device("cpu"))
    assert other is None, "networks with another loss have the same keys"


@pytest.mark.parametrize("mix_first", [False, True])
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, MIXUP])
def test_networks_see_the_same_batches_beside_others_as_alone(loss, mix_first, data):
    schedule = SCHEDULE._replace(mix_first=mix_first)
    keys = [("batches", network) for network in range(7)]
    together = list(loop.batches(data, loss, schedule, [generator(*key) for key in keys]))
    assert [images.shape[1] for images, _ in together] == [8, 8, 4]
    for network, key in enumerate(keys):
        alone = loop.batches(data, loss, schedule, [generator(*key)])
        for (images, targets), (own_images, own_targets) in zip(together, alone, strict=True):
            assert torch.equal(images[network], own_images[0])
            assert torch.equal(targets[network], own_targets[0])


# Networks side by side


def weights_and_batch(networks: int, network: FlatNetwork, size: int, soft: bool) -> list[torch.Tensor]:
    """In float64: weights `(S, P)`, images `(S, 6, 2, size, size)` and targets `(S, 6, 4)`."""
    draws = generator("side by side")
    theta = torch.stack([network.initial(draws) for _ in range(networks)])
    theta = theta + 0.1 * torch.randn(
        theta.shape, generator=draws
    )  # norms too differ from network to network
    images = torch.randn(networks, 6, 2, size, size, generator=draws)
    targets = torch.randn(networks, 6, 4, generator=draws).softmax(-1)
    if not soft:
        targets = F.one_hot(targets.argmax(-1), 4)
    return [values.double() for values in (theta, images, targets)]


@pytest.mark.parametrize("module", [cross_entropy, mixup, label_smoothing, focal, focal_detached])
@pytest.mark.parametrize("depth, size", [(1, 8), (2, 7), (3, 8), (3, 9)])
@pytest.mark.parametrize("networks", [1, 2, 5])
def test_gradients_side_by_side_are_those_of_each_network_alone(networks, depth, size, module):
    network = FlatNetwork(ConvNet(2, size, 4, 6, depth).double())
    loss = Loss(module, SETTINGS)
    theta, images, targets = weights_and_batch(networks, network, size, soft=not loss.needs_classes)
    objective = Objective(network, loss)
    ours = gradients.side_by_side_gradients(objective)(theta, images, targets)
    by_vmap = gradients.stacked_gradients(objective)(theta, images, targets)
    alone = gradients.alone_gradients(objective)
    by_one = [alone(theta[[i]], images[[i]], targets[[i]]) for i in range(networks)]
    for value, of_vmap, one_by_one in zip(ours, by_vmap, zip(*by_one)):
        assert torch.allclose(value, of_vmap, rtol=1e-9, atol=1e-12)
        assert torch.allclose(value, torch.cat(one_by_one), rtol=1e-9, atol=1e-12)
        assert not value.requires_grad
    assert float(ours[0].norm(dim=1).min()) > 1e-3


def test_networks_side_by_side_are_rounded_as_those_of_vmap():
    network = FlatNetwork(ConvNet(2, 8, 4, 6, 2))
    batch = [values.float() for values in weights_and_batch(3, network, 8, soft=True)]
    rounded = Objective(network, CROSS_ENTROPY, "bfloat16")
    ours, *_ = gradients.side_by_side_gradients(rounded)(*batch)
    by_vmap, *_ = gradients.stacked_gradients(rounded)(*batch)
    exact, *_ = gradients.stacked_gradients(Objective(network, CROSS_ENTROPY))(*batch)
    error = float((by_vmap - exact).norm() / exact.norm())
    assert error > 1e-3
    assert ours.dtype == torch.float32
    assert 0.5 * error < float((ours - exact).norm() / exact.norm()) < 2 * error


def test_the_compiler_takes_networks_side_by_side_as_one_function(monkeypatch):
    network = FlatNetwork(ConvNet(2, 8, 4, 6, 2))
    batch = [values.float() for values in weights_and_batch(3, network, 8, soft=True)]
    objective = Objective(network, CROSS_ENTROPY)
    eager = gradients.side_by_side_gradients(objective)(*batch)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    compiled = gradients.side_by_side_gradients(objective, compiled=True)(*batch)
    for value, other in zip(compiled, eager):
        assert torch.allclose(value, other, rtol=1e-4, atol=1e-6)


def test_only_convnets_on_cuda_are_trained_side_by_side():
    convnet = FlatNetwork(ConvNet(1, 8, 4, 8, 2))
    other = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    cpu, cuda = torch.device("cpu"), torch.device("cuda:1")
    assert gradients.choose_way(convnet, 2, cuda) is gradients.side_by_side_gradients
    assert gradients.choose_way(convnet, 2, cpu) is gradients.stacked_gradients
    assert gradients.choose_way(other, 2, cuda) is gradients.stacked_gradients
    for device in (cpu, cuda):
        assert gradients.choose_way(convnet, 1, device) is gradients.alone_gradients


# Losses


def test_cross_entropy_and_label_smoothing_are_pytorchs():
    logits = torch.randn(7, 5, generator=generator(0))
    labels = torch.arange(7) % 5
    targets = F.one_hot(labels, 5).float()
    assert torch.allclose(cross_entropy.loss(logits, targets, SETTINGS), F.cross_entropy(logits, labels))
    _, smooth = label_smoothing.mix(logits, targets, {}, SETTINGS)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.allclose(label_smoothing.loss(logits, smooth, SETTINGS), expected)


def test_focal_loss():
    p = 0.3
    targets = torch.tensor([[0.0, 1.0]])
    logits = torch.log(torch.tensor([[1 - p, p]]))
    assert float(focal.loss(logits, targets, SETTINGS)) == pytest.approx(-(1 - p) * np.log(p), rel=1e-5)
    unweighted = SETTINGS.model_copy(update={"focal_gamma": 0.0})
    assert torch.allclose(focal.loss(logits, targets, unweighted), F.cross_entropy(logits, targets))


def test_mixup_is_the_two_label_loss():
    """Soft targets give lambda CE(y) + (1 - lambda) CE(y'), as in the public code.

    For alpha = 1 lambda is uniform.
    """
    images = torch.randn(50, 1, 2, 2, generator=generator(0))
    targets = torch.eye(50)
    logits = torch.randn(50, 50, generator=generator(1))
    labels = torch.arange(50)
    shares = []
    for i in range(400):
        drawn = mixup.draw(len(images), generator("lambda", i), SETTINGS)
        mixed, soft = mixup.mix(images, targets, drawn, SETTINGS)
        expected = (soft @ images.flatten(1)).view(mixed.shape)
        assert torch.allclose(mixed, expected, atol=1e-5), "images mix as their labels do"
        if soft.diagonal().max() == 1:  # an image was mixed with itself
            continue
        share = soft[0, 0]
        partners = (soft - soft.diagonal().diag()).argmax(1)
        own_loss = F.cross_entropy(logits, labels)
        partners_loss = F.cross_entropy(logits, partners)
        by_hand = share * own_loss + (1 - share) * partners_loss
        assert torch.allclose(mixup.loss(logits, soft, SETTINGS), by_hand, atol=1e-5)
        shares.append(float(share))
    assert len(shares) > 50
    assert abs(np.mean(shares) - 0.5) < 4 * np.sqrt(1 / 12 / len(shares))
    assert abs(np.var(shares) - 1 / 12) < 0.02


def test_the_shares_of_mixup_follow_the_beta_distribution():
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1))."""
    settings = SETTINGS.model_copy(update={"mixup_alpha": 0.4})
    shares = [float(mixup.draw(2, generator("beta", i), settings)["shares"][0]) for i in range(2000)]
    variance = 1 / (4 * 1.8)
    assert abs(np.mean(shares) - 0.5) < 4 * np.sqrt(variance / 2000)
    assert np.var(shares) == pytest.approx(variance, rel=0.1)


def test_every_key_of_training_reaches_the_schedule():
    settings = SETTINGS.model_copy(
        update={"weight_decay": 0.25, "mixup_first": True, "precision": "bfloat16"}
    )
    keys = TrainKeys(epochs=7, lr=0.3, augment=False, train=OwnTraining(momentum=0.5))
    ours = schedule_of(keys, settings, DistilledSet(None, None, None, None), "row")
    expected = {"epochs": 7, "lr": 0.3, "batch": 8, "momentum": 0.5, "weight_decay": 0.25, "augment": False}
    assert ours == Schedule(**expected, drop=True, mix_first=True, precision="bfloat16")
