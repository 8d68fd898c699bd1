"""code: for every stage a list of the modules that it imports, directly or not, with their hashes -> data/code/.

    python -m stages.code

What a stage depends on in dvc.yaml in place of the modules themselves: an edit re-runs the stages that import the edited
module, and no others. One file instead of twenty for each of its lines also keeps dvc.lock short, which DVC reads and
writes anew for every stage (with 11,000 lines that took two seconds each).
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from stages.shared.errors import run_stage
from stages.shared.files import write_json

__all__ = ["closure", "lists"]

FOUND_BY_NAME = {"train": "losses", "architectures": "networks"}  # stages that take any module of a folder
ONE_OF = {"distill": "distillers"}  # and one of a folder, which the row names


def lists(root: Path) -> dict[str, dict[str, str]]:
    """Module -> MD5 for every stage, by `<stage>`, or `<stage>/<method>` for one that takes one method of a folder."""
    found = {}
    for file in sorted((root / "stages").glob("*.py")):
        stage, more = file.stem, methods(root, FOUND_BY_NAME.get(file.stem))
        if stage in ONE_OF:
            found |= {f"{stage}/{Path(one).stem}": hashes(root, closure(root, {f"stages/{stage}.py", one})) for one in methods(root, ONE_OF[stage])}
        elif stage != "__init__":
            found[stage] = hashes(root, closure(root, {f"stages/{stage}.py", *more}))
    return found


def methods(root: Path, folder: str | None) -> list[str]:
    """The modules of a folder of stages/."""
    return [str(file.relative_to(root)) for file in sorted((root / "stages" / folder).glob("*.py")) if file.stem != "__init__"] if folder else []


def closure(root: Path, modules: set[str]) -> set[str]:
    """The modules with all that they import of this project, inside functions too."""
    known = set()
    while modules:
        known |= modules
        modules = set().union(*(imports(root, module) for module in modules)) - known
    return known


@cache
def imports(root: Path, module: str) -> frozenset[str]:
    """What one module imports itself of this project."""
    names = set()
    for node in ast.walk(ast.parse((root / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = {name.replace(".", "/") + ".py" for name in names if name.startswith("stages.")}
    return frozenset(file for file in files if (root / file).exists())


def hashes(root: Path, modules: set[str]) -> dict[str, str]:
    return {module: hashlib.md5((root / module).read_bytes()).hexdigest() for module in sorted(modules)}


def main() -> None:
    for name, modules in lists(Path()).items():
        write_json(Path("data/code") / f"{name}.json", modules)


if __name__ == "__main__":
    run_stage(main)
