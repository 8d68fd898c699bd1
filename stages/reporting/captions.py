"""Titles and captions of the figures, in the order of the paper."""

from typing import NamedTuple

__all__ = ["CAPTIONS", "Caption"]


class Caption(NamedTuple):
    title: str
    text: str


CAPTIONS = {
    "figure1": Caption(
        "Reliability diagrams",
        "Accuracy by confidence in ten bins, all networks of the row together; below, the share of samples.",
    ),
    "figure2a": Caption(
        "Maximum logits",
        "On test images: networks of the full data (FDNN) and of distilled data (DDNN).",
    ),
    "figure2b": Caption(
        "Maximum probabilities in and out of distribution",
        "Before and after masked distillation training (MDT).",
    ),
    "figure3": Caption(
        "Accuracy without the largest singular values",
        "Networks trained on what is left of the data.",
    ),
    "figure4": Caption(
        "t-SNE of each block's output",
        "Test images, by class: networks of the full data and of distilled data.",
    ),
    "figure5": Caption(
        "Accuracy without the largest singular values, with MDT",
        "As Figure 3, for sets distilled with and without masks.",
    ),
    "figure6": Caption(
        "t-SNE of each block's output, with MDT",
        "As Figure 4, for sets distilled with and without masks.",
    ),
    "figure7": Caption(
        "Maximum logits on masked images",
        "As Figure 2a, and of the DDNN on the distilled images under masks."
        " Figure 12a is this for another data set.",
    ),
    "figure8": Caption(
        "ECE by mask ratio of MTS",
        "Early-stopped as in the paper, and the exact optimum on the same masked images."
        " Each row has its own scale.",
    ),
    "figure9": Caption(
        "ECE by the share of images that MTS is fitted on",
        "At the row's own mask ratio. Each row has its own scale.",
    ),
    "figure10": Caption(
        "ECE by images per class",
        "Mean and standard deviation over networks.",
    ),
    "figure12b": Caption(
        "t-SNE by training loss",
        "As Figure 6, for networks trained with mixup, label smoothing and focal loss.",
    ),
    "figure13": Caption(
        "Cumulative explained ratio of singular values",
        "Of the largest sets of each kind.",
    ),
}
