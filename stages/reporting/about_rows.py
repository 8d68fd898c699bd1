"""What the page shows of each row beside its numbers: settings, facts, pictures, and how its files came."""

from pathlib import Path
from typing import Any

from stages.reporting.cells import lr_and_step_size
from stages.reporting.gathered import Gathered
from stages.reporting.page_tables import Facts
from stages.reporting.records import Made, made_elsewhere, made_here
from stages.settings.project import read_yaml

__all__ = ["row_facts", "row_pictures", "row_records", "row_settings"]


def row_settings(gathered: Gathered) -> dict[str, dict[str, Any]]:
    """The settings of each row, as they stand in its suite."""
    return {name: read_yaml(row.suite)["runs"][name] for name, row in gathered.rows().items()}


def row_facts(gathered: Gathered) -> dict[str, Facts]:
    """What stands beside every number of a row: what it is of, its files, and the command that makes it."""
    results = gathered.results
    facts = {}
    for name, keys in results.rows.items():
        if name in gathered.elsewhere:
            files = [gathered.elsewhere[name].folder / "metrics.json"]
            commands = [f"python -m stages.tools.lent {name}"]
        else:
            row = gathered.here[name]
            files = [row.results, row.metrics]
            commands = ["dvc repro -s evaluate", f"python -m stages.tools.row {name}"]
        about = Facts(
            dataset=keys.dataset,
            backbone=keys.method,
            ipc="all" if keys.ipc is None else str(keys.ipc),
            step_size=lr_and_step_size(results, name),
            metrics=tuple(str(file) for file in files),
            commands=tuple(commands),
        )
        facts[name] = with_counts(about, results.evaluated.get(name))
    return facts


def with_counts(facts: Facts, evaluated: dict | None) -> Facts:
    """The facts of a row with the number of its networks and test images, if it has results."""
    if evaluated is None:
        return facts
    return facts._replace(
        networks=len(evaluated["methods"]["raw"]["ece"]),
        test_images=evaluated.get("test_images", 0),
        mask_ratio=f"{evaluated['mask_ratio']:g}",
    )


def row_records(gathered: Gathered) -> dict[str, list[Made]]:
    """The runs that have made the files of each row, its buffer and its data set."""
    here = made_here()
    made = {}
    for name, row in gathered.here.items():
        names = [row.value("dataset"), Path(row.value("reads")).name, name]
        made[name] = [run for of_name in dict.fromkeys(names) for run in here.get(of_name, [])]
    folders = {other.folder for other in gathered.elsewhere.values()}
    elsewhere = {folder: made_elsewhere(folder) for folder in folders}
    for name, other in gathered.elsewhere.items():
        made[name] = elsewhere[other.folder].get(name, [])
    return made


def row_pictures(gathered: Gathered) -> dict[str, Path]:
    """The pictures of the distilled sets, of the rows that have one."""
    paths = {name: row.picture for name, row in gathered.here.items()}
    for name, other in gathered.elsewhere.items():
        paths[name] = other.folder / "distilled" / f"{name}.png"
    return {name: path for name, path in paths.items() if path.exists()}
