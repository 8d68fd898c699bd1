"""Networks on one set of images, several times over: what `train`, `architectures` and `svd` have in common."""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from stages.shared.engine import run_units
from stages.shared.errors import UserError
from stages.shared.files import write_tensors
from stages.shared.flat import FlatNetwork, predict
from stages.shared.images import LabelledImages, NormalisedImages
from stages.shared.training import Schedule, train

__all__ = ["Group", "train_groups"]


class Group(NamedTuple):
    """Networks that differ by their repeat alone."""

    network: FlatNetwork
    loss: ModuleType  # of stages/losses
    rows: list[torch.Tensor] | None = None  # positions of the images that each repeat trains on; None: all


def train_groups(
    groups: dict[str, Group], repeats: int, loss_settings, data: LabelledImages, test_images: torch.Tensor | NormalisedImages, schedule: Schedule,
    seed: int, name: str, here: Path, device: torch.device,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:  # fmt: skip
    """Weights `(repeats, P)` and test logits `(repeats, test images, classes)` of each group.

    Repeat r is a function of `(seed, r)`: groups of one network share its initial weights and draws. Finished networks
    are kept in `here`.

    Args:
        data: the images to train on, on the CPU or on `device`.
        loss_settings: `train` of params.yaml.
        name: the row's, for messages.

    Raises:
        UserError: a network whose weights are not finite.
    """
    images, test_images = data.images.to(device), test_images.to(device)
    targets = F.one_hot(data.labels, data.classes).float().to(device)
    units = [(group, repeat) for group in groups for repeat in range(repeats)]
    files = {unit: here / f"{unit[0]}-{unit[1]:02}.safetensors" for unit in units}

    def run(chunk: list[int]) -> None:
        for group in groups:
            missing = [units[i][1] for i in chunk if units[i][0] == group and not files[units[i]].exists()]
            if missing:
                _train_group(group, missing)

    def _train_group(group: str, some: list[int]) -> None:
        network, loss, rows = groups[group]
        part = here / f"part-{group}-{some[0]}-{len(some)}.safetensors"
        keys, rows = [(seed, "train", repeat) for repeat in some], rows and [rows[repeat] for repeat in some]
        theta = train(network, loss, loss_settings, images, targets, schedule, keys, checkpoint=part, rows=rows).theta
        if not bool(theta.isfinite().all()):
            raise UserError(f"{name}: training with {group} left the finite numbers at lr {schedule.lr:g}; set a smaller runs.{name}.lr")
        for n, repeat in enumerate(some):
            write_tensors(files[group, repeat], {"theta": theta[n], "logits": predict(network, theta[n], test_images)})
        part.unlink(missing_ok=True)

    missing = [i for i, unit in enumerate(units) if not files[unit].exists()]
    step_operations = 3 * max(group.network.operations(images[:1]) for group in groups.values()) * min(schedule.batch, len(images))
    run_units(run, missing, step_operations, device, f"networks of {name}")
    done = {unit: load_file(file) for unit, file in files.items()}
    theta, logits = ({group: torch.stack([done[group, repeat][key] for repeat in range(repeats)]) for group in groups} for key in ("theta", "logits"))
    return theta, logits
