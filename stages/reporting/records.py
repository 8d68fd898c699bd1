"""With what the files of each row were made, as a table of the page.

It is read from reports/records/, and for rows that ran elsewhere from their pieces.json.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from stages.reporting.elements import folded, inline, scrolling, tag
from stages.runtime.checksums import digest_of
from stages.runtime.reuse import read_json
from stages.settings.rows import RECORDS

__all__ = ["Made", "made_elsewhere", "made_here", "made_table"]

ORDER = ("prepare", "buffer", "distill", "train", "temperature", "masked", "calibrate", "evaluate")
HEADS = ("Stage", "Begun", "Wall time", "Peak memory", "Machine", "Code", "Seed", "PyTorch")
NOTE = (
    "Wall time and memory are those of the whole run, which may have worked on several rows. Settings and the"
    " versions of all packages: `reports/records/`, or for rows that ran elsewhere in their folder's README."
)


class Made(NamedTuple):
    """A run of a stage that has made files of a row."""

    stage: str
    name: str  # of the row, the buffer or the data set
    begun: str  # date and time, UTC
    seconds: float  # of all attempts
    peak_mib: float
    machine: str
    code: str  # the commit
    is_clean: bool  # the code and the settings were those of the commit
    torch: str
    seed: str = ""
    names: int = 1  # how many rows the run has worked on


def made_here() -> dict[str, list[Made]]:
    """The runs that made the files of `data/` as they are now, by row, buffer and data set."""
    made: dict[str, list[Made]] = {}
    for file in sorted(RECORDS.rglob("*.json")):
        for run in read_json(file).get("runs", []):
            of_run = sorted(set(_current_files(run)))
            for stage, name in of_run:
                made.setdefault(name, []).append(_made_by_run(run, stage, name, len(of_run)))
    return made


def _current_files(run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Stage and name of each file that a run has made, and that has not changed since then."""
    for path, digest in run["made"].items():
        file = Path(path)
        if file.exists() and digest_of(file) == digest:
            _, stage, name, *_ = file.parts
            yield stage, name.removesuffix(file.suffix)


def _made_by_run(run: dict[str, Any], stage: str, name: str, names: int) -> Made:
    return Made(
        stage=stage,
        name=name,
        begun=run["begun"],
        seconds=run["seconds"] + run.get("earlier_seconds", 0),
        peak_mib=run["peak_mib"],
        machine=run.get("gpu") or f"{run['processor']}, {run['cores']} cores",
        code=run["commit"] or "",
        is_clean=bool(run["clean"]),
        torch=run["packages"].get("torch", ""),
        seed=str(run["seed"]),
        names=names,
    )


def made_elsewhere(folder: Path) -> dict[str, list[Made]]:
    """The stages of rows that `stages.tools.lent` has run, from its pieces.json."""
    made: dict[str, list[Made]] = {}
    stages: dict[str, list[dict]] = {}
    for piece in read_json(folder / "pieces.json").get("pieces", []):
        stages.setdefault(piece["stage"], []).append(piece)
    for title, pieces in stages.items():
        stage, name = title.split("@", 1)
        made.setdefault(name, []).append(_made_by_pieces(stage, name, pieces))
    return made


def _made_by_pieces(stage: str, name: str, pieces: list[dict]) -> Made:
    last = pieces[-1]
    code = last.get("commit") or ""
    return Made(
        stage=stage,
        name=name,
        begun=pieces[0]["begun"],
        seconds=sum(piece["seconds"] for piece in pieces),
        peak_mib=max(piece["peak_mib"] for piece in pieces),
        machine=last.get("device") or "",
        code=code.removesuffix("-dirty"),
        is_clean=bool(code) and not code.endswith("-dirty"),
        torch=last.get("torch") or "",
    )


def made_table(made: list[Made]) -> str:
    """The runs as a folded table, in the order of the pipeline; "" without one."""
    if not made:
        return ""
    heads = "".join(tag("th", head, scope="col") for head in HEADS)
    lines = [_line(run) for run in sorted(made, key=_place)]
    note = tag("p", inline(NOTE), class_="notes")
    return folded("How its files were made", scrolling("How its files were made", heads, *lines), note)


def _place(made: Made) -> tuple[int, str]:
    stage = made.stage
    return (ORDER.index(stage) if stage in ORDER else len(ORDER)), stage


def _line(made: Made) -> str:
    rows = f" ({made.names} rows)" if made.names > 1 else ""
    changed = "" if made.is_clean or not made.code else ", changed"
    cells = [
        made.begun[:16].replace("T", " "),
        f"{made.seconds:,.1f} s" if made.seconds < 10 else f"{made.seconds:,.0f} s",
        f"{made.peak_mib:,.0f} MiB",
        made.machine,
        (made.code[:10] + changed) or "no commit",
        made.seed,
        made.torch,
    ]
    head = tag("th", escape(f"{made.stage} {made.name}{rows}"), scope="row")
    return tag("tr", head + "".join(tag("td", escape(cell)) for cell in cells))
