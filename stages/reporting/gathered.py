"""The rows that a report shows, and what the stages have found on them.

Those in the suites that dvc.yaml lists run here. Of a row that has no results here, those of elsewhere are
taken, where a reports/<folder>/metrics.json has them.
"""

from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.reporting.cells import Results
from stages.reporting.paper_cells import SUITES
from stages.reporting.reading import arrays_of_rows, read_arrays, read_results
from stages.reporting.rows_of_figures import BEST_BUDGET_FIRST
from stages.runtime.errors import UserError
from stages.runtime.reuse import read_json
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.project import listed_suites, param, read_yaml
from stages.settings.rows import REPORTS, Row, listed_rows
from stages.settings.tables import TableKeys

__all__ = [
    "Elsewhere",
    "FeaturesElsewhere",
    "Gathered",
    "asked_for",
    "features_elsewhere",
    "found_elsewhere",
    "gather",
    "rows_of_paper_suites",
]


class Elsewhere(NamedTuple):
    """A row that did not run here."""

    row: Row
    results: dict[str, dict]  # of `evaluate`, and of `ablate`, `svd`, `choices` and `reach` if they ran
    folder: Path  # of its report


class Gathered(NamedTuple):
    """The rows of a report, and what the stages found on them."""

    here: dict[str, Row]
    elsewhere: dict[str, Elsewhere]
    results: Results  # of `evaluate`; what other stages found is read when it is asked for

    def rows(self) -> dict[str, Row]:
        """Those that run here, then the others."""
        return self.here | {name: other.row for name, other in self.elsewhere.items()}

    def ablations(self) -> dict[str, dict]:
        """What `ablate` found, by row."""
        ablations = read_results({name: row.ablation for name, row in self.here.items()})
        return ablations | found_elsewhere(self.elsewhere, "ablate")

    def choices(self) -> dict[str, dict]:
        """What `choices` found, by row; {} where a suite asks for it and there is no result."""
        return self._found("choices", {name: self.here[name].choices for name in asked_for("choices")})

    def reached(self) -> dict[str, dict]:
        """What `reach` found, by row; {} where a suite asks for it and there is no result."""
        return self._found("reach", {name: self.here[name].reach for name in asked_for("reach")})

    def _found(self, kind: str, files: dict[str, Path]) -> dict[str, dict]:
        return dict.fromkeys(files, {}) | read_results(files) | found_elsewhere(self.elsewhere, kind)

    def features(self, names: Container[str]) -> dict[str, dict[str, np.ndarray]]:
        """What `features` found on some rows, by row."""
        asked = [name for name in asked_for("features") if name in names]
        here = read_arrays({name: self.here[name].features for name in asked})
        others = features_elsewhere(self.elsewhere)
        return here | {name: found.arrays for name, found in others.items() if name in names}

    def decomposed(self, names: Container[str]) -> dict[str, dict]:
        """What `svd` found on some rows, by row."""
        asked = [name for name in asked_for("svd") if name in names]
        here = read_results({name: self.here[name].singular_values for name in asked})
        others = found_elsewhere(self.elsewhere, "svd")
        return here | {name: found for name, found in others.items() if name in names}

    def architectures(self) -> dict[str, dict]:
        """What `architectures` found, by row."""
        return read_results({name: row.architectures for name, row in self.here.items()})

    def tried_architectures(self, names: Container[str]) -> dict[str, list[str]]:
        """The networks that are tried on the sets of some rows, by row."""
        asked = [name for name in asked_for("architectures") if name in names]
        return {name: self.here[name].analysis("architectures", ArchitecturesKeys).networks for name in asked}


def gather() -> Gathered:
    """All rows of this project."""
    here = {row.name: row for row in listed_rows()}
    others = elsewhere(here)
    return Gathered(here, others, all_results(here, others))


def all_results(here: dict[str, Row], others: dict[str, Elsewhere]) -> Results:
    """The rows with what `evaluate` found, as `place_of_row` orders them."""
    rows = here | {name: other.row for name, other in others.items()}
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    ordered = {name: keys[name] for name in sorted(keys, key=lambda name: place_of_row(keys[name]))}
    evaluated = read_results({name: row.results for name, row in here.items()})
    return Results(ordered, evaluated | found_elsewhere(others, "evaluate"), param("calibrate.start"))


def elsewhere(here: dict[str, Row]) -> dict[str, Elsewhere]:
    """The rows without results here, as far as reports/*/metrics.json has some.

    Args:
        here: the rows of the suites that dvc.yaml lists.

    Raises:
        UserError: two of these files have results of a row.
    """
    names: set[str] = set()
    for suite in Path("suites").glob("*.yaml"):
        names |= set(read_yaml(suite)["runs"])
    names -= {name for name, row in here.items() if row.results.exists()}
    others: dict[str, Elsewhere] = {}
    for file in sorted(REPORTS.glob("*/metrics.json")):
        for name, values in rows_of(file).items():
            # What was too large for the file is replaced there by a sentence.
            results = {kind: of_kind for kind, of_kind in values.items() if isinstance(of_kind, dict)}
            if name in names and complete(results.get("evaluate")):
                if name in others:
                    other = others[name].folder / file.name
                    raise UserError(f"{file}: rows.{name}: {other} has this row, too; allowed: one of them")
                others[name] = Elsewhere(Row(name), results, file.parent)
    return others


def rows_of(file: Path) -> dict[str, dict]:
    """The results by row in a metrics.json.

    Raises:
        UserError: there are none in it.
    """
    rows = read_json(file).get("rows")
    if not isinstance(rows, dict):
        raise UserError(
            f"{file}: rows: expected the results of rows; `python -m stages.tools.lent` writes them"
        )
    return rows


def complete(evaluated: dict | None) -> bool:
    """Whether there are results with intervals, which older versions did not write."""
    return evaluated is not None and "interval" in evaluated["methods"]["raw"]


def place_of_row(row: TableKeys) -> tuple[int, int]:
    """Where a row stands among all: the paper's data sets are first, and of each the published rows."""
    suite = SUITES.index(row.suite) if row.suite in SUITES else len(SUITES)
    return suite, BEST_BUDGET_FIRST.index(row.budget)


def rows_of_paper_suites() -> dict[str, TableKeys]:
    """Every row of the suites that the paper has numbers for, whether it has results or not."""
    rows = {}
    for suite in sorted(Path("suites").glob("*.yaml")):
        if suite.stem in SUITES:
            for name in read_yaml(suite)["runs"]:
                rows[name] = Row(name).keys(TableKeys)
    return rows


class FeaturesElsewhere(NamedTuple):
    """What `features` found on a row that ran elsewhere."""

    arrays: dict[str, np.ndarray]  # as in data/features/<row>.safetensors
    classes: list[str]  # names of the data set's classes


def features_elsewhere(others: dict[str, Elsewhere]) -> dict[str, FeaturesElsewhere]:
    """What `features` found on the rows that ran elsewhere, by row: reports/<folder>/features.safetensors.

    Raises:
        UserError: such a file is damaged.
    """
    found: dict[str, FeaturesElsewhere] = {}
    folders = dict.fromkeys(other.folder for other in others.values())
    for file in [folder / "features.safetensors" for folder in folders]:
        arrays, about = arrays_of_rows(file) if file.exists() else ({}, {})
        for name in about:
            if name in others and others[name].folder == file.parent:
                own = {key: array for key, array in arrays.items() if key.startswith(f"{name}/")}
                by_name = {key.removeprefix(f"{name}/"): array for key, array in own.items()}
                found[name] = FeaturesElsewhere(by_name, about[name]["classes"])
    return found


def found_elsewhere(others: dict[str, Elsewhere], kind: str) -> dict[str, dict]:
    """What a stage found on the rows that ran elsewhere, by row."""
    return {name: other.results[kind] for name, other in others.items() if kind in other.results}


def asked_for(kind: str) -> list[str]:
    """The rows that the listed suites name under `features`, `svd`, `architectures`, `reach` or `choices`."""
    names: list[str] = []
    for suite in listed_suites():
        names += read_yaml(suite).get(kind) or {}
    return names
