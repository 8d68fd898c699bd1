"""The training loop of experts and of networks on distilled data: SGD on (augmented) batches, many networks at once."""

import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from stages.shared.augment import augment, draw
from stages.shared.engine import part_size, worth_compiling
from stages.shared.files import read_about, write_tensors
from stages.shared.flat import FlatNetwork
from stages.shared.images import NormalisedImages
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
    images: torch.Tensor | NormalisedImages,
    targets: torch.Tensor,
    schedule: Schedule,
    keys: list[tuple],
    keep_snapshots: bool = False,
    checkpoint: Path | None = None,
    rows: list[torch.Tensor] | None = None,
) -> Trained:
    """Train `S = len(keys)` networks; network i is a function of `keys[i]`, not of how many run beside it.

    Args:
        loss: a module of `stages/losses`, with `mix(images, targets, generator, settings)` and
            `loss(logits, targets, settings)`.
        images: `(N, C, H, W)`.
        targets: class probabilities, `(N, K)`.
        checkpoint: a file to resume from and to save to every half minute.
        rows: the `(M,)` positions of the images that each network trains on, on the CPU; None: all of them.
    """
    device, count = images.device, len(images if rows is None else rows[0])
    theta = torch.stack([network.initial(generator(*key, "initial")) for key in keys]).to(device)
    velocity, epoch = torch.zeros_like(theta), 0
    snapshots = [theta.clone()] if keep_snapshots else []
    curves = torch.zeros(2, len(keys), schedule.epochs, device=device)
    if checkpoint and checkpoint.exists():
        epoch, theta, velocity, snapshots, curves = _load(checkpoint, device)
    saved = time.monotonic()

    def objective(of, images, targets):
        with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
            logits = of(images)
        logits = logits.float()
        right = logits.argmax(1) == targets.argmax(1)
        return loss.loss(logits, targets, loss_settings), right.float().mean()

    def pure_objective(theta, images, targets):
        return objective(partial(network, theta), images, targets)

    fast = eager = _eager_gradients(network, objective) if len(keys) == 1 else _stacked_gradients(pure_objective)
    operations = 3 * network.operations(images[:1]) * count * schedule.epochs * len(keys)
    if device.type == "cpu" and schedule.precision == "float32":
        operations /= 5  # compiled, it gains an eighth; whatever else is compiled about half
    if worth_compiling(operations, device):
        engine = (loss.__name__, id(loss_settings), schedule.precision, len(keys) > 1)  # kept: compilers give up on what changes at every call
        if engine not in network.compiled:
            network.compiled[engine] = torch.compile(_stacked_gradients(pure_objective), dynamic=False) if len(keys) > 1 else _one_gradient(torch.compile(pure_objective, dynamic=False))
        fast = network.compiled[engine]
    image_bytes = network.largest_layer(images[:1])
    fast_size = part_size(min(schedule.batch, count), image_bytes, device)

    def gradients(theta, images, targets):
        """`(S, P)` gradients, `(S,)` losses and accuracies of a batch: the mean of its parts, by their sizes."""
        total, size = images.shape[1], part_size(images.shape[1], image_bytes, device)
        sums = None
        for x, t in zip(images.split(size, 1), targets.split(size, 1)):
            part = [x.shape[1] / total * value for value in (fast if x.shape[1] == fast_size else eager)(theta, x, t)]
            sums = [s + value for s, value in zip(sums, part)] if sums else part
        return sums

    for epoch in tqdm(range(epoch, schedule.epochs), "epoch", initial=epoch, total=schedule.epochs, disable=None, leave=False):
        dropped = schedule.drop and epoch > schedule.epochs // 2 + 1
        if dropped and epoch == schedule.epochs // 2 + 2:
            velocity.zero_()
        lr = schedule.lr * (0.1 if dropped else 1)
        generators = [generator(*key, epoch) for key in keys]
        orders = [torch.randperm(count, generator=g) for g in generators]
        if rows is not None:
            orders = [own[order] for own, order in zip(rows, orders)]
        for together in zip(*(order.split(schedule.batch) for order in orders)):
            batch = [
                loss.mix(augment(images[r], draw(g, len(r))) if schedule.augment else images[r], targets[r], g, loss_settings)
                for r, g in zip(together, generators)
            ]
            x, t = torch.stack([b[0] for b in batch]), torch.stack([b[1] for b in batch])
            gradient, value, right = gradients(theta, x, t)
            velocity = schedule.momentum * velocity + gradient + schedule.weight_decay * theta
            theta = theta - lr * velocity
            curves[:, :, epoch] += torch.stack([value, right]) * (x.shape[1] / count)
        if keep_snapshots:
            snapshots.append(theta)
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, epoch + 1, theta, velocity, snapshots, curves)
            saved = time.monotonic()
    return Trained(theta, torch.stack(snapshots, 1) if keep_snapshots else None, *curves)


# Each of these takes (S, P) weights, (S, B, C, H, W) images and (S, B, K) targets to (S, P) gradients, (S,) losses and (S,) accuracies.


def _stacked_gradients(objective):
    """Stacked networks go through every layer together."""
    gradient = torch.func.vmap(torch.func.grad_and_value(objective, has_aux=True))

    def gradients(theta, images, targets):
        gradients, (values, right) = gradient(theta, images, targets)
        return gradients, values, right

    return gradients


def _one_gradient(objective):
    """Of one network, by plain backward differentiation, whose two halves compile to less than a function's gradient does."""

    def gradients(theta, images, targets):
        theta = theta.detach().requires_grad_()
        value, right = objective(theta[0], images[0], targets[0])
        (gradient,) = torch.autograd.grad(value, theta)
        return gradient, value.detach()[None], right[None]

    return gradients


def _eager_gradients(network, objective):
    """Of one network: fastest where nothing is compiled."""

    def gradients(theta, images, targets):
        module = network.alone(theta[0])
        value, right = objective(module, images[0], targets[0])
        parts = torch.autograd.grad(value, list(module.parameters()))
        return torch.cat([part.flatten() for part in parts])[None], value.detach()[None], right[None]

    return gradients


def _save(path, epoch, theta, velocity, snapshots, curves):
    state = {"theta": theta, "velocity": velocity, "curves": curves}
    if snapshots:
        state["snapshots"] = torch.stack(snapshots)
    write_tensors(path, state, {"epoch": epoch})


def _load(path, device):
    state = {name: value.to(device) for name, value in load_file(path).items()}
    return read_about(path)["epoch"], state["theta"], state["velocity"], list(state.get("snapshots", [])), state["curves"]
