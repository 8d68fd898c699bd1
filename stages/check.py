"""check: refuse settings that cannot work, before any work starts.

    python -m stages.check

Runs again whenever a setting changes; its output never does, so nothing else re-runs because of it.
"""

import importlib
from pathlib import Path

from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_text
from stages.shared.settings import Settings, known, listed_rows, load, parse
from stages.shared.sources import find

__all__ = ["check"]


def check(settings: Settings, rows: dict) -> None:
    """Whatever needs more than one file to judge: names of methods, backbones' own keys, the images' numbers.

    Raises:
        UserError: the first mistake found.
    """
    losses = names_in("losses")
    for loss in settings.params.train.losses:
        known("params.yaml: train.losses", loss, losses)
    if "cross_entropy" not in settings.params.train.losses:
        raise UserError("params.yaml: train.losses: cross_entropy is missing; Raw, TS and MTS are made from its networks")
    sources = {name: find(settings.datasets[name].images, f"suites/{name}.yaml: datasets.{name}.images") for name in {row.dataset for row in rows.values()}}
    for name, row in rows.items():
        where = f"suites/{row.dataset}.yaml: runs.{name}"
        known(f"{where}.backbone", row.backbone, names_in("distillers"))
        own = parse(importlib.import_module(f"stages.distillers.{row.backbone}").Settings, row.distill, f"{where}.distill")
        smallest = min(sources[row.dataset].counts)
        if row.ipc is not None and row.ipc > smallest:
            raise UserError(f"{where}.ipc: {row.ipc} is above the smallest class of {row.dataset}; allowed: 1 to {smallest}")
        needed = getattr(own, "expert_epochs_read", 0)
        if needed and not row.reads.startswith("buffer/"):
            raise UserError(f"{where}.reads: {row.reads!r}, but backbone {row.backbone!r} reads expert trajectories; allowed: buffer/<name>")
        if needed and needed > (there := settings.buffers[row.reads.removeprefix("buffer/")].epochs):
            raise UserError(f"{where}.distill: max_start_epoch - 1 + expert_epochs = {needed}, but {row.reads} has {there} epochs; allowed: at most that")


def names_in(folder: str) -> list[str]:
    """The methods of a folder: its files."""
    return sorted(file.stem for file in (Path(__file__).parent / folder).glob("*.py") if file.stem != "__init__")


def main() -> None:
    settings = load()
    check(settings, listed_rows(settings))
    write_text(Path("data/check/passed"), "passed\n")


if __name__ == "__main__":
    run_stage(main)
