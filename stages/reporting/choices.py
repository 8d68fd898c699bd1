"""What the choices that the paper leaves open do: a table of all rows, and a figure of each row."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.reporting.cells import MISSING, REPEATS, SCORES, Table, means, pair, percent, temperature_cell
from stages.reporting.drawing import Drawn, percents
from stages.reporting.paper_tables import PAPER, printed_for
from stages.reporting.style import COLORS, SMALL, legend, name_panel, panels
from stages.settings.tables import TableKeys

__all__ = ["choices_figure", "choices_table", "met_by", "printed_ece"]

FAMILIES = {
    "step_size": "Step size",
    "focal": "Focal loss",
    "mixup": "Mixup",
    "label_smoothing": "Label smoothing",
    "mts": "MTS",
}
# The column of the paper's tables that a family is compared with.
COLUMNS = {"step_size": "raw"}
NUMBERS = ("accuracy", "ece", "confidence_gap")
NOTES = [
    f"In percent, {REPEATS}. Each choice is tried by itself: all else is the default, as in `params.yaml` and"
    " the row. Step sizes are choices of Raw.",
    "The defaults are those of the methods' sources. Nothing was chosen by these numbers, which are of the"
    " test images, and a choice that comes near the paper's number need not be the paper's.",
    "Focal loss: its source takes the gradient of the weight `(1 - p)^gamma` too; a widely copied"
    " implementation holds p constant there. Mixup: its source names no order with the augmentation; the"
    " public fork of the paper's first author mixes first.",
    "MTS: the paper has the step size 0.02 and 'only one step', the fork 0.01 and 50 iterations. † a"
    " temperature ended on a bound.",
    "The paper's ECE is that of its Table 5 or 1 for the same data set, backbone and images per class.",
]
LINE = 0.16  # inches of a choice in the figure
MARGIN = 0.5  # inches of the title and the numbers of a panel


def choices_table(rows: dict[str, TableKeys], tried: dict[str, dict]) -> Table:
    """Accuracy, ECE and over-confidence of every choice on every row.

    Args:
        rows: all rows of the tables.
        tried: `data/choices/<row>.json` by row, in the table's order; {} without a result.
    """
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for row, result in tried.items():
        if row not in rows:
            continue
        printed = printed_ece(rows[row])
        if not result:
            lines.append(_missing_line(row))
        for entry in result.get("entries", []):
            of_paper = printed.get(_column(entry["family"]))
            lines.append(_line(row, entry, of_paper))
            numbers.append(_numbers(row, entry, of_paper))
    title = "Choices that the paper leaves open"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(NOTES))


def met_by(numbers: pd.DataFrame) -> dict[str, str]:
    """By row a sentence that names the choices whose ECE lies within the paper's deviation of the paper's.

    Args:
        numbers: of the table of choices.
    """
    sentences: dict[str, str] = {}
    if numbers.empty:
        return sentences
    for row, of_row in numbers.groupby("row", sort=False):
        compared = of_row.dropna(subset=["paper_percent", "paper_std_percent"])
        parts = []
        for family, entries in compared.groupby("family", sort=False):
            mean, std = entries[["paper_percent", "paper_std_percent"]].iloc[0]
            distance = (100 * entries["ece_mean"] - mean).abs()
            met = "; ".join(entries["choice"][distance <= std]) or "none that was tried"
            parts.append(f"{FAMILIES[family]} ({pair([mean, std])}): {met}")
        if parts:
            heads = f"On `{row}` these choices come within the paper's deviation of its ECE."
            sentences[row] = f"{heads} {'. '.join(parts)}."
    return sentences


def printed_ece(row: TableKeys) -> dict[str, Any]:
    """The paper's ECE of a row by column, [mean, std] in percent; empty where it has none to compare with."""
    if row.mdt != 0:
        return {}
    return printed_for(row, PAPER["table5"]) or printed_for(row, PAPER["table1"])


def _column(family: str) -> str:
    return COLUMNS.get(family, family)


def _line(row: str, entry: dict[str, Any], of_paper: list[float] | None) -> dict[str, str]:
    line = {"Row": row, "Choice of": FAMILIES[entry["family"]], "Choice": entry["choice"]}
    line["Default"] = "yes" if entry["default"] else ""
    for name in NUMBERS:
        line[SCORES[name]] = percent(entry[name])
    line["T"] = temperature_cell(entry)
    line["The paper's ECE"] = pair(of_paper)
    return line


def _missing_line(row: str) -> dict[str, str]:
    line = {"Row": row, "Choice of": MISSING, "Choice": MISSING, "Default": ""}
    for name in NUMBERS:
        line[SCORES[name]] = MISSING
    return line | {"T": "", "The paper's ECE": ""}


def _numbers(row: str, entry: dict[str, Any], of_paper: list[float] | None) -> dict[str, Any]:
    line = {"row": row, "family": entry["family"], "choice": entry["choice"], "default": entry["default"]}
    line["repeats"] = len(entry["ece"])
    line |= means(entry, (*NUMBERS, "temperature"))
    if "bound_hit" in entry:
        line["bound_hits"] = sum(entry["bound_hit"])
    line["paper_percent"], line["paper_std_percent"] = of_paper or (None, None)
    return line


def choices_figure(entries: list[dict[str, Any]], printed: dict[str, Any]) -> Drawn:
    """The ECE of every choice on a row, one panel a family, with the paper's ECE where it has one.

    Args:
        entries: of `data/choices/<row>.json`.
        printed: the paper's ECE by column.
    """
    points = []
    for entry in entries:
        family = entry["family"]
        paper, paper_std = printed.get(_column(family)) or (np.nan, np.nan)
        point = {"family": FAMILIES[family], "choice": entry["choice"], "default": entry["default"]}
        point |= percents("ece", entry["ece"])
        point |= {"paper_percent": paper, "paper_std_percent": paper_std}
        points.append(point)
    data = pd.DataFrame(points)
    return Drawn(data, _draw_choices, {}, _span_of_choices(data))


def _span_of_choices(data: pd.DataFrame) -> str:
    """Between which mean ECE the choices of each family lie, and what the default has."""
    parts = []
    for family, of_family in data.groupby("family", sort=False):
        ece = of_family["ece_mean_percent"]
        default = ece[of_family["default"]]
        own = f" (default: {default.iloc[0]:.1f})" if len(default) else ""
        parts.append(f"{family} {ece.min():.1f} to {ece.max():.1f}{own}")
    return f"Mean ECE in percent, from the best choice to the worst: {'; '.join(parts)}."


def _draw_choices(data: pd.DataFrame) -> Figure:
    """Each family has its own x axis: step sizes reach 40 % and would flatten the others."""
    families = list(data["family"].unique())
    counts = [int((data["family"] == family).sum()) for family in families]
    height = MARGIN + LINE * len(data) / len(families)
    figure, axes = panels((len(families), 1), (5.6, height), height_ratios=counts)
    for axis, family in zip(axes.flat, families):
        _family_panel(axis, data[data["family"] == family])
        name_panel(axis, title=family)
    name_panel(axes[-1, 0], x="ECE (%)")
    legend(figure)
    return figure


def _family_panel(axis: Axes, points: pd.DataFrame) -> None:
    """A dot with its deviation for each choice, filled where it is the default; the paper's as a line."""
    paper = points["paper_percent"].iloc[0]
    std = points["paper_std_percent"].iloc[0]
    if np.isfinite(paper):
        axis.axvspan(paper - std, paper + std, color=COLORS["gap"], alpha=0.15, linewidth=0)
        axis.axvline(paper, color=COLORS["gap"], linestyle="--", linewidth=1.2, label="the paper")
    color = COLORS["mts"]
    places = pd.Series(range(len(points)), points.index)
    for name, filled in (("default", True), ("other choice", False)):
        shown = points[points["default"] == filled]
        axis.errorbar(
            shown["ece_mean_percent"],
            places[shown.index],
            xerr=shown["ece_std_percent"],
            fmt="o",
            color=color,
            markerfacecolor=color if filled else "white",
            markersize=4,
            linewidth=1,
            label=name,
        )
    axis.set_yticks(places, list(points["choice"]), fontsize=SMALL)
    axis.set_ylim(len(points) - 0.4, -0.6)
    axis.set_xlim(left=0)
