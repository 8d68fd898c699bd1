"""buffer: networks trained on the real images, with their weights after each epoch (expert trajectories).

    python -m stages.buffer <buffer>

Source: George Cazenavette et al.: "Dataset Distillation by Matching Training Trajectories", CVPR 2022,
https://arxiv.org/abs/2203.11932; `buffer.py` of https://github.com/GeorgeCazenavette/mtt-distillation.
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from stages.losses import cross_entropy
from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.engine import run_units
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_curve, write_tensors
from stages.shared.flat import flat_convnet
from stages.shared.images import load_split
from stages.shared.pt_files import read_pt
from stages.shared.randomness import generator
from stages.shared.settings import Count, Positive, Section, find, param, parse, pick
from stages.shared.training import Schedule, train

__all__ = ["BufferSettings", "ImportedBuffer", "buffer", "take_in", "trajectory_files"]


class BufferSettings(Section):
    """`buffers.<name>`. The published training has 50 epochs; a distillation reads only the first few."""

    dataset: str
    experts: Count
    epochs: Count
    lr: Positive
    batch: Count
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: float32 weights, bfloat16 products


class ImportedBuffer(Section):
    """`buffers.<name>` of trajectories that MTT's own code has made: every `replay_buffer_*.pt` of a folder."""

    dataset: str
    files: str  # the folder
    epochs: Count  # that are kept of each trajectory, from its start


def buffer(
    settings: BufferSettings, network: NetworkSettings, prepared: Path, folder: Path, seed: int, device: torch.device, root: Path = Path("scratch")
) -> None:
    """Write `trajectories.safetensors` (`snapshots`, `(experts, epochs + 1, P)`) and `curve.csv` to `folder`.

    Expert i is a function of `(seed, i)`; finished experts survive a kill under `root`.
    """
    data = load_split(prepared, "train")
    images, targets = data.images.to(device), F.one_hot(data.labels, data.classes).float().to(device)
    flat = flat_convnet(network, data, device)
    schedule = Schedule(settings.epochs, settings.lr, settings.batch, precision=settings.precision)
    keys = [(seed, "buffer", i) for i in range(settings.experts)]
    work = {"settings": settings.model_dump(exclude={"experts"}), "network": network.model_dump(), "seed": seed}
    with scratch(f"buffer-{folder.name}", work, list(prepared.glob("*.safetensors")), root) as here:
        files = [here / f"expert-{i:04}.safetensors" for i in range(settings.experts)]

        def run(chunk: list[int]) -> None:
            part = here / f"part-{chunk[0]}-{len(chunk)}.safetensors"
            done = train(flat, cross_entropy, None, images, targets, schedule, [keys[i] for i in chunk], True, part)
            for n, i in enumerate(chunk):
                write_tensors(files[i], {"snapshots": done.snapshots[n], "loss": done.losses[n], "accuracy": done.accuracies[n]})
            part.unlink(missing_ok=True)

        missing = [i for i, file in enumerate(files) if not file.exists()]
        run_units(run, missing, 3 * flat.operations(images[:1]) * settings.batch, device, f"experts of {folder.name}")
        experts = [load_file(file) for file in files]
        write_tensors(folder / "trajectories.safetensors", {"snapshots": torch.stack([e["snapshots"] for e in experts])}, work)
        mean = {name: torch.stack([e[name] for e in experts]).mean(0).tolist() for name in ("loss", "accuracy")}
        write_curve(folder / "curve.csv", {"epoch": range(1, settings.epochs + 1), **mean})


def take_in(settings: ImportedBuffer, network: NetworkSettings, prepared: Path, folder: Path, name: str) -> None:
    """Write `trajectories.safetensors` and `curve.csv` (accuracy of the first expert on 1,000 training images) to `folder`.

    A list of trajectories a file, each a list of snapshots, each the list of a network's parameters. Whether the images are
    whitened as those that the experts have seen, no file says: a lower accuracy than their own would.

    Raises:
        UserError: no such file, or one that holds anything else, networks of another shape or numbers that are not finite.
    """
    files = trajectory_files(settings, f"buffers.{name}.files")
    data = load_split(prepared, "train")
    flat, experts = flat_convnet(network, data, torch.device("cpu")), []
    for file in files:
        trajectories = read_pt(file)
        try:
            shapes = {tuple(tuple(p.shape) for p in snapshot) for trajectory in trajectories for snapshot in trajectory}
            shortest = min(len(trajectory) for trajectory in trajectories)
        except (TypeError, AttributeError, ValueError):
            raise UserError(f"{file}: expected a list of trajectories, each a list of snapshots, each a list of tensors") from None
        if shapes != {tuple(tuple(shape) for shape in flat.shapes)}:
            raise UserError(f"{file}: snapshots of another network than this data set's: {len(flat.shapes)} parameters of {flat.size} numbers in all are expected")
        if shortest <= settings.epochs:
            raise UserError(f"{file}: a trajectory of {shortest - 1} epochs; allowed for buffers.{name}.epochs: at most that, not {settings.epochs}")
        for trajectory in trajectories:
            experts.append(torch.stack([torch.cat([p.flatten().float() for p in snapshot]) for snapshot in trajectory[: settings.epochs + 1]]))
            if not bool(experts[-1].isfinite().all()):
                raise UserError(f"{file}: a trajectory with numbers that are not finite")
            if bool((experts[-1][1:] == experts[-1][:-1]).all(1).any()):
                raise UserError(f"{file}: a trajectory that stands still; MTT's code, run on a CPU, writes the last weights for every epoch")
    some = torch.randperm(len(data.labels), generator=generator("imported buffer"))[:1000]
    with torch.no_grad():
        accuracies = [float((flat(theta, data.images[some]).argmax(1) == data.labels[some]).float().mean()) for theta in experts[0][1:]]
    write_tensors(folder / "trajectories.safetensors", {"snapshots": torch.stack(experts)}, {"settings": settings.model_dump()})
    write_curve(folder / "curve.csv", {"epoch": range(1, settings.epochs + 1), "accuracy": accuracies})


def trajectory_files(settings: ImportedBuffer, key: str) -> list[Path]:
    """The files of MTT's code in a folder, in the order that it wrote them in."""
    found = sorted(Path(settings.files).expanduser().glob("replay_buffer_*.pt"), key=lambda file: (len(file.name), file.name))
    if not found:
        raise UserError(f"{key}: {settings.files!r} has no replay_buffer_*.pt; allowed: their own folder, <buffer_path>/<data set>/ConvNet of MTT's code")
    return found


def main(name: str) -> None:
    values, suite = find("buffers", name)
    imported = "files" in values
    settings = pick(ImportedBuffer if imported else BufferSettings, values, f"buffers.{name}")
    network = parse(NetworkSettings, suite["datasets"][settings.dataset]["network"], f"datasets.{settings.dataset}.network")
    prepared, folder = Path("data/prepare") / settings.dataset, Path("data/buffer") / name
    if imported:
        take_in(settings, network, prepared, folder, name)
    else:
        buffer(settings, network, prepared, folder, param("seed"), pick_device(param("device")))


if __name__ == "__main__":
    run_stage(main)
