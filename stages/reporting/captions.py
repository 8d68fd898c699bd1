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
        "Left, on the images that each network was trained on, as in the public code of the paper's first"
        " author: the training split for networks of the full data (FDNN), the distilled set for networks of"
        " distilled data (DDNN), and, as a control, random real images for networks that were trained on as"
        " many of these. Right, the same networks on test images.",
    ),
    "figure2b": Caption(
        "Maximum probabilities in and out of distribution",
        "Before and after masked distillation training (MDT).",
    ),
    "figure3": Caption(
        "Accuracy without the largest singular values",
        "Networks trained on what is left of the data. Whatever its whitening, a set is decomposed as pixels"
        " that are standardised by the mean and standard deviation of each channel of the real images.",
    ),
    "figure4": Caption(
        "t-SNE of each block's output",
        "Test images, by class: networks of the full data (FDNN), of distilled data (DDNN), and, as a"
        " control, of as many random real images.",
    ),
    "figure5": Caption(
        "Accuracy without the largest singular values, with MDT",
        "As Figure 3, for sets distilled with and without masks, and, as a control, random real images of the"
        " same number.",
    ),
    "figure6": Caption(
        "t-SNE of each block's output, with MDT",
        "As Figure 4, for sets distilled with and without masks.",
    ),
    "figure7": Caption(
        "Maximum logits on masked images",
        "Left, networks of the full data (FDNN) on the training split, and networks of distilled data (DDNN)"
        " on the distilled set, unmasked and under masks. Right, the same masked images beside unmasked test"
        " images. Figure 12a is this for another data set.",
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
        "Rows that differ in nothing but their images per class; mean and standard deviation over networks.",
    ),
    "figure12b": Caption(
        "t-SNE by training loss",
        "As Figure 6, for networks trained with mixup, label smoothing and focal loss.",
    ),
    "figure_reach": Caption(
        "The shipped temperature by networks and real images",
        "ECE of the row's own networks at a temperature that is fitted with other networks on real training"
        " images: left, by the number of networks, right, by the number of images. Mean and standard"
        " deviation over the row's networks; each row has its own scale.",
    ),
    "figure_choices": Caption(
        "Choices that the paper leaves open",
        "ECE with each choice in place of the default, all else equal: mean and standard deviation over"
        " networks, and the paper's where it has one. Each panel has its own scale.",
    ),
    "figure13": Caption(
        "Cumulative explained ratio of singular values",
        "Of the rows with the most images per class and of the full data, decomposed as for Figure 3.",
    ),
}
