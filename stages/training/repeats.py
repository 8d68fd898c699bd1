"""The networks of a row, trained on its distilled set several times over, and judged on test images.

This is what the stages `train`, `architectures`, `svd` and `choices` have in common.
"""

from pathlib import Path

from stages.images.distilled import load_set
from stages.images.prepared import load_split
from stages.settings.rows import Row
from stages.settings.train import TrainKeys, TrainSettings
from stages.training.groups import Setup, own_settings, schedule_of

__all__ = ["input_files", "setup_of"]


def setup_of(row: Row, keys: TrainKeys, settings: TrainSettings) -> Setup:
    """How networks are trained on the distilled set of a row.

    Raises:
        UserError: `lr: learned` or `lr: teacher`, but the set came without such a step size.
    """
    device = row.device
    distilled = load_set(row.distilled, row.prepared)
    test = load_split(row.prepared, "test")
    schedule = schedule_of(keys, settings, distilled, row.name)
    repeats = own_settings(keys, settings).repeats
    return Setup(
        row=row.name,
        title=row.name,
        data=distilled.data,
        rows=distilled.rows_of(repeats),
        test=test,
        schedule=schedule,
        repeats=repeats,
        seed=row.seed,
        device=device,
    )


def input_files(row: Row) -> list[Path]:
    """The files that the networks of a row depend on."""
    images = sorted(row.prepared.glob("[!.]*.safetensors"))  # each file system has an order of its own
    return [row.distilled, *images]
