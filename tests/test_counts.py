"""What the CPU makes a GPU do: kernels, copies to it and waits for it. Tensors pretend to be there."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from project import PARAMS

from stages.backbones import dc, dsa, mtt, rtp
from stages.distillation.backbone import Problem
from stages.distillation.learn import learn
from stages.images.prepared import LabelledImages
from stages.losses import cross_entropy, label_smoothing, mixup
from stages.machine.transfer import send
from stages.networks.convnet import ConvNet
from stages.runtime.files import write_tensors
from stages.runtime.randomness import generator
from stages.settings.train import TrainSettings
from stages.training.flat import FlatNetwork
from stages.training.gradients import side_by_side_gradients, stacked_gradients
from stages.training.loop import Schedule, examples, train
from stages.training.objective import Loss, Objective

CUDA = torch.device("cuda")
CLASSES = 3
COPIES, WAITS = "copies to the device", "waits"
SETTINGS = TrainSettings(**PARAMS["train"])
LOSSES = {"cross_entropy": cross_entropy, "label_smoothing": label_smoothing, "mixup": mixup}
MTT = {
    "expert_epochs": 1,
    "max_start_epoch": 1,
    "lr_img": 1.0,
    "lr_lr": 1e-6,
    "lr_teacher": 0.01,
    "batch_syn": 4,
}
LOOPS = {"outer_loops": 2, "lr_img": 0.01, "batch_real": 6, "batch_train": 3}


def data(images: int) -> LabelledImages:
    labels = torch.arange(images) % CLASSES
    return LabelledImages(torch.randn(images, 2, 8, 8, generator=generator("real")), labels, CLASSES)


def network() -> FlatNetwork:
    return FlatNetwork(ConvNet(channels=2, size=8, classes=CLASSES, width=4, depth=1))


def difference(pretend: ModuleType, work: Callable[[int], None], few: int, many: int) -> Counter:
    """What `many` units of work take more than `few`: the start and the end of the work cancel out."""
    counts = []
    for number in (few, many):
        with pretend.pretend_cuda() as seen:
            work(number)
            counts.append(Counter(seen))
    return counts[1] - counts[0]


def test_tensors_of_a_dtype_travel_in_one_copy(pretend):
    values = [
        {"a": torch.arange(6).view(2, 3), "b": (torch.rand(4), "text", None)},
        torch.arange(3),
        torch.ones(()),
    ]
    with pretend.pretend_cuda() as seen:
        (first, rows, one) = send(values, CUDA)
        assert seen[COPIES] == 2
        assert seen[WAITS] == 0
        assert {tensor.device.type for tensor in (first["a"], first["b"][0], rows, one)} == {"cuda"}
        assert first["b"][1:] == ("text", None)
        assert torch.equal(first["a"].cpu(), values[0]["a"])
        assert torch.equal(first["b"][0].cpu(), values[0]["b"][0])
        assert torch.equal(rows.cpu(), values[1])
        assert torch.equal(one.cpu(), values[2])
    assert send(values, torch.device("cpu")) is values


# Experts and networks


def epoch(pretend: ModuleType, networks: int, images: int, loss: str = "cross_entropy") -> Counter:
    """What the second epoch takes."""

    def work(epochs: int) -> None:
        schedule = Schedule(epochs=epochs, lr=0.01, batch=8, keep_snapshots=True)
        keys = [(0, number) for number in range(networks)]
        own = Loss(LOSSES[loss], SETTINGS)
        train(network().to(CUDA), own, examples(data(images), CUDA), schedule, keys)

    return difference(pretend, work, 1, 2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("networks", [1, 5])
def test_an_epoch_waits_for_nothing_and_copies_no_more_than_ten_times(pretend, networks, loss):
    seen = epoch(pretend, networks, 80, loss)
    assert seen["kernels"] > 100
    assert seen[WAITS] == 0
    assert seen[COPIES] <= 10


@pytest.mark.parametrize("loss", ["cross_entropy", "mixup"])
def test_kernels_of_a_step_do_not_grow_with_the_networks(pretend, loss):
    """Networks may draw different operations: at most all six are done, and each takes a few kernels."""
    steps = 20
    kernels = {networks: epoch(pretend, networks, 8 * steps, loss)["kernels"] for networks in (8, 24, 48)}
    assert kernels[48] - kernels[24] < 0.1 * kernels[24]
    assert kernels[24] - kernels[8] < 40 * steps


def gradient_kernels(pretend: ModuleType, way: Callable, networks: int) -> int:
    """What the gradient of a batch of several networks takes."""
    convnet = FlatNetwork(ConvNet(channels=2, size=16, classes=CLASSES, width=4, depth=3))
    theta = torch.stack([convnet.initial(generator(number)) for number in range(networks)])
    images, targets = torch.randn(networks, 6, 2, 16, 16), torch.rand(networks, 6, CLASSES)
    with pretend.pretend_cuda() as seen:
        engine = way(Objective(convnet.to(CUDA), Loss(cross_entropy, SETTINGS)))
        batch = [values.to(CUDA) for values in (theta, images, targets)]
        before = Counter(seen)
        engine(*batch)
        assert seen[WAITS] == 0
        assert seen[COPIES] == before[COPIES]
        return seen["kernels"] - before["kernels"]


def test_networks_side_by_side_take_as_many_kernels_as_two_and_fewer_than_by_vmap(pretend):
    two, twelve = (gradient_kernels(pretend, side_by_side_gradients, networks) for networks in (2, 12))
    assert twelve == two
    assert twelve < 0.6 * gradient_kernels(pretend, stacked_gradients, 12)


# Distillation


def problem(reads: Path, mdt: float = 0.1) -> Problem:
    real = data(30)
    on_cuda = real._replace(images=real.images.to(CUDA), labels=real.labels.to(CUDA))
    return Problem(on_cuda, network().to(CUDA), ipc=4, mdt=mdt, reads=reads, seed=0)


def iteration(pretend: ModuleType, module: ModuleType, settings: dict, reads: Path) -> Counter:
    """What an iteration takes, with its update of the variables and its point of the curve."""

    def work(iterations: int) -> None:
        backbone = module.start(problem(reads), module.Settings(**settings, iterations=iterations))
        learned = learn(backbone, None, "row")
        assert learned.skipped == 0

    return difference(pretend, work, 1, 2)


@pytest.fixture
def buffer(tmp_path) -> Path:
    """Two experts of one epoch."""
    snapshots = 0.3 * torch.randn(2, 2, network().size, generator=generator("experts"))
    write_tensors(tmp_path / "trajectories.safetensors", {"snapshots": snapshots})
    return tmp_path


@pytest.mark.parametrize("steps", [2, 12])
@pytest.mark.parametrize("mask_after", [False, True])
def test_an_update_of_mtt(pretend, steps, mask_after, buffer):
    settings = MTT | {"syn_steps": steps, "mask_after_augmentation": mask_after}
    seen = iteration(pretend, mtt, settings, buffer)
    assert seen[WAITS] <= 5
    assert seen[COPIES] <= 5


@pytest.mark.parametrize("steps", [2, 12])
@pytest.mark.parametrize("own", [{}, {"n_basis": 4}, {"classes": 2}])
def test_an_update_of_rtp(pretend, steps, own, tmp_path):
    settings = {"syn_steps": steps, "batch_syn": 1, "batch_real": 4, **own}
    seen = iteration(pretend, rtp, settings, tmp_path)
    assert seen[WAITS] <= 5
    assert seen[COPIES] <= 5


@pytest.mark.parametrize("module", [dc, dsa])
@pytest.mark.parametrize("inner_loops", [1, 4])
def test_an_iteration_of_dc_and_dsa(pretend, module, inner_loops, tmp_path):
    """It has two updates, and an inner training between them."""
    settings = LOOPS | {"inner_loops": inner_loops}
    seen = iteration(pretend, module, settings, tmp_path)
    assert seen[WAITS] <= 2 * 5
    assert seen[COPIES] <= 2 * 5
