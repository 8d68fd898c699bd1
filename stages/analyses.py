"""analyses: ablations, singular values and features of the rows -> Figures 2 to 9, 12 and 13 of each suite.

    python -m stages.analyses

The figures are of the suites that dvc.yaml lists, as far as their rows have results. Quick rows have figures
of their own, whose names end in `-quick`. A figure is drawn again only when it has changed. `report` draws
Figures 1 and 10, and Figures 8 and 9 of rows that did not run here.
"""

from pathlib import Path

import numpy as np

from stages.reporting.ablation_figures import ablation_figures
from stages.reporting.decompositions import Compared, figure3, figure5, figure13
from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.families import families
from stages.reporting.histograms import MaximumLogits, figure2a, figure2b, figure7
from stages.reporting.maps import figure4, figure12b
from stages.reporting.reading import read_arrays, read_results
from stages.reporting.rows_of_figures import (
    REFERENCES,
    compared_rows,
    distilled_rows,
    largest_sets,
    legend_labels,
    with_and_without_mdt,
)
from stages.runtime.errors import run_stage
from stages.runtime.files import read_result
from stages.settings.project import listed_suites, read_yaml
from stages.settings.rows import REPORTS, Row
from stages.settings.tables import TableKeys

__all__ = [
    "feature_figures",
    "singular_value_figures",
    "suite_figures",
]

LOSSES = {
    "cross_entropy": "cross-entropy",
    "mixup": "mixup",
    "label_smoothing": "label smoothing",
    "focal": "focal loss",
}

Features = dict[str, np.ndarray]  # data/features/<row>.safetensors


def suite_figures(suite: Path) -> dict[str, Drawn]:
    """The figures of a suite by file name, of the results that there are."""
    values = read_yaml(suite)
    rows = {name: Row(name) for name in values["runs"]}
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    quick = {name: row for name, row in keys.items() if row.budget == "quick"}
    others = {name: row for name, row in keys.items() if row.budget != "quick"}
    drawn = {}
    for subject, kept in ((suite.stem, others), (f"{suite.stem}-quick", quick)):
        ablated = {name: rows[name].ablation for name in kept}
        decomposed = {name: rows[name].singular_values for name in values.get("svd") or {} if name in kept}
        looked_into = {name: rows[name].features for name in values.get("features") or {} if name in kept}
        figures = ablation_figures(kept, read_results(ablated))
        figures |= singular_value_figures(kept, read_results(decomposed))
        features = read_arrays(looked_into)
        if features:
            first = rows[next(iter(features))]
            classes = read_result(first.prepared / "info.json")["classes"]
            figures |= feature_figures(kept, features, classes)
        for figure, of_figure in figures.items():
            drawn[f"{figure}-{subject}"] = of_figure
    return drawn


def singular_value_figures(rows: dict[str, TableKeys], decomposed: dict[str, dict]) -> dict[str, Drawn]:
    """Figure 3 of plain sets and the full data, Figure 5 of sets with and without MDT, and Figure 13.

    Random real images are the control: in Figure 5 those of as many images per class as the other rows.

    Args:
        rows: of the suite, by name.
        decomposed: `data/svd/<row>.json` by row.
    """
    dropped = [name for name, values in decomposed.items() if values["dropped"]]
    plain = [name for name in dropped if rows[name].mdt == 0]
    pairs = with_and_without_mdt(rows, dropped)
    largest = largest_sets(rows, list(decomposed))
    drawn = {}
    if plain:
        drawn["figure3"] = figure3(_labelled(rows, plain, decomposed, "dropped"), _compared(rows, plain))
    if pairs:
        drawn["figure5"] = figure5(_labelled(rows, pairs, decomposed, "dropped"), _pairs(rows, pairs))
    if largest:
        values = _labelled(rows, largest, decomposed, "singular_values")
        of_sets = {label: np.array(of_set) for label, of_set in values.items()}
        drawn["figure13"] = figure13(of_sets, _compared(rows, largest))
    return drawn


def _compared(rows: dict[str, TableKeys], names: list[str]) -> Compared:
    """The labels of the distilled sets, of the full data, and of the first random images."""
    labels = legend_labels({name: rows[name] for name in names})
    distilled = [labels[name] for name in names if rows[name].method not in REFERENCES]
    full = [labels[name] for name in names if rows[name].method == "full"]
    random = [labels[name] for name in names if rows[name].method == "random"]
    return Compared(distilled, full[0] if full else "", random[0] if random else "")


def _pairs(rows: dict[str, TableKeys], names: list[str]) -> dict[str, str]:
    """The label of each set with MDT, with that of the same without."""
    shown = {name: rows[name] for name in names}
    labels = legend_labels(shown)
    pairs = {}
    for family in families(shown):
        for masked in (family.mdt, family.mdt_ds):
            if masked is not None:
                pairs[labels[masked]] = labels[family.plain]
    return pairs


def _labelled(
    rows: dict[str, TableKeys], names: list[str], decomposed: dict[str, dict], key: str
) -> dict[str, list]:
    """`key` of the results of the rows, by what a legend calls the rows."""
    labels = legend_labels({name: rows[name] for name in names})
    return {labels[name]: decomposed[name][key] for name in names}


def feature_figures(
    rows: dict[str, TableKeys], features: dict[str, Features], classes: list[str]
) -> dict[str, Drawn]:
    """Figures 2, 4, 6, 7 and 12, as far as there are the rows for them.

    They are of the first distilled set, the same with MDT, the full data, and random images.

    Args:
        rows: of the suite, by name.
        features: `data/features/<row>.safetensors` by row.
        classes: names of the data set's classes.
    """
    names = distilled_rows(rows, list(features))
    labels = legend_labels({name: rows[name] for name in names})
    distilled = {labels[name]: features[name] for name in names}
    drawn = _distilled_figures(distilled, classes) if distilled else {}
    networks = {group: features[name] for group, name in compared_rows(rows, list(features)).items()}
    if "FDNN" in networks:
        drawn |= _compared_figures(networks, classes)
    return drawn


def _distilled_figures(distilled: dict[str, Features], classes: list[str]) -> dict[str, Drawn]:
    """Figures 2(b), 6 and 12(b) of the rows with and without MDT, by label."""
    groups = {}
    detections = {}
    for label, features in distilled.items():
        groups[label] = {"in": features["inside.max_probability"], "out": features["outside.max_probability"]}
        repeats = detection(features)
        detections[label] = {key: float(np.mean(values)) for key, values in repeats.items()}
    by_loss = {}
    for loss, title in LOSSES.items():
        of_loss = {label: maps(features, loss) for label, features in distilled.items()}
        if any(of_loss.values()):
            by_loss[title] = of_loss
    cross_entropy = {label: maps(features, "cross_entropy") for label, features in distilled.items()}
    labels = next(iter(distilled.values()))["tsne.labels"]
    drawn = {"figure2b": figure2b(groups, detections)}
    drawn |= _map_figure("figure6", cross_entropy, labels, classes)
    if by_loss:
        drawn["figure12b"] = figure12b(by_loss, labels, classes)
    return drawn


def _compared_figures(networks: dict[str, Features], classes: list[str]) -> dict[str, Drawn]:
    """Figures 2(a), 4 and 7 of the networks of the full data and of a distilled set, and of their control."""
    cross_entropy = {group: maps(features, "cross_entropy") for group, features in networks.items()}
    logits = MaximumLogits(
        own={group: features["own.max_logit"] for group, features in networks.items()},
        test={group: features["inside.max_logit"] for group, features in networks.items()},
    )
    drawn = _map_figure("figure4", cross_entropy, networks["FDNN"]["tsne.labels"], classes)
    drawn["figure2a"] = figure2a(logits)
    drawn["figure7"] = figure7(logits, masked_logits(networks["DDNN"]))
    return drawn


def masked_logits(features: Features) -> dict[float, np.ndarray]:
    """Maximum logits on the masked distilled images, by mask ratio, which is sorted."""
    logits = {}
    for key, values in features.items():
        if key.startswith("masked."):
            ratio = key.removeprefix("masked.").removesuffix(".max_logit")
            logits[float(ratio)] = values
    return dict(sorted(logits.items()))


def maps(features: Features, loss: str) -> dict[str, np.ndarray]:
    """`(n, 2)` t-SNE maps of the networks trained with a loss, by block."""
    prefix = f"tsne.{loss}."
    return {key.removeprefix(prefix): values for key, values in features.items() if key.startswith(prefix)}


def _map_figure(
    name: str, embeddings: dict[str, dict[str, np.ndarray]], labels: np.ndarray, classes: list[str]
) -> dict[str, Drawn]:
    """Figure 4's drawing of the networks that have maps; nothing where none has."""
    present = {label: blocks for label, blocks in embeddings.items() if blocks}
    return {name: figure4(present, labels, classes)} if present else {}


def analyses() -> None:
    """Write reports/figures/analyses."""
    drawn: dict[str, Drawn] = {}
    for suite in listed_suites():
        drawn |= suite_figures(suite)
    write_figures(drawn, REPORTS / "figures" / "analyses")


def main() -> None:
    analyses()


if __name__ == "__main__":
    run_stage(main)
