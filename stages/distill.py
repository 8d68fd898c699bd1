"""distill: real images -> a small synthetic set, by the row's backbone.

    python -m stages.distill <row>
"""

import importlib
import math
import time
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file
from tqdm import tqdm

from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import UserError, run_stage
from stages.shared.files import read_about, write_curve, write_tensors
from stages.shared.flat import flat_convnet
from stages.shared.images import load_split
from stages.shared.method import Method, Problem, Variable
from stages.shared.settings import Count, Ratio, Section, find, param, parse, pick

__all__ = ["DistillRow", "distill", "learn"]

CHECKPOINT_SECONDS = 30
SKIPS_IN_A_ROW = 10


class DistillRow(Section):
    """The keys of `runs.<row>` that make the distilled set."""

    dataset: str
    backbone: str  # a file of stages/distillers
    ipc: Count | None  # images per class; null for all of them (backbone: full)
    reads: str  # below data/: buffer/<name> for trajectories, "nothing" where the backbone needs no more than images
    mdt: Ratio | Annotated[list[Ratio], Field(min_length=2, max_length=2)]  # mask ratio while distilling, or its range
    distill: dict  # the backbone's own settings


def distill(row: DistillRow, name: str, network: NetworkSettings, prepared: Path, reads: Path, folder: Path, seed: int, device: torch.device, root: Path = Path("scratch")) -> None:  # fmt: skip
    """Write `set.safetensors` (`images` as the network sees them, `labels`, `step_size` where learned) and `curve.csv`.

    A row of all training images has no `images` in its file: they are the training split.

    Raises:
        UserError: settings that do not fit the data; a run whose loss or step size keeps leaving the finite numbers.
    """
    backbone = importlib.import_module(f"stages.distillers.{row.backbone}")
    settings = parse(backbone.Settings, row.distill, f"runs.{name}.distill")
    data = load_split(prepared, "train")
    smallest = int(data.labels.bincount(minlength=data.classes).min())
    if row.ipc is not None and row.ipc > smallest:
        raise UserError(f"runs.{name}.ipc: {row.ipc} is above the smallest class of {row.dataset}; allowed: 1 to {smallest}")
    real = data._replace(images=data.images.to(device), labels=data.labels.to(device))
    problem = Problem(real, flat_convnet(network, data, device), row.ipc, row.mdt, reads, seed, prepared)

    about = {"backbone": row.backbone, "dataset": row.dataset, "ipc": row.ipc, "mdt": row.mdt, "distill": row.distill, "network": network.model_dump(), "seed": seed}  # fmt: skip
    inputs = [*prepared.glob("*.safetensors"), *(reads.glob("*.safetensors") if reads.is_dir() else [reads])]
    with scratch(f"distill-{name}", about, inputs, root) as here:
        method = backbone.start(problem, settings)
        curve, skipped = learn(method, here / "state.safetensors", name)
        step_size = method.variables.get("step_size")
        tensors = {"labels": method.labels}
        tensors |= {"images": method.images()} if method.images else {}
        tensors |= {"step_size": step_size.value} if step_size else {}
        write_tensors(folder / "set.safetensors", tensors, about | {"skipped_updates": skipped})
        write_curve(folder / "curve.csv", curve)


def learn(method: Method, checkpoint: Path | None, name: str) -> tuple[dict[str, list[float]], int]:
    """Run the method's iterations; the curve (iteration, loss, scalar variables) and how many updates were skipped.

    An update is skipped where the loss or a gradient is not finite, or where a variable would leave its range.

    Raises:
        UserError: ten updates in a row were skipped.
    """
    scalars = [key for key, variable in method.variables.items() if variable.value.dim() == 0]
    velocity = {key: torch.zeros_like(variable.value) for key, variable in method.variables.items()}
    curve, first, skipped, in_a_row, saved = [], 0, 0, 0, time.monotonic()
    if checkpoint and checkpoint.exists():
        first, skipped, in_a_row, curve = _load(checkpoint, method, velocity)
    bar = tqdm(range(first, method.iterations), name, initial=first, total=method.iterations, disable=None)
    for iteration in bar:
        losses = []
        for loss, gradients in method.steps(iteration):
            losses.append(loss)
            if problem := _update(method.variables, velocity, loss, gradients):
                skipped, in_a_row = skipped + 1, in_a_row + 1
                if in_a_row == SKIPS_IN_A_ROW:
                    rates = ", ".join(f"{key} {variable.lr:g}" for key, variable in method.variables.items())
                    raise UserError(
                        f"{name}: iteration {iteration}: {problem}, {in_a_row} times in a row. Lower the learning rates of the row's distill section (now: {rates})"
                    )
            else:
                in_a_row = 0
        curve.append([iteration, float(torch.stack(losses).mean()), *(float(method.variables[key].value) for key in scalars)])
        bar.set_postfix(loss=curve[-1][1], skipped=skipped)
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, iteration + 1, skipped, in_a_row, curve, method, velocity)
            saved = time.monotonic()
    return dict(zip(["iteration", "loss", *scalars], zip(*curve) if curve else [[]] * (2 + len(scalars)))), skipped


def _update(variables: dict[str, Variable], velocity: dict, loss: torch.Tensor, gradients: dict) -> str | None:
    """One step of SGD with momentum on every variable at once, or the reason why none was made."""
    if not math.isfinite(loss):
        return f"the loss is {float(loss)}"
    if bad := [key for key, gradient in gradients.items() if not bool(gradient.isfinite().all())]:
        return f"the gradient for {bad[0]} is not finite"
    moves = {key: variables[key].momentum * velocity[key] + gradient for key, gradient in gradients.items()}
    values = {key: variables[key].value - variables[key].lr * move for key, move in moves.items()}
    for key, value in values.items():
        if not bool(value.isfinite().all()) or (variables[key].positive and bool((value <= 0).any())):
            return f"{key} would leave {'(0, inf)' if variables[key].positive else 'the finite numbers'}"
    for key, move in moves.items():
        velocity[key], variables[key].value = move, values[key]
    return None


def _save(path, iteration, skipped, in_a_row, curve, method, velocity):
    tensors = {f"value.{key}": variable.value for key, variable in method.variables.items()}
    tensors |= {f"velocity.{key}": value for key, value in velocity.items()}
    tensors["curve"] = torch.tensor(curve, dtype=torch.float64)
    write_tensors(path, tensors, {"iteration": iteration, "skipped": skipped, "in_a_row": in_a_row})


def _load(path, method, velocity):
    tensors = load_file(path)
    for key, variable in method.variables.items():
        device = variable.value.device
        variable.value, velocity[key] = tensors[f"value.{key}"].to(device), tensors[f"velocity.{key}"].to(device)
    state = read_about(path)
    return state["iteration"], state["skipped"], state["in_a_row"], tensors["curve"].tolist()


def main(name: str) -> None:
    values, suite = find("runs", name)
    row = pick(DistillRow, values, f"runs.{name}")
    network = parse(NetworkSettings, suite["datasets"][row.dataset]["network"], f"datasets.{row.dataset}.network")
    prepared, reads, folder = Path("data/prepare") / row.dataset, Path("data") / row.reads, Path("data/distill") / name
    distill(row, name, network, prepared, reads, folder, param("seed"), pick_device(param("device")))


if __name__ == "__main__":
    run_stage(main)
