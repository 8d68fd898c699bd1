"""Figures 2, 4, 6, 7 and 12: what networks make of test images, images from outside, and masked ones."""

import numpy as np

from stages.reporting.detection import detection
from stages.reporting.drawing import Drawn
from stages.reporting.histograms import MaximumLogits, figure2a, figure2b, figure7
from stages.reporting.maps import figure4, figure12b
from stages.reporting.rows_of_figures import compared_rows, distilled_rows, legend_labels
from stages.settings.tables import TableKeys

__all__ = ["Features", "feature_figures", "masked_logits"]

LOSSES = {
    "cross_entropy": "cross-entropy",
    "mixup": "mixup",
    "label_smoothing": "label smoothing",
    "focal": "focal loss",
}

Features = dict[str, np.ndarray]  # data/features/<row>.safetensors


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
    by_loss = maps_by_loss(distilled)
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


def maps_by_loss(distilled: dict[str, Features]) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """The maps by the title of the loss, then by label, of the losses that any of the sets has.

    A set without networks of one of these losses is left out: its line of panels would have gaps.
    """
    titles = {}
    for loss, title in LOSSES.items():
        if any(maps(features, loss) for features in distilled.values()):
            titles[loss] = title
    whole = {}
    for label, features in distilled.items():
        if all(maps(features, loss) for loss in titles):
            whole[label] = features
    by_loss = {}
    for loss, title in titles.items():
        by_loss[title] = {label: maps(features, loss) for label, features in whole.items()}
    return by_loss if whole else {}


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
