"""What networks need of a GPU's memory: the plan is enough for what is counted, and not far above it."""

import pytest
import torch

from benchmarks.counted import META, Subject, seen
from benchmarks.grid.subjects import built
from stages.losses import cross_entropy
from stages.networks.convnet import ConvNet
from stages.settings.network import NetworkSettings
from stages.training import gradients
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule, State
from stages.training.needs import bytes_of_network
from stages.training.objective import Loss, Objective


def counted_bytes(subject: Subject, networks: int, batch: int) -> float:
    """The most that is alive in a step of several networks as a GPU takes it, counted on shapes."""
    network = subject.network
    way = gradients.choose_way(network, networks, torch.device("cuda"))
    engine = way(Objective(network, Loss(cross_entropy)))
    weights = torch.empty(networks, network.size, device=META)
    images = subject.images(networks, batch)
    targets = torch.empty(networks, batch, subject.classes, device=META)

    def step() -> None:
        state = State(0, weights * 1, torch.zeros_like(weights), weights)
        gradient, *_ = engine(state.theta, images * 1, targets)
        state.step(gradient, 0.01, Schedule(epochs=1, lr=0.01, batch=batch, momentum=0.9, weight_decay=5e-4))

    return seen(step).peak


@pytest.mark.parametrize("networks, batch", [(1, 32), (4, 32), (4, 128)])
@pytest.mark.parametrize(
    "name, side, most",
    [
        ("convnet", 32, 1.5),
        ("convnet", 64, 1.5),
        ("resnet18", 32, 3.5),
        ("vgg11", 32, 3.5),
        ("alexnet", 32, 3.5),
    ],
)
def test_planned_memory_is_enough_for_what_is_counted(name, side, most, networks, batch):
    subject = built(name, side, 10, NetworkSettings(width=128, depth=3))
    planned = networks * bytes_of_network(subject.network, subject.images(1), batch)
    assert 1 <= planned / counted_bytes(subject, networks, batch) <= most


def test_snapshots_are_planned_with_and_nothing_for_a_cpu():
    subject = built("convnet", 32, 10, NetworkSettings(width=128, depth=3))
    without, with_ten = (
        bytes_of_network(subject.network, subject.images(1), 8, snapshots) for snapshots in (0, 10)
    )
    assert with_ten - without == 2 * 10 * 4 * subject.network.size
    on_cpu = FlatNetwork(ConvNet(channels=3, size=8, classes=10, width=4, depth=1))
    assert bytes_of_network(on_cpu, torch.zeros(1, 3, 8, 8), 8, 10) == 0
