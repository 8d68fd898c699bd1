"""buffer: networks trained on the real images, with their weights after each epoch (expert trajectories).

    python -m stages.buffer <buffer>

Source: George Cazenavette et al.: "Dataset Distillation by Matching Training Trajectories", CVPR 2022,
https://arxiv.org/abs/2203.11932; `buffer.py` of https://github.com/GeorgeCazenavette/mtt-distillation.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stages.images.prepared import LabelledImages, load_split
from stages.losses import cross_entropy
from stages.machine.engine import run_units
from stages.machine.precision import say_what_is_used
from stages.runtime.checkpoint import scratch
from stages.runtime.checksums import is_whole
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_tensors, write_curve, write_tensors
from stages.runtime.pt_files import read_pt
from stages.runtime.randomness import generator
from stages.runtime.trajectory_files import trajectory_files
from stages.settings.buffer import BufferSettings, ImportedBuffer
from stages.settings.project import suite_keys
from stages.settings.rows import Buffer
from stages.tools.records import recorded
from stages.training.flat import FlatNetwork, flat_convnet
from stages.training.loop import Examples, Schedule, examples, train
from stages.training.needs import bytes_of_network
from stages.training.objective import Loss
from stages.training.snapshots import delete_checkpoint

__all__ = ["buffer", "take_in"]

CURVE_IMAGES = 1000  # training images that the accuracy of imported trajectories is measured on


# Experts that are trained here


def buffer(buffer: Buffer) -> None:
    """Write `trajectories.safetensors` (`snapshots`, `(experts, epochs + 1, P)`) and `curve.csv` of a buffer.

    Expert i is a function of `(seed, i)`. Finished experts survive a kill.
    """
    settings = buffer.keys(BufferSettings)
    device = buffer.device
    dataset = buffer.dataset
    network_settings = dataset.network
    data = load_split(dataset.prepared, "train")
    network = flat_convnet(network_settings, data, device)
    about = {
        "settings": settings.model_dump(exclude={"experts"}),
        "network": network_settings.model_dump(),
        "seed": buffer.seed,
    }
    inputs = list(dataset.prepared.glob("[!.]*.safetensors"))
    with scratch(f"buffer-{buffer.name}", about, inputs) as folder:
        schedule = Schedule(
            epochs=settings.epochs,
            lr=settings.lr,
            batch=settings.batch,
            precision=settings.precision,
            keep_snapshots=True,
        )
        experts = Experts(network, examples(data, device), schedule, buffer.seed, folder)
        experts.train_missing(settings.experts, device, f"experts of {buffer.name}")
        made = [read_tensors(experts.file(expert)) for expert in range(settings.experts)]
        snapshots = torch.stack([expert["snapshots"] for expert in made])
        loss = torch.stack([expert["loss"] for expert in made]).mean(0)
        accuracy = torch.stack([expert["accuracy"] for expert in made]).mean(0)
        checksum = write_epochs(buffer, {"loss": loss.tolist(), "accuracy": accuracy.tolist()})
        write_tensors(buffer.folder / "trajectories.safetensors", {"snapshots": snapshots}, about | checksum)


@dataclass(frozen=True)
class Experts:
    """Networks that are trained with cross-entropy, each with a file of its own once it is finished."""

    network: FlatNetwork
    data: Examples
    schedule: Schedule
    seed: int
    folder: Path

    def file(self, expert: int) -> Path:
        return self.folder / f"expert-{expert:04}.safetensors"

    def train_missing(self, count: int, device: torch.device, title: str) -> None:
        """Train those of the first `count` experts that have no file yet, or a damaged one.

        Args:
            device: that of the data, or `cuda` for every CUDA device.
        """
        missing = [expert for expert in range(count) if not is_whole(self.file(expert))]
        image = self.data.images[:1]
        step = 3 * self.network.operations(image) * self.schedule.batch
        needed = bytes_of_network(self.network, image, self.schedule.batch, self.schedule.epochs + 1)
        say_what_is_used(self.schedule.precision, device)
        run_units(self, missing, step, device, title, needed)

    def on(self, device: torch.device) -> "Experts":
        """A copy on another device."""
        return replace(self, network=self.network.to(device), data=self.data.to(device))

    def run(self, experts: list[int]) -> None:
        """Train experts side by side, and write each to its file."""
        keys: list[tuple] = [(self.seed, "buffer", expert) for expert in experts]
        checkpoint = self.folder / f"part-{experts[0]}-{len(experts)}.safetensors"
        trained = train(self.network, Loss(cross_entropy), self.data, self.schedule, keys, checkpoint)
        assert trained.snapshots is not None  # the schedule keeps them
        for place, expert in enumerate(experts):
            tensors = {
                "snapshots": trained.snapshots[place],
                "loss": trained.losses[place],
                "accuracy": trained.accuracies[place],
            }
            write_tensors(self.file(expert), tensors)
        delete_checkpoint(checkpoint)


def write_epochs(buffer: Buffer, columns: dict[str, list[float]]) -> dict[str, str]:
    """Write `curve.csv`: a line for each epoch; returns what `write_curve` does."""
    epochs = len(columns["accuracy"])
    return write_curve(buffer.folder / "curve.csv", {"epoch": range(1, epochs + 1), **columns})


# Trajectories that MTT's own code has made


def take_in(buffer: Buffer) -> None:
    """Write `trajectories.safetensors` and `curve.csv` of a buffer from the files of MTT's own code.

    The curve is the accuracy of the first expert on 1,000 training images. No file says whether the
    images here are whitened as those that the experts were trained on: if they are not, the accuracy is
    lower than their own.

    Raises:
        UserError: there is no file, or a file holds anything else than trajectories, networks of another
            shape, numbers that are not finite, or too few epochs.
    """
    settings = buffer.keys(ImportedBuffer)
    files = trajectory_files(settings.files, f"buffers.{buffer.name}.files")
    data = load_split(buffer.dataset.prepared, "train")
    network = flat_convnet(buffer.dataset.network, data, torch.device("cpu"))
    experts = []
    for file in files:
        trajectories = read_pt(file)
        check_shapes(file, trajectories, network)
        check_epochs(file, trajectories, settings.epochs, f"buffers.{buffer.name}.epochs")
        for trajectory in trajectories:
            expert = flat_trajectory(trajectory[: settings.epochs + 1])
            check_numbers(file, expert)
            experts.append(expert)
    accuracies = trajectory_accuracies(network, experts[0], data)
    about = {"settings": settings.model_dump()}
    checksum = write_epochs(buffer, {"accuracy": accuracies})
    tensors = {"snapshots": torch.stack(experts)}
    write_tensors(buffer.folder / "trajectories.safetensors", tensors, about | checksum)


def check_shapes(file: Path, trajectories: Any, network: FlatNetwork) -> None:
    """Check that trajectories are lists of snapshots, and snapshots lists of a network's parameters.

    Raises:
        UserError: they are anything else.
    """
    try:
        shapes = parameter_shapes(trajectories)
    except (TypeError, AttributeError):
        shapes = set()
    if not shapes:
        expected = "a list of trajectories, each a list of snapshots, each a list of tensors"
        raise UserError(f"{file}: expected {expected}")
    if shapes != {tuple(network.shapes)}:
        expected = f"{len(network.shapes)} parameters of {network.size} numbers in all"
        raise UserError(f"{file}: snapshots of another network than this data set's; expected {expected}")


def parameter_shapes(trajectories: Any) -> set[tuple[torch.Size, ...]]:
    """The different lists of parameters' shapes that snapshots have."""
    shapes = set()
    for trajectory in trajectories:
        for snapshot in trajectory:
            shapes.add(tuple(parameter.shape for parameter in snapshot))
    return shapes


def check_epochs(file: Path, trajectories: list[list], epochs: int, where: str) -> None:
    """Check that trajectories are long enough.

    Args:
        epochs: how many are wanted.
        where: their key in the settings.

    Raises:
        UserError: a trajectory has fewer epochs.
    """
    snapshots = min(len(trajectory) for trajectory in trajectories)
    shortest = snapshots - 1  # as the first snapshot is from before the first epoch
    if shortest < epochs:
        problem = f"a trajectory of {shortest} epochs"
        raise UserError(f"{file}: {problem}; allowed for {where}: at most that, not {epochs}")


def flat_trajectory(snapshots: list[list[torch.Tensor]]) -> torch.Tensor:
    """`(len(snapshots), P)` from lists of parameters."""
    flat = []
    for snapshot in snapshots:
        parts = [parameter.flatten().float() for parameter in snapshot]
        flat.append(torch.cat(parts))
    return torch.stack(flat)


def check_numbers(file: Path, expert: torch.Tensor) -> None:
    """Check the weights `(epochs + 1, P)` of an expert.

    Raises:
        UserError: a number is not finite, or an epoch changes nothing.
    """
    if not bool(expert.isfinite().all()):
        raise UserError(f"{file}: a trajectory has numbers that are not finite")
    unchanged = (expert[1:] == expert[:-1]).all(1)
    if bool(unchanged.any()):
        reason = "MTT's code, run on a CPU, writes the last weights for every epoch"
        raise UserError(f"{file}: a trajectory stands still; {reason}")


def trajectory_accuracies(network: FlatNetwork, expert: torch.Tensor, data: LabelledImages) -> list[float]:
    """The accuracy after each epoch, on random training images."""
    draws = generator("imported buffer")
    rows = torch.randperm(len(data.labels), generator=draws)[:CURVE_IMAGES]
    images = data.images[rows]
    labels = data.labels[rows]
    accuracies = []
    for theta in expert[1:]:
        with torch.no_grad():
            answers = network(theta, images).argmax(1)
        accuracies.append(float((answers == labels).float().mean()))
    return accuracies


def main(name: str) -> None:
    entry = Buffer(name)
    imported = "files" in suite_keys(entry.suite, (entry.kind, name), ["files"])
    if imported:
        take_in(entry)
    else:
        buffer(entry)


if __name__ == "__main__":
    run_stage(recorded(main))
