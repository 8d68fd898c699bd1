"""What `stages.tools.lent` leaves in its output folder: files of at most 16 MiB. Other rows stay.

- metrics.json: temperatures and scores of each row and repeat, and the names of arrays that had no room
- tables.md: the tables of these rows, beside the paper's numbers
- curves.csv: curves of experts and of distillation
- sets.safetensors, logits.safetensors: distilled sets with their settings, and test logits, in 16 bits
- features.safetensors: what the stage `features` wrote of rows that the suite lists there, in 16 bits
- pieces.json: seconds, memory of the largest process, device and commit of each piece
"""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import save

from stages.reporting import further_tables
from stages.reporting.cells import Results
from stages.reporting.choices import choices_table
from stages.reporting.formats import markdown
from stages.reporting.marks import marked, plain_name
from stages.reporting.paper_tables import PAPER_TABLES
from stages.reporting.reading import arrays_of_rows
from stages.reporting.shipped_table import shipped_table
from stages.reporting.without_images_table import without_images_table
from stages.runtime.errors import UserError
from stages.runtime.files import (
    read_about,
    read_arrays,
    read_curve,
    read_result,
    replacing,
    write_json,
    write_text,
)
from stages.runtime.reuse import read_json
from stages.settings.project import param
from stages.settings.rows import Row
from stages.settings.tables import TableKeys
from stages.tools.circumstances import circumstances
from stages.tools.lent_stages import buffers_of

__all__ = ["write_arrays", "write_numbers", "write_piece", "write_results"]

LIMIT = 16 * 2**20 - 2**18  # bytes of numbers in a file; the rest is for its header
POINTS = 1000  # of a curve
FIRST = ("/labels", "/cross_entropy")  # the arrays that are kept before the others


def write_piece(piece: dict[str, Any], out: Path) -> None:
    """Add a piece to pieces.json, with the machine and the commit that it ran on."""
    file = out / "pieces.json"
    with alone(out):
        pieces = read_json(file).get("pieces", [])
        write_json(file, {"pieces": [*pieces, piece | circumstances()]})


def alone(out: Path) -> FileLock:
    """What is held while files of an output folder are read and replaced: several checkouts may share it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(out.with_name(f".{out.name}.lock"))


def write_results(rows: list[Row], finished: set[str], out: Path) -> None:
    """Write the numbers of the finished stages to the output folder.

    Args:
        rows: those that the call named.
        finished: `<stage>@<row or buffer>`.
    """
    with alone(out):
        _write_results(rows, finished, out)


def _write_results(rows: list[Row], finished: set[str], out: Path) -> None:
    names = [row.name for row in rows]
    sets = {row.name: row.distilled for row in rows if f"distill@{row.name}" in finished}
    logits = {row.name: row.logits for row in rows if f"train@{row.name}" in finished}
    features = {row.name: row.features for row in rows if f"features@{row.name}" in finished}
    former = read_json(out / "metrics.json")
    left_out = [name for name in former.get("left_out", []) if name.split("/")[1] not in names]
    left_out += write_arrays(out / "sets.safetensors", sets, names)
    left_out += write_arrays(out / "logits.safetensors", logits, names)
    left_out += write_arrays(out / "features.safetensors", features, names)
    numbers = former.get("rows", {})
    for row in rows:
        numbers[row.name] = numbers_of(row, finished)
    write_numbers(out / "metrics.json", {"rows": numbers, "left_out": left_out})
    write_text(out / "tables.md", tables_text(numbers))
    write_curves(out / "curves.csv", rows, finished)


def write_numbers(path: Path, values: dict[str, Any]) -> None:
    """JSON with every list of numbers in a line, which is a fifth of the lines."""
    text = json.dumps(values, indent=1, allow_nan=False)
    lists = re.compile(r"\[[^\[\]{}]*\]")
    write_text(path, lists.sub(lambda match: " ".join(match[0].split()), text) + "\n")


def numbers_of(row: Row, finished: set[str]) -> dict[str, Any]:
    """The JSON files of a row by stage."""
    files = {
        "temperature": row.shipped,
        "calibrate": row.temperatures,
        "evaluate": row.results,
        "ablate": row.ablation,
        "svd": row.singular_values,
        "choices": row.choices,
        "reach": row.reach,
    }
    return {stage: read_result(file) for stage, file in files.items() if f"{stage}@{row.name}" in finished}


def tables_text(numbers: dict[str, dict[str, Any]]) -> str:
    """The tables of all rows in metrics.json, without those that have no line for them."""
    evaluated = of_stage(numbers, "evaluate")
    ablations = of_stage(numbers, "ablate")
    reached = of_stage(numbers, "reach")
    every_row = results_of(list(numbers), evaluated)
    results = every_row.without_quick()
    tables = [make(results) for make in PAPER_TABLES.values()]
    tables.append(further_tables.starts([row for row in results.rows if row in ablations], ablations))
    tables.append(choices_table(results.rows, of_stage(numbers, "choices")))
    tables += [shipped_table(results.rows, reached), without_images_table(results, reached)]
    # Results of older versions have no intervals.
    complete = [
        row for row in results.rows if row in evaluated and "interval" in evaluated[row]["methods"]["raw"]
    ]
    for make in (further_tables.intervals, further_tables.overcalibration, further_tables.scores):
        tables.append(make(results.of(complete)))
    tables.append(further_tables.quick(every_row.quick()))
    sections = []
    for table in tables:
        if len(table.text) and plain_name(table.text["Row"].iloc[0]) in numbers:
            sections.append(f"## {table.title}\n\n{markdown(marked(table, every_row))}")
    return "\n\n".join(sections) + "\n"


def of_stage(numbers: dict[str, dict[str, Any]], stage: str) -> dict[str, dict]:
    """The results of a stage, of the rows that have them."""
    return {name: stages[stage] for name, stages in numbers.items() if stage in stages}


def results_of(names: list[str], evaluated: dict[str, dict]) -> Results:
    rows = {name: Row(name).keys(TableKeys) for name in names}
    return Results(rows, evaluated, param("calibrate.start"))


def write_arrays(file: Path, sources: dict[str, Path], rows: list[str]) -> list[str]:
    """Write each row's arrays as `<row>/<name>` in 16 bits while there is room; no file where there are none.

    Labels and the logits of cross-entropy go first, then the smallest.

    Args:
        sources: safetensors files by row.
        rows: those whose former arrays are replaced.

    Returns:
        the names of the arrays that had no room.
    """
    arrays, about = arrays_of_rows(file) if file.exists() else ({}, {})
    arrays = {name: array for name, array in arrays.items() if name.split("/")[0] not in rows}
    for row, source in sources.items():
        about[row] = read_about(source)
        for name, array in read_arrays(source).items():
            arrays[f"{row}/{name}"] = in_16_bits(array)
    kept: dict[str, np.ndarray] = {}
    room = LIMIT
    for name in sorted(arrays, key=lambda name: (not name.endswith(FIRST), arrays[name].nbytes, name)):
        if arrays[name].nbytes <= room:
            kept[name] = arrays[name]
            room -= arrays[name].nbytes
    if kept or file.exists():
        with replacing(file) as temporary:
            temporary.write_bytes(save(kept, {"about": json.dumps(about)}))
    return [f"{file.stem}/{name}" for name in sorted(arrays.keys() - kept.keys())]


def in_16_bits(array: np.ndarray) -> np.ndarray:
    """As float16 or int16; a single number, such as a step size, stays as it is."""
    if not array.ndim:
        return array
    return array.astype("float16" if array.dtype.kind == "f" else "int16")


def write_curves(file: Path, rows: list[Row], finished: set[str]) -> None:
    """Write the curves, one line for each value. Those of other rows and buffers stay."""
    curves = {f"distill@{row.name}": (row.curve, row.distilled) for row in rows}
    for row in rows:
        for buffer in buffers_of(row):
            files = (buffer.folder / "curve.csv", buffer.folder / "trajectories.safetensors")
            curves[f"buffer@{buffer.name}"] = files
    lines = [["stage", "name", "step", "curve", "value"]]
    former = list(csv.reader(file.open()))[1:] if file.exists() else []
    if any(len(line) != len(lines[0]) for line in former):
        raise UserError(f"{file} is damaged; delete it, and name all of its rows again")
    lines += [line for line in former if f"{line[0]}@{line[1]}" not in curves]
    for stage in sorted(curves.keys() & finished):
        lines += [[*stage.split("@"), *point] for point in points_of(*curves[stage])]
    write_text(file, "".join(",".join(line) + "\n" for line in lines))


def points_of(curve: Path, made_with: Path) -> list[tuple[str, str, str]]:
    """Step, name of the number, and value; of a long curve some of the steps.

    Args:
        made_with: as in `read_curve`.
    """
    steps, *columns = read_curve(curve, made_with).items()
    interval = math.ceil(len(steps[1]) / POINTS) or 1
    points = []
    for i in range(0, len(steps[1]), interval):
        points += [(steps[1][i], name, column[i]) for name, column in columns]
    return points
