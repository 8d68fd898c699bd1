"""code: for every stage the modules that it imports, directly or not, with their hashes -> data/code/.

    python -m stages.code

A stage in dvc.yaml depends on its list in place of the modules, so an edit re-runs the stages that import the
edited module, and no others. A YAML file beside a module and of the same name belongs to that module. One
dependency instead of twenty for each stage keeps dvc.lock short, which DVC reads and writes after every
stage.
"""

import ast
from functools import cache
from pathlib import Path

from stages.runtime.errors import run_stage
from stages.runtime.files import write_result
from stages.runtime.reuse import file_hash

__all__ = ["closure", "lists"]

# These stages find modules by name: the first two may take every module of a room, `distill` takes the row's
# backbone.
ROOMS = {"train": "losses", "architectures": "networks"}
BACKBONES = "backbones"


def lists(root: Path) -> dict[str, dict[str, str]]:
    """SHA-256 by module for every stage, and for every backbone under `distill/<backbone>`."""
    hashes_by_stage = {}
    for file in modules_in(root / "stages"):
        stage = file.stem
        if stage == "distill":
            for backbone in modules_in(root / "stages" / BACKBONES):
                hashes_by_stage[f"distill/{backbone.stem}"] = hashes(root, closure(root, [file, backbone]))
        else:
            found_by_name = modules_in(root / "stages" / ROOMS[stage]) if stage in ROOMS else []
            hashes_by_stage[stage] = hashes(root, closure(root, [file, *found_by_name]))
    return hashes_by_stage


def modules_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.py") if file.stem != "__init__")


def closure(root: Path, modules: list[Path]) -> set[Path]:
    """The modules and all modules of this project that they import, also inside functions."""
    known: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in known:
            known.add(module)
            waiting += imports(root, module)
    return known


@cache
def imports(root: Path, module: Path) -> frozenset[Path]:
    """The modules of this project that one module names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = [root / (name.replace(".", "/") + ".py") for name in names if name.startswith("stages.")]
    return frozenset(file for file in files if file.exists())


def hashes(root: Path, modules: set[Path]) -> dict[str, str]:
    """SHA-256 of each module, by its path below the root, and of the YAML file of its name if any."""
    settings = {file.with_suffix(".yaml") for file in modules}
    files = sorted(modules | {file for file in settings if file.exists()})
    return {str(file.relative_to(root)): file_hash(file) for file in files}


def main() -> None:
    for name, modules in lists(Path()).items():
        write_result(Path("data/code") / f"{name}.json", modules)


if __name__ == "__main__":
    run_stage(main)
