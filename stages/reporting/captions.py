"""Titles and captions of the figures, in the order of the paper.

A caption ends with what the numbers of the figure say, which is written where the figure is drawn.
"""

from typing import NamedTuple

__all__ = ["CAPTIONS", "Caption"]


class Caption(NamedTuple):
    title: str
    text: str


CAPTIONS = {
    "figure_hero": Caption(
        "MTS by starting value and mask ratio",
        "ECE of the early-stopped fit from each starting value, as means over networks on a logarithmic axis,"
        " and beside it what no mask ratio changes: no calibration (Raw), the paper's MTS, the starting value"
        " without any fit, the temperature that ships with the set, and the oracle's, which is fitted on the"
        " test labels and no result.",
    ),
    "figure1": Caption(
        "Reliability diagrams",
        "Accuracy by confidence in bins of equal width, the predictions of all networks of the row together;"
        " outlined, the gap to the mean confidence; below, the share of samples. The ECE of the bars is"
        " what they show. Tables have the mean of the networks' own ECE, which is higher where one network"
        " errs up and another down. The smooth curve is a kernel estimate of each network's accuracy."
        " `Above` and `below` Raw: the 95 % interval of the difference does not contain 0.",
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
        "Before and after masked distillation training (MDT), of all networks together.",
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
        "Networks of distilled data (DDNN), without masks and on distilled images under masks, each panel"
        " with the same networks of the full data (FDNN). Above, without masks each group on the images"
        " that it was trained on; below, on test images. Titles: mean ± standard deviation. Figure 12a is"
        " this for another data set.",
    ),
    "figure8": Caption(
        "ECE by mask ratio of MTS",
        "Early-stopped as in the paper, and the exact optimum on the same masked images; mean and standard"
        " deviation over networks. Each row has its own scale, which ends at 1.5 times the highest level or"
        " MTS at the row's own ratio: what is higher is cut, and the highest mean that this cuts is named"
        " in the panel.",
    ),
    "figure9": Caption(
        "ECE by the share of images that MTS is fitted on",
        "At the row's own mask ratio. Each row has its own scale, as in Figure 8. Rows of one image per class"
        " are left out: MTS then takes that image at every share, so that nothing can change.",
    ),
    "figure10": Caption(
        "ECE by images per class",
        "A panel for rows that differ in nothing but their images per class; mean and standard deviation over"
        " networks. Methods at the same number of images stand beside each other.",
    ),
    "figure12b": Caption(
        "t-SNE by training loss",
        "As Figure 6, and for networks trained with mixup, label smoothing and focal loss.",
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
