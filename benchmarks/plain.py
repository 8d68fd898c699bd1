"""The public code's network, and how it trains one: what the benchmarks are held against.

Written anew after `epoch` in `utils.py` of https://github.com/GeorgeCazenavette/mtt-distillation: a data loader that collates
sample by sample, a module with torch.optim.SGD, loss and accuracy fetched every batch. Initial weights, orders, draws and
augmentations are those of `stages.shared.training.train`, so that both have to come to the same weights.
"""

from collections.abc import Iterator
from types import ModuleType

import torch
from torch.utils.data import DataLoader, TensorDataset

from stages.shared.augment import augment, draw
from stages.shared.convnet import ConvNet, HalvingPool
from stages.shared.flat import FlatNetwork
from stages.shared.randomness import generator
from stages.shared.training import Schedule

__all__ = ["plain_convnet", "plain_pooling", "plain_training", "weights"]


def plain_convnet(channels: int, size: int, classes: int, width: int, depth: int) -> ConvNet:
    """The ConvNet as the public code has it."""
    return plain_pooling(ConvNet(channels, size, classes, width, depth))


def plain_pooling(module: ConvNet) -> ConvNet:
    """The module itself, with PyTorch's pooling in place of ours."""
    for place, layer in enumerate(module.features):
        if isinstance(layer, HalvingPool):
            module.features[place] = torch.nn.AvgPool2d(2)
    return module


def plain_training(module: torch.nn.Module, loss: ModuleType, settings, images: torch.Tensor, targets: torch.Tensor, schedule: Schedule, key: tuple) -> Iterator[torch.Tensor]:
    """Its weights `(P,)` on the CPU, at first and after each epoch.

    Args:
        module: on the device to train on.
        targets: `(N,)` labels or `(N, K)` class probabilities, on the CPU as the images are.
    """
    flat, data, device = FlatNetwork(module), TensorDataset(images, targets), next(module.parameters()).device
    for p, value in zip(module.parameters(), flat.split(flat.initial(generator(*key, "initial")).to(device)).values()):
        p.data = value.clone()
    optimiser = torch.optim.SGD(module.parameters(), lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    yield weights(module)
    for epoch in range(schedule.epochs):
        draws, total, right = generator(*key, epoch), 0.0, 0
        order = torch.randperm(len(targets), generator=draws).tolist()
        for x, t in DataLoader(data, batch_size=schedule.batch, sampler=order):
            x, t = x.to(device), t.to(device)
            x, t = loss.mix(augment(x, draw(draws, len(x))) if schedule.augment else x, t, draws, settings)
            logits = module(x)
            value = loss.loss(logits, t, settings)
            right += int((logits.argmax(1) == (t.argmax(1) if t.dim() == 2 else t)).sum())
            total += value.item() * len(t)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        if schedule.drop and epoch == schedule.epochs // 2 + 1:
            optimiser = torch.optim.SGD(module.parameters(), lr=0.1 * schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
        yield weights(module)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).cpu()
