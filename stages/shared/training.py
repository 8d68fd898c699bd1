"""The training loop of experts and of networks on distilled data: SGD on (augmented) batches, many networks at once."""

import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from stages.shared.augment import augment, draw
from stages.shared.engine import worth_compiling
from stages.shared.files import read_about, write_tensors
from stages.shared.flat import FlatNetwork
from stages.shared.randomness import generator

__all__ = ["Schedule", "Trained", "train"]

CHECKPOINT_SECONDS = 30


class Schedule(NamedTuple):
    epochs: int
    lr: float
    batch: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: bool = True  # DSA augmentation of every batch
    drop: bool = False  # lr x 0.1 and a fresh optimiser after epoch `epochs // 2 + 1`
    precision: str = "float32"  # of the products; weights stay float32


class Trained(NamedTuple):
    theta: torch.Tensor  # (S, P)
    snapshots: torch.Tensor | None  # (S, epochs + 1, P): at initialisation and after each epoch
    losses: torch.Tensor  # (S, epochs): mean training loss
    accuracies: torch.Tensor  # (S, epochs): on the (augmented) training batches


def train(
    network: FlatNetwork,
    loss: ModuleType,
    loss_settings,
    images: torch.Tensor,
    targets: torch.Tensor,
    schedule: Schedule,
    keys: list[tuple],
    keep_snapshots: bool = False,
    checkpoint: Path | None = None,
) -> Trained:
    """Train `S = len(keys)` networks; network i is a function of `keys[i]`, not of how many run beside it.

    Args:
        loss: a module of `stages/losses`, with `mix(images, targets, generator, settings)` and
            `loss(logits, targets, settings)`.
        images: `(N, C, H, W)`, or `(S, N, C, H, W)` where the networks have images of their own.
        targets: class probabilities, `(N, K)` or `(S, N, K)`.
        checkpoint: a file to resume from and to save to every half minute.
    """
    if images.dim() == 4:  # shared by all networks: views, not copies
        images, targets = images.expand(len(keys), *images.shape), targets.expand(len(keys), *targets.shape)
    device, count = images.device, images.shape[1]
    theta = torch.stack([network.initial(generator(*key, "initial")) for key in keys]).to(device)
    velocity, epoch = torch.zeros_like(theta), 0
    snapshots = [theta.clone()] if keep_snapshots else []
    curves = torch.zeros(2, len(keys), schedule.epochs, device=device)
    if checkpoint and checkpoint.exists():
        epoch, theta, velocity, snapshots, curves = _load(checkpoint, device)
    saved = time.monotonic()

    def objective(theta, images, targets):
        with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
            logits = network(theta, images)
        logits = logits.float()
        right = logits.argmax(1) == targets.argmax(1)
        return loss.loss(logits, targets, loss_settings), right.float().sum()

    operations = 3 * network.operations(images[0, :1]) * count * schedule.epochs
    eager = _eager_gradients(objective) if len(keys) == 1 else _pure_gradients(objective, stacked=True)
    compiled = eager
    if worth_compiling(operations * len(keys), device):
        compiled = torch.compile(_pure_gradients(objective, stacked=len(keys) > 1))

    for epoch in tqdm(range(epoch, schedule.epochs), "epoch", initial=epoch, total=schedule.epochs, disable=None, leave=False):
        dropped = schedule.drop and epoch > schedule.epochs // 2 + 1
        if dropped and epoch == schedule.epochs // 2 + 2:
            velocity.zero_()
        lr = schedule.lr * (0.1 if dropped else 1)
        generators = [generator(*key, epoch) for key in keys]
        orders = [torch.randperm(count, generator=g).split(schedule.batch) for g in generators]
        for rows in zip(*orders):
            batch = [
                loss.mix(augment(images[i][r], draw(g, len(r))) if schedule.augment else images[i][r], targets[i][r], g, loss_settings)
                for i, (r, g) in enumerate(zip(rows, generators))
            ]
            x, t = torch.stack([b[0] for b in batch]), torch.stack([b[1] for b in batch])
            gradient, value, right = (compiled if x.shape[1] == min(schedule.batch, count) else eager)(theta, x, t)
            velocity = schedule.momentum * velocity + gradient + schedule.weight_decay * theta
            theta = theta - lr * velocity
            curves[:, :, epoch] += torch.stack([value * x.shape[1], right]) / count
        if keep_snapshots:
            snapshots.append(theta)
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, epoch + 1, theta, velocity, snapshots, curves)
            saved = time.monotonic()
    return Trained(theta, torch.stack(snapshots, 1) if keep_snapshots else None, *curves)


def _pure_gradients(objective, stacked: bool):
    """(S, P) weights, (S, B, C, H, W) images, (S, B, K) targets -> (S, P) gradients, (S,) losses, (S,) right answers.

    Stacked networks go through every layer together; without `stacked`, S is 1.
    """
    gradient = torch.func.grad_and_value(objective, has_aux=True)
    if stacked:
        gradient = torch.func.vmap(gradient)

    def gradients(theta, images, targets):
        if stacked:
            gradients, (values, right) = gradient(theta, images, targets)
            return gradients, values, right
        one, (value, right) = gradient(theta[0], images[0], targets[0])
        return one[None], value[None], right[None]

    return gradients


def _eager_gradients(objective):
    """The same for one network by plain backward differentiation: fastest where nothing is compiled."""

    def gradients(theta, images, targets):
        theta = theta.detach().requires_grad_()
        value, right = objective(theta[0], images[0], targets[0])
        (gradient,) = torch.autograd.grad(value, theta)
        return gradient, value.detach()[None], right[None]

    return gradients


def _save(path, epoch, theta, velocity, snapshots, curves):
    state = {"theta": theta, "velocity": velocity, "curves": curves}
    if snapshots:
        state["snapshots"] = torch.stack(snapshots)
    write_tensors(path, state, {"epoch": epoch})


def _load(path, device):
    state = {name: value.to(device) for name, value in load_file(path).items()}
    return read_about(path)["epoch"], state["theta"], state["velocity"], list(state.get("snapshots", [])), state["curves"]
