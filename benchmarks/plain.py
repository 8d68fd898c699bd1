"""The public code's network and how it trains one: the plain way that the benchmarks measure against.

Written anew after `epoch` in `utils.py` of https://github.com/GeorgeCazenavette/mtt-distillation: a data
loader that collates sample by sample, a module with torch.optim.SGD, and loss and accuracy fetched after
every batch. Initial weights, orders, draws and augmentations are those of `stages.training.loop.train`,
so that both have to come to the same weights.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, TensorDataset

from stages.images.augment import augment, draw
from stages.networks.convnet import ConvNet, HalvingPool
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule
from stages.training.objective import Loss

__all__ = ["plain_convnet", "plain_pooling", "plain_training", "weights"]


def plain_convnet(channels: int, size: int, classes: int, width: int, depth: int) -> ConvNet:
    """The ConvNet as the public code has it."""
    return plain_pooling(ConvNet(channels, size, classes, width, depth))


def plain_pooling(module: ConvNet) -> ConvNet:
    """The module itself, with PyTorch's pooling in place of ours."""
    for position, layer in enumerate(module.features):
        if isinstance(layer, HalvingPool):
            module.features[position] = torch.nn.AvgPool2d(2)
    return module


def plain_training(
    module: torch.nn.Module, loss: Loss, data: TensorDataset, schedule: Schedule, key: tuple
) -> Iterator[torch.Tensor]:
    """Train a module and yield its weights `(P,)` on the CPU, at first and after each epoch.

    Args:
        module: on the device to train on.
        data: images `(N, C, H, W)`, and labels `(N,)` or class probabilities `(N, K)`, on the CPU.
        key: of the random draws.
    """
    set_initial_weights(module, key)
    optimiser = sgd(module, schedule, epoch=0)
    yield weights(module)
    for epoch in range(schedule.epochs):
        if epoch == schedule.first_slow_epoch:
            optimiser = sgd(module, schedule, epoch)
        train_epoch(module, loss, data, schedule, optimiser, generator(*key, epoch))
        yield weights(module)


def set_initial_weights(module: torch.nn.Module, key: tuple) -> None:
    flat = FlatNetwork(module)
    initial = flat.split(flat.initial(generator(*key, "initial")))
    for parameter, value in zip(module.parameters(), initial.values()):
        parameter.data = value.to(parameter.device).clone()


def sgd(module: torch.nn.Module, schedule: Schedule, epoch: int) -> torch.optim.SGD:
    return torch.optim.SGD(
        module.parameters(),
        lr=schedule.lr_at(epoch),
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )


def train_epoch(
    module: torch.nn.Module,
    loss: Loss,
    data: TensorDataset,
    schedule: Schedule,
    optimiser: torch.optim.SGD,
    draws: torch.Generator,
) -> tuple[float, int]:
    """One epoch, and its summed loss and how many images were classified right."""
    device = next(module.parameters()).device
    order = torch.randperm(len(data), generator=draws).tolist()
    total = 0.0
    right = 0
    for images, targets in DataLoader(data, batch_size=schedule.batch, sampler=order):
        images = images.to(device)
        targets = targets.to(device)
        if schedule.augment:
            images = augment(images, draw(draws, len(images)))
        images, targets = loss.mix(images, targets, loss.draw(len(images), draws))
        logits = module(images)
        value = loss(logits, targets)
        labels = targets.argmax(1) if targets.dim() == 2 else targets
        right += int((logits.argmax(1) == labels).sum())
        total += value.item() * len(targets)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return total, right


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).cpu()
