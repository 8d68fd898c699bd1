"""Figures that are drawn only when somebody needs them, and their files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from stages.reporting.cells import mean_std
from stages.reporting.formats import csv_text
from stages.reporting.redraw import digest, drawing_code, redraw
from stages.reporting.svg import compact
from stages.runtime.files import write_text

__all__ = ["SOURCES", "Drawn", "percents", "stacked", "svg_text", "write_figure", "write_figures"]

SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "figures"}  # text stays text; the same ids
# A change in one of these is a change in every figure.
FILES = (
    "ablation_figures.py",
    "by_ipc.py",
    "choices.py",
    "decompositions.py",
    "drawing.py",
    "formats.py",
    "hero.py",
    "histograms.py",
    "maps.py",
    "reach_figure.py",
    "reliability.py",
    "style.py",
    "svg.py",
)
SOURCES = [Path(__file__).with_name(name) for name in FILES]


class Drawn(NamedTuple):
    """A figure: what it shows, how that is drawn, and what follows from it.

    Nothing else may enter the drawing: the data and the words decide whether a figure has changed.
    """

    data: pd.DataFrame  # the numbers that are drawn, one line a point or bar
    draw: Callable[..., Figure]  # `draw(data, **words)`
    words: dict[str, Any]  # what else is shown, e.g. titles; of the types of JSON
    conclusion: str = ""  # what the numbers say, in sentences; the end of the caption

    @property
    def figure(self) -> Figure:
        """The figure, drawn anew."""
        return self.draw(self.data, **self.words)


def write_figures(drawn: dict[str, Drawn], folder: Path) -> None:
    """Write `<folder>/<name>.svg` and `.csv` of the figures that have changed, and delete all other files."""
    code = drawing_code(SOURCES)
    keys = {name: _key(figure, code) for name, figure in drawn.items()}
    redraw(folder, keys, (".svg", ".csv"), lambda name: write_figure(drawn[name], folder / name))


def write_figure(drawn: Drawn, path: Path) -> None:
    """Write `<path>.svg` and `<path>.csv`, the same bytes every time."""
    write_text(path.with_name(f"{path.name}.svg"), svg_text(drawn))
    write_text(path.with_name(f"{path.name}.csv"), csv_text(drawn.data))


def svg_text(drawn: Drawn) -> str:
    """The figure as SVG, with the conclusion as its description."""
    file = io.StringIO()
    with matplotlib.rc_context(SVG):
        drawn.figure.savefig(file, format="svg", metadata={"Date": None})
    return compact(file.getvalue(), drawn.conclusion)


def stacked(parts: dict[Any, pd.DataFrame], *names: str) -> pd.DataFrame:
    """One table of several; the columns `names` say which part a line belongs to."""
    if not parts:
        return pd.DataFrame(columns=list(names))
    together = pd.concat(parts, names=names)
    return together.reset_index(list(names)).reset_index(drop=True)


def percents(number: str, values: list[float]) -> dict[str, float]:
    """Mean and standard deviation of shares, in percent, and how many they are."""
    mean, std = mean_std(values)
    return {
        f"{number}_mean_percent": 100 * mean,
        f"{number}_std_percent": 100 * std,
        "repeats": len(values),
    }


def _key(drawn: Drawn, code: str) -> str:
    """A hash of all that a figure is drawn from, its numbers in full precision."""
    numbers = drawn.data.to_csv(index=False)
    words = json.dumps(drawn.words)
    parts = (numbers, words, drawn.conclusion, drawn.draw.__name__, code)
    return digest(*(part.encode() for part in parts))
