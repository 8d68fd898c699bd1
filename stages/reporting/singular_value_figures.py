"""Figures 3, 5 and 13: what is lost with the largest singular values, and what these explain."""

import numpy as np

from stages.reporting.decompositions import Compared, figure3, figure5, figure13
from stages.reporting.drawing import Drawn
from stages.reporting.families import families
from stages.reporting.rows_of_figures import (
    REFERENCES,
    largest_sets,
    legend_labels,
    with_and_without_mdt,
)
from stages.settings.tables import TableKeys

__all__ = ["singular_value_figures"]


def singular_value_figures(rows: dict[str, TableKeys], decomposed: dict[str, dict]) -> dict[str, Drawn]:
    """Figure 3 of plain sets and the full data, Figure 5 of sets with and without MDT, and Figure 13.

    Random real images are the control: in Figure 5 those of as many images per class as the other rows.

    Args:
        rows: of the suite, by name.
        decomposed: `data/svd/<row>.json` by row.
    """
    dropped = [name for name, values in decomposed.items() if values["dropped"]]
    plain = [name for name in dropped if rows[name].mdt == 0]
    pairs = with_and_without_mdt(rows, dropped)
    largest = largest_sets(rows, list(decomposed))
    drawn = {}
    if plain:
        drawn["figure3"] = figure3(_labelled(rows, plain, decomposed, "dropped"), _compared(rows, plain))
    if pairs:
        drawn["figure5"] = figure5(_labelled(rows, pairs, decomposed, "dropped"), _pairs(rows, pairs))
    if largest:
        values = _labelled(rows, largest, decomposed, "singular_values")
        of_sets = {label: np.array(of_set) for label, of_set in values.items()}
        drawn["figure13"] = figure13(of_sets, _compared(rows, largest))
    return drawn


def _compared(rows: dict[str, TableKeys], names: list[str]) -> Compared:
    """The labels of the distilled sets, of the full data, and of the first random images."""
    labels = legend_labels({name: rows[name] for name in names})
    distilled = [labels[name] for name in names if rows[name].method not in REFERENCES]
    full = [labels[name] for name in names if rows[name].method == "full"]
    random = [labels[name] for name in names if rows[name].method == "random"]
    return Compared(distilled, full[0] if full else "", random[0] if random else "")


def _pairs(rows: dict[str, TableKeys], names: list[str]) -> dict[str, str]:
    """The label of each set with MDT, with that of the same without."""
    shown = {name: rows[name] for name in names}
    labels = legend_labels(shown)
    pairs = {}
    for family in families(shown):
        for masked in (family.mdt, family.mdt_ds):
            if masked is not None:
                pairs[labels[masked]] = labels[family.plain]
    return pairs


def _labelled(
    rows: dict[str, TableKeys], names: list[str], decomposed: dict[str, dict], key: str
) -> dict[str, list]:
    """`key` of the results of the rows, by what a legend calls the rows."""
    labels = legend_labels({name: rows[name] for name in names})
    return {labels[name]: decomposed[name][key] for name in names}
