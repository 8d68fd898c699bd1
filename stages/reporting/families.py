"""Families: rows that differ in nothing but the mask of their distillation.

A row belongs to a family only where no other row fits as well, so that no row is taken for another.
"""

from collections.abc import Callable
from typing import NamedTuple

from stages.settings.tables import TableKeys

__all__ = ["Family", "families", "without_family"]

Rows = dict[str, TableKeys]


class Family(NamedTuple):
    """Rows that differ in nothing but the mask of their distillation."""

    plain: str  # without masks
    mdt: str | None  # at one mask ratio
    mdt_ds: str | None  # at a ratio that is drawn anew for every iteration


def families(rows: Rows) -> list[Family]:
    """A family for every plain row but those of the full data, in the order of the rows."""
    result = []
    for name, row in rows.items():
        if row.mdt == 0 and row.method != "full":
            mdt = _masked_row(rows, name, _has_one_ratio)
            mdt_ds = _masked_row(rows, name, _has_sampled_ratios)
            result.append(Family(name, mdt, mdt_ds))
    return result


def without_family(rows: Rows) -> list[str]:
    """The masked rows that are in no family: no plain row fits, or several rows do."""
    placed = set()
    for family in families(rows):
        placed |= {family.mdt, family.mdt_ds}
    return [name for name, row in rows.items() if row.mdt != 0 and name not in placed]


def _masked_row(rows: Rows, plain: str, has_kind: Callable[[TableKeys], bool]) -> str | None:
    """The row with masks that belongs to a plain row, and to no other plain row as well."""
    masked = [name for name, row in rows.items() if has_kind(row) and _differ_in_mask(rows[plain], row)]
    nearest = _nearest(rows, plain, masked)
    if nearest is None:
        return None
    plains = [name for name, row in rows.items() if row.mdt == 0 and _differ_in_mask(row, rows[nearest])]
    return nearest if _nearest(rows, nearest, plains) == plain else None


def _has_one_ratio(row: TableKeys) -> bool:
    return not isinstance(row.mdt, list) and row.mdt > 0


def _has_sampled_ratios(row: TableKeys) -> bool:
    return isinstance(row.mdt, list)


def _differ_in_mask(plain: TableKeys, masked: TableKeys) -> bool:
    """Whether two rows have the same settings but for `mdt`.

    The sets of `file` rows are made elsewhere, so each reads another folder and may have a step size of its
    own. Whether their budgets are said in the same words is left to `_nearest`.
    """
    changes: dict[str, object] = {"mdt": plain.mdt}
    if plain.backbone == "file":
        changes |= {"reads": plain.reads, "distill": plain.distill, "budget_note": plain.budget_note}
    return masked.model_copy(update=changes) == plain


def _nearest(rows: Rows, name: str, fitting: list[str]) -> str | None:
    """The row that fits alone, or that alone has the same `budget_note`, or the same `reads` besides."""
    same_note = [other for other in fitting if rows[other].budget_note == rows[name].budget_note]
    same_source = [other for other in same_note if rows[other].reads == rows[name].reads]
    for candidates in (fitting, same_note, same_source):
        if len(candidates) == 1:
            return candidates[0]
    return None
