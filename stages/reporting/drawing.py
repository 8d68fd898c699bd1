"""Figures that are drawn only when somebody needs them, and their files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from stages.reporting.formats import csv_text
from stages.reporting.redraw import digest, drawing_code, redraw
from stages.runtime.files import replacing, write_text

__all__ = ["SOURCES", "SVG", "Drawn", "write_figure", "write_figures"]

SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "figures"}  # text stays text; the same ids
# A change in one of these is a change in every figure.
FILES = ("choices.py", "drawing.py", "figures.py", "formats.py", "reach.py", "style.py")
SOURCES = [Path(__file__).with_name(name) for name in FILES]


class Drawn(NamedTuple):
    """A figure: what it shows, and how that is drawn.

    Nothing else may enter the drawing: the data and the words decide whether a figure has changed.
    """

    data: pd.DataFrame  # the numbers that are drawn, one line a point or bar
    draw: Callable[..., Figure]  # `draw(data, **words)`
    words: dict[str, Any]  # what else is shown, e.g. titles; of the types of JSON

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
    with matplotlib.rc_context(SVG), replacing(path.with_name(f"{path.name}.svg")) as temporary:
        drawn.figure.savefig(temporary, metadata={"Date": None})
    write_text(path.with_name(f"{path.name}.csv"), csv_text(drawn.data))


def _key(drawn: Drawn, code: str) -> str:
    """A hash of all that a figure is drawn from, its numbers in full precision."""
    numbers = drawn.data.to_csv(index=False)
    words = json.dumps(drawn.words)
    parts = (numbers, words, drawn.draw.__name__, code)
    return digest(*(part.encode() for part in parts))
