"""A small project in a folder of its own: settings, pictures, and the stages run on them by name."""

import copy
import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from stages.runtime.files import write_tensors

ROOT = Path(__file__).parent.parent
CLASSES = ("left", "middle", "right")
FOR_ALL_ROWS = (
    "temperature",
    "masked",
    "calibrate",
    "evaluate",
    "ablate",
    "svd",
    "features",
    "architectures",
    "reach",
    "choices",
)
MTT = {
    "iterations": 3,
    "syn_steps": 3,
    "expert_epochs": 2,
    "max_start_epoch": 2,
    "lr_img": 10,
    "lr_lr": 1e-6,
    "lr_teacher": 0.05,
    "batch_syn": 4,
}
PARAMS = {
    "mask_ratio": None,
    "seed": 0,
    "train": {
        "repeats": 2,
        "losses": ["cross_entropy", "mixup", "label_smoothing", "focal"],
        "batch": 16,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "holdout": 0.1,
        "mixup_alpha": 1.0,
        "label_smoothing": 0.1,
        "focal_gamma": 1.0,
        "drop": True,
        "mixup_first": False,
        "precision": "float32",
    },
    "calibrate": {"start": 1.5, "lr": 0.02, "max_iter": 50, "share": 0.1, "bounds": [0.05, 20.0]},
    "temperature": {"networks": 2, "images": 30},
    "ablate": {"ratios": [0, 0.3, 0.8], "shares": [0.1, 0.5], "starts": [1.0, 3.0], "steps": [1, 20, 60]},
    "reach": {
        "networks": [1, 2, 3],
        "images": [6, 30],
        "folds": 2,
        "augmentations": 2,
        "shifts": {"rotation": [30], "noise": [0.1], "blur": [0.1], "contrast": [0.5]},
    },
    "choices": {
        "mixup_alpha": [0.4, 1.0],
        "label_smoothing": [0.1, 0.2],
        "step_size": [0.2, 1.0],
        "lbfgs_lr": [0.02],
        "lbfgs_steps": [1, 50],
        "starts": [1.0, 1.5],
        "focal_gamma": [1.0, 2.0],
    },
    "evaluate": {"bins": 10, "resamples": 20},
    "device": "cpu",
    "data_root": "raw",
}


def row(**changes) -> dict:
    """A row of the suite `shapes`: MTT with two images a class, but for the changes."""
    values = {
        "suite": "shapes",
        "dataset": "shapes",
        "backbone": "mtt",
        "ipc": 2,
        "reads": "buffer/shapes",
        "mdt": 0,
        "distill": MTT,
        "epochs": 6,
        "lr": "learned",
        "augment": True,
        "train": {},
        "mask_ratio": 0.3,
    }
    return copy.deepcopy(values | changes)


def suite() -> dict:
    """A suite of five rows on pictures of three classes, as it stands in suites/shapes.yaml."""
    real = {"reads": "nothing", "distill": {}, "lr": 0.05}
    named = {"suite": "shapes", "dataset": "shapes"}
    decomposed = named | {"drop": [0, 0.2], "epochs": 6}
    looked_into = named | {
        "outside": "shapes-turned",
        "losses": ["cross_entropy", "mixup"],
        "ratios": [0.1, 0.3],
        "per_class": 8,
        "perplexity": 5,
    }
    network = {"width": 4, "depth": 2}
    datasets = {
        "shapes": {
            "suite": "shapes",
            "images": {"source": "pictures", "whitening": "zca"},
            "network": network,
        },
        "shapes-turned": {
            "suite": "shapes",
            "images": {"source": "pictures", "quarter_turns": 1},
            "network": network,
        },
    }
    buffer = named | {"experts": 2, "epochs": 3, "lr": 0.05, "batch": 16}
    rows = {
        "shapes-mtt-ipc2": row(),
        "shapes-mtt-ipc2-mdt": row(mdt=0.1),
        "shapes-mtt-ipc2-mdtds": row(mdt=[0, 0.1]),
        "shapes-random-ipc1": row(backbone="random", ipc=1, **real),
        "shapes-full": row(backbone="full", ipc=None, epochs=2, **real),
    }
    return copy.deepcopy(
        {
            "datasets": datasets,
            "buffers": {"shapes": buffer},
            "runs": rows,
            "architectures": {"shapes-mtt-ipc2": named | {"networks": ["convnet", "mlp"]}},
            "reach": {
                "shapes-mtt-ipc2": named | {"carried": ["shapes-mtt-ipc2-mdt"]},
                "shapes-random-ipc1": named,
            },
            "choices": {"shapes-mtt-ipc2": named},
            "svd": {name: decomposed for name in ("shapes-mtt-ipc2", "shapes-mtt-ipc2-mdt", "shapes-full")},
            "features": {
                name: looked_into for name in ("shapes-mtt-ipc2", "shapes-mtt-ipc2-mdt", "shapes-full")
            },
        }
    )


def make_project(folder: Path, params: dict | None = None, suites: dict[str, dict] | None = None) -> Path:
    """Write params.yaml, suites/*.yaml, a dvc.yaml that lists them, and the pictures.

    Args:
        params: as in params.yaml; None: those above.
        suites: by name; None: the suite above.
    """
    suites = suites or {"shapes": suite()}
    (folder / "suites").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "nothing").touch()
    write_yaml(folder / "params.yaml", params or PARAMS)
    for name, values in suites.items():
        write_yaml(folder / "suites" / f"{name}.yaml", values)
    write_yaml(folder / "dvc.yaml", {"vars": [f"suites/{name}.yaml" for name in suites]})
    draw_pictures(folder / "pictures")
    return folder


def copy_code(folder: Path, stages: Sequence[str] = ()) -> None:
    """Bring a project the repository's stages and pipeline, and empty results of other machines.

    Args:
        stages: those of dvc.yaml that the pipeline has; none: all of them.
    """
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    all_stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    kept = {name: stage for name, stage in all_stages.items() if not stages or name in stages}
    write_yaml(folder / "dvc.yaml", {"vars": ["suites/shapes.yaml"], "stages": kept})
    (folder / "README.md").touch()
    for file in (folder / dep for dep in all_stages["report"]["deps"] if dep.endswith("/metrics.json")):
        file.parent.mkdir(parents=True)
        file.write_text('{"rows": {}}')
    (folder / "reports/benchmarks").mkdir()
    (folder / "reports/benchmarks/grid.json").write_text("{}")
    (folder / "reports/cifar10/features.safetensors").touch()
    (folder / "reports/cifar10/distilled").mkdir()
    (folder / "reports/cifar10/distilled/none").touch()


def write_arrays(path: Path, arrays: dict[str, np.ndarray], about: dict | None = None) -> None:
    """A file as a stage would write it, with these arrays."""
    write_tensors(path, {name: torch.from_numpy(values) for name, values in arrays.items()}, about)


def write_yaml(path: Path, values: dict) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def draw_pictures(folder: Path) -> None:
    """Draw 20 training and 10 test pictures of each class, 8x8 in color, bright in one third."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for k, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3))
                pixels[:, 3 * k : 3 * k + 2] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")


def copy_of(project: Path, folder: Path, monkeypatch) -> Path:
    """A copy of a project, for a test to change; it is the working directory until the test ends."""
    copied = folder / "copy"
    shutil.copytree(project, copied)
    monkeypatch.chdir(copied)
    return copied


def kill_at_the_second_training(monkeypatch, module) -> list[int]:
    """Let a module train one network at a time, and end its second training as ctrl-C does.

    Returns:
        a list that gets an entry for each training.
    """
    trained: list[int] = []
    train = module.train

    def killed_at_the_second(*arguments, **options):
        trained.append(0)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    def one_by_one(work, units, *more):
        for unit in units:
            work.run([unit])

    monkeypatch.setattr(module, "train", killed_at_the_second)
    monkeypatch.setattr(module, "run_units", one_by_one)
    return trained


def run(stage: str, *words: str) -> None:
    """`python -m stages.<stage> <words>` in this process and in the working directory."""
    importlib.import_module(f"stages.{stage}").main(*words)


def run_all(values: dict) -> None:
    """Every stage for every entry of a suite, in the order of dvc.yaml."""
    for name in values["datasets"]:
        run("prepare", name)
    for name in values["buffers"]:
        run("buffer", name)
    for stage in ("distill", "train"):
        for name in values["runs"]:
            run(stage, name)
    for stage in (*FOR_ALL_ROWS, "pictures", "analyses", "report"):
        run(stage)


def markdown_rows(text: str) -> dict[str, dict[str, str]]:
    """Cells of a table by the name of the row and of the column."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    names, _, *rows = lines
    return {row[0]: dict(zip(names, row)) for row in rows}


def run_to_reach(names: Sequence[str]) -> None:
    """The stages from the pictures to `reach`, for some rows of the suite above."""
    run("prepare", "shapes")
    run("buffer", "shapes")
    for name in names:
        run("distill", name)
        run("train", name)
    run("temperature")
    run("reach")
