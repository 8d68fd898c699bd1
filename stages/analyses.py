"""analyses: ablations, singular values and features of the rows -> Figures 2 to 9, 12 and 13 of each suite.

    python -m stages.analyses

The figures are of the suites that dvc.yaml lists, as far as their rows have results. A figure is drawn again
only when it has changed. `report` draws Figures 1 and 10.
"""

from pathlib import Path

import numpy as np

from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn, write_figures
from stages.reporting.figures import (
    figure2a,
    figure2b,
    figure3,
    figure4,
    figure5,
    figure7,
    figure8,
    figure9,
    figure13,
)
from stages.reporting.reading import read_arrays, read_results
from stages.runtime.errors import run_stage
from stages.runtime.reuse import read_json
from stages.settings.project import listed_suites, read_yaml
from stages.settings.rows import REPORTS, Row
from stages.settings.tables import TableKeys

__all__ = ["ablation_figures", "feature_figures", "singular_value_figures", "suite_figures"]

NAMES = {
    "full": "Full data",
    "mtt": "MTT",
    "rtp": "RTP",
    "dc": "DC",
    "dsa": "DSA",
    "random": "Random images",
    "kmeans": "k-means",
    "file": "Imported",
}
LOSSES = {
    "cross_entropy": "",
    "mixup": ", mixup",
    "label_smoothing": ", label smoothing",
    "focal": ", focal loss",
}

Features = dict[str, np.ndarray]  # data/features/<row>.safetensors


def suite_figures(suite: Path) -> dict[str, Drawn]:
    """The figures of a suite by file name, of the results that there are."""
    values = read_yaml(suite)
    rows = {name: Row(name) for name in values["runs"]}
    keys = {name: row.keys(TableKeys) for name, row in rows.items()}
    ablated = {name: row.ablation for name, row in rows.items()}
    decomposed = {name: rows[name].singular_values for name in values.get("svd") or {}}
    looked_into = {name: rows[name].features for name in values.get("features") or {}}
    drawn = ablation_figures(read_results(ablated))
    drawn |= singular_value_figures(keys, read_results(decomposed))
    features = read_arrays(looked_into)
    if features:
        first = rows[next(iter(features))]
        classes = read_json(first.prepared / "info.json")["classes"]
        drawn |= feature_figures(keys, features, classes)
    return {f"{figure}-{suite.stem}": of_figure for figure, of_figure in drawn.items()}


def ablation_figures(ablations: dict[str, dict]) -> dict[str, Drawn]:
    """Figures 8 and 9.

    Args:
        ablations: `data/ablate/<row>.json` by row.
    """
    if not ablations:
        return {}
    by_ratio: dict[str, list[dict]] = {}
    by_share: dict[str, list[dict]] = {}
    raw: dict[str, list[float]] = {}
    fixed: dict[str, list[float]] = {}
    for name, ablation in ablations.items():
        fits = [fit for fit in ablation["fits"] if _is_the_papers(fit, ablation)]
        by_ratio[name] = [fit for fit in fits if fit["share"] == ablation["share"]]
        by_share[name] = [fit for fit in fits if fit["ratio"] == ablation["ratio"]]
        raw[name] = ablation["raw"]
        fixed[name] = ablation["fixed"]
    start = next(iter(ablations.values()))["start"]
    return {
        "figure8": figure8(by_ratio, raw, fixed, start),
        "figure9": figure9(by_share, raw, fixed, start),
    }


def _is_the_papers(fit: dict, ablation: dict) -> bool:
    """Whether a fit starts and stops as the row's own do, or is the exact optimum."""
    own = (ablation["start"], ablation["steps"])
    return (fit["start"], fit["steps"]) in (own, (None, None))


def singular_value_figures(rows: dict[str, TableKeys], decomposed: dict[str, dict]) -> dict[str, Drawn]:
    """Figure 3 of plain sets and the full data, Figure 5 of sets with and without MDT, and Figure 13.

    Args:
        rows: of the suite, by name.
        decomposed: `data/svd/<row>.json` by row.
    """
    dropped = [name for name, values in decomposed.items() if values["dropped"]]
    plain = [name for name in dropped if rows[name].mdt == 0]
    masked = [_kind(rows[name]) for name in dropped if rows[name].mdt]
    pairs = [name for name in dropped if _kind(rows[name]) in masked]
    largest = _largest(rows, list(decomposed))
    drawn = {}
    if plain:
        drawn["figure3"] = figure3(_labelled(rows, plain, decomposed, "dropped"))
    if pairs:
        drawn["figure5"] = figure5(_labelled(rows, pairs, decomposed, "dropped"))
    if largest:
        values = _labelled(rows, largest, decomposed, "singular_values")
        drawn["figure13"] = figure13({label: np.array(of_set) for label, of_set in values.items()})
    return drawn


def _kind(row: TableKeys) -> tuple[str, int | None]:
    return row.backbone, row.ipc


def _largest(rows: dict[str, TableKeys], names: list[str]) -> list[str]:
    """The rows with the most images per class, and those of the full data."""
    most = max((rows[name].ipc or 0 for name in names), default=0)
    return [name for name in names if rows[name].ipc in (None, most)]


def _labelled(
    rows: dict[str, TableKeys], names: list[str], decomposed: dict[str, dict], key: str
) -> dict[str, list]:
    """`key` of the results of the rows, by what a legend calls the rows."""
    others = [rows[name] for name in names]
    return {label_of(rows[name], others): decomposed[name][key] for name in names}


def label_of(row: TableKeys, others: list[TableKeys]) -> str:
    """What a legend calls a row.

    It names the images per class where the others of the same kind have another number of them.
    """
    label = NAMES[row.backbone]
    if isinstance(row.mdt, list):
        label += " with MDT_ds"
    elif row.mdt:
        label += " with MDT"
    numbers = {other.ipc for other in others if (other.backbone, other.mdt) == (row.backbone, row.mdt)}
    if len(numbers) > 1:
        label += f", {row.ipc} per class"
    return label


def feature_figures(
    rows: dict[str, TableKeys], features: dict[str, Features], classes: list[str]
) -> dict[str, Drawn]:
    """Figures 2, 4, 6, 7 and 12 of the full data, of the first plain set, and of the first set with MDT.

    Args:
        rows: of the suite, by name.
        features: `data/features/<row>.safetensors` by row.
        classes: names of the data set's classes.
    """
    full = []
    plain = []
    masked = []
    for name in features:
        if rows[name].mdt:
            masked.append(name)
        elif rows[name].backbone == "full":
            full.append(name)
        else:
            plain.append(name)
    distilled = {label_of(rows[name], []): features[name] for name in plain[:1] + masked[:1]}
    drawn = _distilled_figures(distilled, classes) if distilled else {}
    if full and plain:
        drawn |= _full_and_distilled_figures(features[full[0]], features[plain[0]], classes)
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
        for label, features in distilled.items():
            by_loss[f"{label}{title}"] = maps(features, loss)
    cross_entropy = {label: maps(features, "cross_entropy") for label, features in distilled.items()}
    labels = next(iter(distilled.values()))["tsne.labels"]
    drawn = {"figure2b": figure2b(groups, detections)}
    drawn |= _map_figure("figure6", cross_entropy, labels, classes)
    drawn |= _map_figure("figure12b", by_loss, labels, classes)
    return drawn


def _full_and_distilled_figures(full: Features, distilled: Features, classes: list[str]) -> dict[str, Drawn]:
    """Figures 2(a), 4 and 7 of the networks of the full data and of a distilled set."""
    both = {"FDNN": maps(full, "cross_entropy"), "DDNN": maps(distilled, "cross_entropy")}
    drawn = _map_figure("figure4", both, full["tsne.labels"], classes)
    full_logits = full["inside.max_logit"]
    distilled_logits = distilled["inside.max_logit"]
    drawn["figure2a"] = figure2a(full_logits, distilled_logits)
    drawn["figure7"] = figure7(full_logits, distilled_logits, masked_logits(distilled))
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
