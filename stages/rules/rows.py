"""What a row of a suite has to keep to, beside what each of its keys may be."""

import importlib

from stages.images.archives import ARCHIVES
from stages.images.released import released_set
from stages.rules.names import check_reads, makers_of_sets, names_in, other_makers_of_sets
from stages.runtime.errors import UserError
from stages.settings.section import known, parse
from stages.settings.suite import RowEntry, Suite

__all__ = ["check_row"]


def check_row(row: RowEntry, suite: Suite, where: str) -> None:
    """
    Args:
        where: the suite's file and the row, for messages.

    Raises:
        UserError: the first mistake found.
    """
    check_references(row, suite, where)
    check_table_keys(row, where)
    check_set_of_another_row(row, suite, where)
    check_released_set(row, suite, where)
    check_step_size(row, where)


def check_references(row: RowEntry, suite: Suite, where: str) -> None:
    """The names that a row refers to, and the keys of its backbone."""
    known(f"{where}.dataset", row.dataset, suite.datasets)
    known(f"{where}.backbone", row.backbone, names_in("backbones"))
    backbone = importlib.import_module(f"stages.backbones.{row.backbone}")
    own_keys = parse(backbone.Settings, row.distill, f"{where}.distill")
    if (row.ipc is None) != (row.backbone == "full"):
        raise UserError(
            f"{where}.ipc: {row.ipc} with backbone {row.backbone!r}; "
            "allowed: null for full, a number >= 1 for others"
        )
    check_reads(row.reads, f"{where}.reads")
    reads_buffer = row.reads.startswith("buffer/")
    if reads_buffer:
        known(f"{where}.reads", row.reads, [f"buffer/{buffer}" for buffer in suite.buffers])
    epochs_read = getattr(own_keys, "expert_epochs_read", 0)
    if epochs_read and not reads_buffer:
        raise UserError(
            f"{where}.reads: {row.reads!r}, but backbone {row.backbone!r} reads expert trajectories; "
            "allowed: buffer/<name>"
        )
    if epochs_read:
        epochs = suite.buffer(row.reads.removeprefix("buffer/")).epochs
        if epochs_read > epochs:
            raise UserError(
                f"{where}.distill: max_start_epoch - 1 + expert_epochs = {epochs_read}, "
                f"but {row.reads} has {epochs} epochs; allowed: at most that"
            )


def check_set_of_another_row(row: RowEntry, suite: Suite, where: str) -> None:
    """A row that reads another row's set says of the set what that row says."""
    if not row.reads.startswith("distill/"):
        return
    if row.backbone != "file":
        raise UserError(
            f"{where}.reads: {row.reads!r} with backbone {row.backbone!r}; "
            "allowed: with backbone 'file' alone"
        )
    backbones = makers_of_sets()
    makers = [f"distill/{name}" for name, other in suite.runs.items() if other.backbone in backbones]
    known(f"{where}.reads", row.reads, makers)
    maker = suite.runs[row.reads.removeprefix("distill/")]
    same = {"dataset": maker.dataset, "ipc": maker.ipc, "mdt": maker.mdt, "made_by": maker.backbone}
    for key, value in same.items():
        own = getattr(row, key)
        if own != value:
            raise UserError(f"{where}.{key}: {own!r}, but the row reads {row.reads}; allowed: {value!r}")


def check_released_set(row: RowEntry, suite: Suite, where: str) -> None:
    """A row with a released set says of the set what the list of released sets says."""
    source = row.distill.get("source") if row.backbone == "file" else None
    if source is None:
        return
    released = released_set(source, f"{where}.distill.source")
    same = {"reads": "nothing", "ipc": released.ipc, "mdt": 0, "made_by": released.method}
    for key, value in same.items():
        own = getattr(row, key)
        if own != value:
            raise UserError(f"{where}.{key}: {own!r}, but the row has {source}; allowed: {value!r}")
    images = suite.datasets[row.dataset].images.source
    if images in ("digits", *ARCHIVES) and images != released.dataset:
        raise UserError(
            f"{where}.dataset: {row.dataset!r} has images of {images}, but the row has {source}; "
            f"allowed: a data set of {released.dataset}"
        )


def check_table_keys(row: RowEntry, where: str) -> None:
    """The keys by which tables put rows beside each other."""
    if row.made_by is not None and row.backbone != "file":
        raise UserError(
            f"{where}.made_by: {row.made_by!r} with backbone {row.backbone!r}; "
            "allowed: with backbone 'file' alone"
        )
    if row.made_by is not None:
        known(f"{where}.made_by", row.made_by, [*makers_of_sets(), *other_makers_of_sets()])
    if row.budget == "reduced" and not row.budget_note:
        raise UserError(f"{where}.budget_note: missing; `budget: reduced` needs words for what is reduced")
    if row.budget_note and row.budget != "reduced":
        raise UserError(
            f"{where}.budget_note: {row.budget_note!r} with budget {row.budget!r}; "
            "allowed: with `budget: reduced` alone"
        )


def check_step_size(row: RowEntry, where: str) -> None:
    """`lr` takes the step size of the set only where the backbone that made the set learns one."""
    if row.lr not in ("learned", "teacher"):
        return
    backbone = row.method if row.reads.startswith("distill/") else row.backbone
    settings = importlib.import_module(f"stages.backbones.{backbone}").Settings
    if not getattr(settings, "has_step_size", False):
        raise UserError(
            f"{where}.lr: {row.lr!r}, but sets of backbone {backbone!r} have no step size; "
            "allowed: a number > 0"
        )
