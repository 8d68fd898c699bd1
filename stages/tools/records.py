"""What each result was made with: a file of reports/records/ has an entry for each run of its stage.

An entry says which commit of the code ran with which settings, seed and packages, on which machine, for how
many seconds and in how much memory, and which files it has made, with their checksums. It lists a file only
until a later run makes that file anew, and it goes when no file is left.

Records are no outputs of DVC and no stage depends on them: seconds are different each time.
"""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from inspect import getfile
from pathlib import Path
from typing import Any

from stages.machine.cores import core_count
from stages.runtime.checkpoint import earlier_attempts
from stages.runtime.checksums import digest_of
from stages.runtime.errors import UserError
from stages.runtime.files import write_text
from stages.runtime.reuse import read_json
from stages.settings.project import params_of_results
from stages.settings.rows import DATA, RECORDS
from stages.tools.circumstances import commit, processor_name
from stages.tools.unchanged import KINDS, check_code, check_settings, entry_of, settings_of

__all__ = ["recorded"]

PACKAGES = (
    "torch",
    "torchvision",
    "kornia",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pillow",
    "safetensors",
)
KIBIBYTE = 1 if sys.platform == "darwin" else 1024  # the system's unit of memory, in bytes

State = tuple[int, int, int]


def recorded(main: Callable[..., None]) -> Callable[..., None]:
    """A stage's `main` that keeps a record of what it makes in `data/<stage>`."""
    stage = Path(getfile(main)).stem

    @wraps(main)
    def run(*names: str) -> None:
        begun = datetime.now(UTC)
        start = time.monotonic()
        check_code(stage, names)
        settings = settings_of(stage, names)
        made_with = origin(stage, names)
        before = states(stage, names)
        main(*names)
        check_settings(stage, names, settings)
        made = [path for path, state in states(stage, names).items() if state != before.get(path)]
        if made:
            seconds = time.monotonic() - start
            entry = {"begun": begun.isoformat(timespec="seconds"), "seconds": round(seconds, 1)}
            entry |= costs() | made_with | graphics() | {"made": digests(made)}
            add_entry(record_file(stage, names), entry)

    return run


# What was made


def states(stage: str, names: tuple[str, ...]) -> dict[Path, State]:
    """The files below `data/<stage>` that have a checksum, as they lie on the disk.

    Args:
        names: the entries whose files are meant; empty for all.
    """
    paths = sorted((DATA / stage).rglob("*.*"))
    return {path: state(path) for path in paths if is_result(path, names)}


def is_result(path: Path, names: tuple[str, ...]) -> bool:
    is_named = not names or path.parts[2] in names or path.stem in names
    is_whole = not path.name.startswith(".")  # another process may be writing it
    return is_named and is_whole and path.suffix in (".json", ".safetensors")


def state(path: Path) -> State:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def digests(made: list[Path]) -> dict[str, str]:
    """The checksum that each file says of itself."""
    return {path.as_posix(): digest_of(path) for path in made}


# What it was made with


def costs() -> dict[str, Any]:
    """Seconds of the processor and the largest memory of this process and its children, in MiB."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    peak = max(own.ru_maxrss, children.ru_maxrss) * KIBIBYTE / 2**20
    values: dict[str, Any] = {"cpu_seconds": round(seconds, 1), "peak_mib": round(peak)}
    return values | earlier_attempts()


def origin(stage: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The code, the settings, the packages and the machine."""
    head = commit()
    settings = {"params.yaml": params_of_results()}
    if stage in KINDS:
        place, entry = entry_of(stage, names)
        settings[place] = entry
    return {
        "commit": head and head.removesuffix("-dirty"),
        "clean": head and not head.endswith("-dirty"),
        "seed": params_of_results().get("seed"),
        "settings": settings,
        "python": sys.version.split()[0],
        "packages": versions(),
        "processor": processor_name(),
        "cores": core_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    installed = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def graphics() -> dict[str, Any]:
    """The GPU and the most of its memory that was in use, where the stage has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mib": round(peak)}


# The file of records


def record_file(stage: str, names: tuple[str, ...]) -> Path:
    """The file of a stage; of a stage for each row, data set or buffer, that of its name."""
    return RECORDS / stage / f"{names[0]}.json" if stage in KINDS else RECORDS / f"{stage}.json"


def add_entry(file: Path, entry: dict[str, Any]) -> None:
    """Put an entry into a file of records; what it has made is no longer listed by the others."""
    runs = []
    for run in former_runs(file):
        run["made"] = {path: digest for path, digest in run["made"].items() if is_current(path, entry)}
        if run["made"]:
            runs.append(run)
    write_text(file, readable({"runs": [*runs, entry]}))


def former_runs(file: Path) -> list[dict[str, Any]]:
    """The entries of a file of records; none, with a line that says so, where it is no such file."""
    try:
        runs = read_json(file).get("runs", [])
        if all(isinstance(run["made"], dict) for run in runs):
            return runs
    except (UserError, AttributeError, KeyError, TypeError):
        pass
    print(f"{file} is no file of records: it begins anew", file=sys.stderr)
    return []


def is_current(path: str, entry: dict[str, Any]) -> bool:
    """Whether a file is there still, and was not made by a newer run."""
    return path not in entry["made"] and Path(path).exists()


def readable(values: dict[str, Any]) -> str:
    """JSON with a line for each list, for each section of settings and for the packages."""
    text = json.dumps(values, indent=1, allow_nan=False)
    for inner in (r"\[[^\[\]{}]*\]", r"(?<=^ {5})\"[^\"]*\": \{[^{}]*\}", r"\"packages\": \{[^{}]*\}"):
        text = re.sub(inner, lambda match: " ".join(match[0].split()), text, flags=re.MULTILINE)
    return text + "\n"
