"""The loop of every distillation: SGD on the variables of a backbone, with checkpoints and a curve."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from stages.distillation.backbone import Backbone, Gradients, Variable
from stages.machine.precision import say_what_is_used, tf32_if_asked
from stages.runtime.checksums import is_whole
from stages.runtime.errors import UserError, is_about_memory
from stages.runtime.files import read_about, read_tensors, write_curve, write_tensors

__all__ = ["Learned", "learn"]

CHECKPOINT_SECONDS = 30  # between two checkpoints: a kill costs no more than that
SKIPS_IN_A_ROW = 10  # skipped updates after which a distillation is given up


class Learned(NamedTuple):
    curve: dict[str, list[float]]  # columns: iteration, loss, and every variable that is a scalar
    skipped: int  # updates


def learn(backbone: Backbone, checkpoint: Path | None, name: str, curve: Path | None = None) -> Learned:
    """Run all iterations of a backbone, which leaves its variables at their last values.

    An update is skipped if the loss or a gradient is not finite, or if a variable would leave its range.

    Args:
        checkpoint: a file to resume from, unless it is damaged, and to save to every half minute.
        name: of the row, for messages.
        curve: a file that gets the curve so far whenever the state is saved, for those who watch a long run.

    Raises:
        UserError: ten updates in a row were skipped.
    """
    say_what_is_used(backbone.precision, backbone.labels.device)
    state = State.at_start(backbone.variables)
    if checkpoint and is_whole(checkpoint):
        state.load(checkpoint)
    saved = time.monotonic()
    iterations = range(state.iteration, backbone.iterations)
    bar = tqdm(iterations, name, initial=state.iteration, total=backbone.iterations, disable=None)
    for iteration in bar:
        losses = []
        with tf32_if_asked(backbone.precision), advice_on_memory(backbone):
            for loss, gradients in backbone.updates(iteration):
                losses.append(loss)
                reason = state.update(loss, gradients)
                if state.skipped_in_a_row == SKIPS_IN_A_ROW:
                    problem = f"{name}: iteration {iteration}: {reason}, {SKIPS_IN_A_ROW} times in a row"
                    raise UserError(f"{problem}. {advice(backbone)}")
        mean_loss = float(torch.stack(losses).mean())
        state.end_iteration(mean_loss)
        bar.set_postfix(loss=mean_loss, skipped=state.skipped)
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(checkpoint)
            if curve:
                write_curve(curve, state.curve)
            saved = time.monotonic()
    return Learned(state.curve, state.skipped)


def advice(backbone: Backbone) -> str:
    """What the user can do about a distillation that was given up."""
    rates = [f"{key} {variable.lr:g}" for key, variable in backbone.variables.items()]
    return f"Lower the learning rates of the row's distill section (now: {', '.join(rates)})"


@contextmanager
def advice_on_memory(backbone: Backbone) -> Iterator[None]:
    """Note beside an error what the user can lower, where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if is_about_memory(problem) and backbone.memory:
            sizes = [f"{key} {value}" for key, value in backbone.memory.items()]
            problem.add_note(f"lower sizes of the row's distill section (now: {', '.join(sizes)})")
        raise


@dataclass
class State:
    """How far a distillation has come: all that it needs to go on after a kill."""

    variables: dict[str, Variable]
    velocity: dict[str, Tensor]  # of each variable
    curve: dict[str, list[float]]  # as in `Learned`
    iteration: int = 0  # the next one
    skipped: int = 0
    skipped_in_a_row: int = 0

    @classmethod
    def at_start(cls, variables: dict[str, Variable]) -> "State":
        """The state before the first iteration."""
        velocity = {key: torch.zeros_like(variable.value) for key, variable in variables.items()}
        scalars = [key for key, variable in variables.items() if variable.value.dim() == 0]
        columns = ["iteration", "loss", *scalars]
        return cls(variables, velocity, {column: [] for column in columns})

    def update(self, loss: Tensor, gradients: Gradients) -> str | None:
        """Take one step of SGD on all variables, or skip it and return the reason."""
        reason = self._step(loss, gradients)
        if reason is None:
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        return reason

    def _step(self, loss: Tensor, gradients: Gradients) -> str | None:
        velocity = {}
        values = {}
        checks = {"the loss is {loss}": loss.isfinite()}  # what is said where a check fails
        for key, gradient in gradients.items():
            checks[f"the gradient for {key} is not finite"] = gradient.isfinite().all()
        for key, gradient in gradients.items():
            variable = self.variables[key]
            velocity[key] = variable.momentum * self.velocity[key] + gradient
            values[key] = variable.value - variable.lr * velocity[key]
            allowed = "(0, inf)" if variable.positive else "the finite numbers"
            checks[f"{key} would leave {allowed}"] = in_range(values[key], variable.positive)
        passed = torch.stack(list(checks.values())).tolist()  # the CPU waits for a GPU here, and only once
        for reason, is_passed in zip(checks, passed):
            if not is_passed:
                return reason.format(loss=float(loss))
        for key, value in values.items():
            self.velocity[key] = velocity[key]
            self.variables[key].value = value
        return None

    def end_iteration(self, loss: float) -> None:
        """Add a point to the curve."""
        self.curve["iteration"].append(self.iteration)
        self.curve["loss"].append(loss)
        for key, variable in self.variables.items():
            if key in self.curve:
                self.curve[key].append(float(variable.value))
        self.iteration += 1

    def save(self, path: Path) -> None:
        """Write the values of the variables, and all the rest."""
        tensors = {}
        for key, variable in self.variables.items():
            tensors[f"value.{key}"] = variable.value
            tensors[f"velocity.{key}"] = self.velocity[key]
        for key, column in self.curve.items():
            tensors[f"curve.{key}"] = torch.tensor(column, dtype=torch.float64)
        counts = {
            "iteration": self.iteration,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }
        write_tensors(path, tensors, counts)

    def load(self, path: Path) -> None:
        """Go back to a saved state; the variables get their values of then."""
        tensors = read_tensors(path)
        for key, variable in self.variables.items():
            device = variable.value.device
            variable.value = tensors[f"value.{key}"].to(device)
            self.velocity[key] = tensors[f"velocity.{key}"].to(device)
        for key in self.curve:
            self.curve[key] = tensors[f"curve.{key}"].tolist()
        counts = read_about(path)
        self.iteration = counts["iteration"]
        self.skipped = counts["skipped"]
        self.skipped_in_a_row = counts["skipped_in_a_row"]


def in_range(value: Tensor, positive: bool) -> Tensor:
    """Whether all numbers are finite and, if they have to be, positive: a boolean scalar."""
    is_finite = value.isfinite().all()
    return is_finite & (value > 0).all() if positive else is_finite
