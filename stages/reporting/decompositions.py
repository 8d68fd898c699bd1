"""Figures 3, 5 and 13: what the singular values of a set hold. Sections 3.2 and 5.5, and Appendix B.2."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.reporting.drawing import Drawn, percents, stacked
from stages.reporting.style import DASHES, curve, legend, name_panel, panels, styles

__all__ = ["Compared", "cumulative_ratio", "figure3", "figure5", "figure13"]

EXPLAINED = 90  # percent of the squares of the singular values, in the conclusion of Figure 13
POINTS = 200  # of a curve of Figure 13; more would lie on each other


class Compared(NamedTuple):
    """The labels that the conclusion of a figure compares."""

    distilled: list[str]
    full: str  # the full data; empty where a figure does not show it
    random: str  # random real images; empty where a figure does not show them


def figure3(dropped: dict[str, list[dict]], compared: Compared) -> Drawn:
    """Figure 3, Section 3.2: accuracy after training on data without their largest singular values.

    Args:
        dropped: `{label: [{"share": 0.05, "accuracy": [one a repeat]}, ...]}`, shares in [0, 1].
    """
    data = _dropped_points(dropped)
    comparisons = []
    for label in compared.distilled:
        comparisons.append(_compared_losses(data, label, compared.full))
        comparisons.append(_compared_losses(data, label, compared.random))
    claim = "The paper says that distilled data lose more than full data"
    return Drawn(data, _draw_dropped, {}, _losses_and_claim(data, claim, comparisons))


def figure5(dropped: dict[str, list[dict]], pairs: dict[str, str]) -> Drawn:
    """Figure 5, Section 5.5: Figure 3 for data distilled with and without MDT.

    Args:
        pairs: the label of each set that was distilled with MDT, with that of the same without.
    """
    data = _dropped_points(dropped)
    comparisons = [_compared_losses(data, masked, plain) for masked, plain in pairs.items()]
    claim = "The paper says that data distilled with MDT lose less than without"
    return Drawn(data, _draw_dropped, {}, _losses_and_claim(data, claim, comparisons))


def _dropped_points(dropped: dict[str, list[dict]]) -> pd.DataFrame:
    lines = []
    for label, points in dropped.items():
        for point in sorted(points, key=lambda point: point["share"]):
            line = {"set": label, "dropped_percent": 100 * point["share"]}
            lines.append(line | percents("accuracy", point["accuracy"]))
    columns = ["set", "dropped_percent", *percents("accuracy", [0])]
    return pd.DataFrame(lines, columns=columns)


def _loss(data: pd.DataFrame, label: str) -> pd.DataFrame:
    """Points of accuracy that a set loses, and their standard deviation, by the share that is dropped."""
    of_set = data[data["set"] == label].set_index("dropped_percent")
    whole = of_set[of_set.index == 0]
    if whole.empty:
        return pd.DataFrame(columns=["mean", "std"])
    mean = whole["accuracy_mean_percent"].iloc[0] - of_set["accuracy_mean_percent"]
    std = np.hypot(whole["accuracy_std_percent"].iloc[0], of_set["accuracy_std_percent"])
    return pd.DataFrame({"mean": mean, "std": std}).drop(index=0)


def _losses_and_claim(data: pd.DataFrame, claim: str, comparisons: list[str]) -> str:
    """The conclusion of Figures 3 and 5."""
    kept = [comparison for comparison in comparisons if comparison]
    if not kept:
        return _losses(data)
    rule = "Counted are differences of more than their standard deviations together."
    return f"{_losses(data)} {claim}; here, {'; '.join(kept)}. {rule}"


def _losses(data: pd.DataFrame) -> str:
    """How much accuracy each set loses with the smallest and with the largest share."""
    losses = {label: _loss(data, label)["mean"] for label in data["set"].unique()}
    losses = {label: loss for label, loss in losses.items() if len(loss)}
    if not losses:
        return ""
    shares = next(iter(losses.values())).index
    parts = []
    for share in dict.fromkeys([min(shares), max(shares)]):
        numbers = [f"{label} {loss[share]:.1f}" for label, loss in losses.items() if share in loss]
        parts.append(f"without the largest {share:g} %: {', '.join(numbers)}")
    return f"Points of accuracy lost {'; '.join(parts)}."


def _compared_losses(data: pd.DataFrame, label: str, other: str) -> str:
    """At how many shares a set loses more and less than another, by more than their standard deviations."""
    ours = _loss(data, label)
    theirs = _loss(data, other)
    both = ours.join(theirs.add_suffix("_other"), how="inner")
    if both.empty:
        return ""
    difference = both["mean"] - both["mean_other"]
    doubt = np.hypot(both["std"].astype(float), both["std_other"].astype(float))
    more = int((difference > doubt).sum())
    less = int((difference < -doubt).sum())
    return f"{label} loses more than {other} at {more} and less at {less} of {len(both)} shares"


def _draw_dropped(data: pd.DataFrame) -> Figure:
    figure, ((axis,),) = panels((1, 1), (4.2, 3.2))
    for label, style in styles(data["set"].unique()).items():
        curve(axis, data[data["set"] == label], "dropped_percent", "accuracy", label=label, **style)
    axis.set_xticks(data["dropped_percent"].unique())
    name_panel(axis, x="share of the largest singular values dropped (%)", y="accuracy (%)")
    legend(figure)
    return figure


def figure13(singular_values: dict[str, np.ndarray], compared: Compared) -> Drawn:
    """Figure 13, Appendix B.2: cumulative explained ratio of the largest singular values.

    They are the singular values of all images of a set as one matrix.

    Args:
        singular_values: `{label: (K,)}`, descending; K may differ.
    """
    points = {}
    needed = {}
    for label, values in singular_values.items():
        explained = 100 * cumulative_ratio(values)
        components = np.linspace(0, 100, len(explained))
        needed[label] = float(components[np.argmax(explained >= EXPLAINED)])
        step = math.ceil(len(explained) / POINTS)
        kept = np.unique([*range(0, len(explained), step), len(explained) - 1])
        points[label] = pd.DataFrame(
            {"components_percent": components[kept], "explained_percent": explained[kept]}
        )
    return Drawn(stacked(points, "set"), _draw_cumulative, {}, _concentration(needed, compared))


def _concentration(needed: dict[str, float], compared: Compared) -> str:
    """Whether distilled sets need a smaller share of their components than real images."""
    numbers = ", ".join(f"{label} {share:.0f} %" for label, share in needed.items())
    sentences = [f"Share of the components that explains {EXPLAINED} %: {numbers}."]
    distilled = [needed[label] for label in compared.distilled if label in needed]
    counts = []
    for name, label in (("the full data", compared.full), ("random images", compared.random)):
        if label in needed and distilled:
            fewer = sum(share < needed[label] for share in distilled)
            counts.append(f"{fewer} of {len(distilled)} distilled sets need fewer than {name}")
    if counts:
        claim = "The paper says that distilled data need fewer than full data; here,"
        sentences.append(f"{claim} {', and '.join(counts)}.")
    return " ".join(sentences)


def _draw_cumulative(data: pd.DataFrame) -> Figure:
    figure, ((axis,),) = panels((1, 1), (4.2, 3.6))
    for i, (label, style) in enumerate(styles(data["set"].unique()).items()):
        points = data[data["set"] == label]
        # A mark every 15 % of the panel's diagonal, where there are enough points for it.
        marks = (0.03 * i, 0.15) if len(points) > 20 else None
        axis.plot(
            points["components_percent"],
            points["explained_percent"],
            label=label,
            linestyle=DASHES[i % len(DASHES)],
            linewidth=1.2,
            markersize=4,
            markevery=marks,
            **style,
        )
    axis.plot([0, 100], [0, 100], color="gray", linewidth=0.8, linestyle="--", label="all components alike")
    axis.set(xlim=(-1, 101), ylim=(-1, 102))
    name_panel(axis, x="share of the components (%)", y="cumulative explained ratio (%)")
    legend(figure)
    return figure


def cumulative_ratio(singular_values: np.ndarray) -> np.ndarray:
    """`sum(s[:k]^2) / sum(s^2)` for k = 0 ... K, `(K + 1,)`: from exactly 0 to exactly 1.

    Args:
        singular_values: `(K,)`, not all zero.
    """
    squares = np.asarray(singular_values, float) ** 2
    energy = np.concatenate([[0.0], np.cumsum(squares)])
    return energy / energy[-1]
