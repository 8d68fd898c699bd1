"""A project in a folder of its own, for benchmarks of whole stages."""

import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from stages.runtime.files import write_json

__all__ = ["project"]


@contextmanager
def project(folder: Path, suite: dict[str, Any]) -> Iterator[None]:
    """Work in a project with the present params.yaml and one suite.

    Args:
        folder: the project's; it may be there.
        suite: as in suites/*.yaml, of which JSON is a part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "params.yaml").exists():
        shutil.copy("params.yaml", folder)
    write_json(folder / "suites" / "benchmark.yaml", suite)
    with chdir(folder):
        yield
