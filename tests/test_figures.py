"""Every figure from made-up numbers: it shows them, can be read, and is drawn again only when it changes."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from stages.reporting import drawing
from stages.reporting.ablation_figures import ablation_figures, figure8, figure9
from stages.reporting.by_ipc import figure10
from stages.reporting.decompositions import Compared, cumulative_ratio, figure3, figure5, figure13
from stages.reporting.drawing import SOURCES, Drawn, svg_text, write_figure, write_figures
from stages.reporting.histograms import MaximumLogits, figure2a, figure2b, figure7, spread
from stages.reporting.maps import figure4, figure12b, same_class_nearby
from stages.reporting.redraw import redraw
from stages.reporting.reliability import FEW, figure1, pooled_ece
from stages.reporting.style import COLORS
from stages.reporting.svg import description
from stages.settings.tables import TableKeys

pytestmark = pytest.mark.filterwarnings("error")

TITLES = {"raw": "Raw", "ts": "TS", "mts": "MTS", "fixed": "T = 1.5", "mts_converged": "MTS conv."}
FITTED = ("early", "converged")


def random_numbers() -> np.random.Generator:
    return np.random.default_rng(0)


def methods(repeats: int) -> dict[str, dict]:
    """Results of a row whose reliability diagrams have two empty bins."""
    reliability = {
        "count": [0, 5, 0, 5],
        "confidence": [0.0, 0.4, 0.0, 0.9],
        "accuracy": [0.0, 0.6, 0.0, 0.8],
    }
    smooth = {"confidence": [0.3, 0.5, 0.7], "accuracy": [[None, 0.5, 0.8]] * repeats}
    numbers = {"ece": [0.1] * repeats, "reliability": reliability, "smooth": smooth}
    numbers |= {"temperature": [1.5] * repeats, "confidence_gap": [0.02] * repeats}
    return {key: numbers | {"difference_to_raw": [-0.02, -0.01]} for key in TITLES}


def logits(repeats: int) -> MaximumLogits:
    """Maximum logits of the networks of full and of distilled data, and of random real images."""
    rng = random_numbers()
    own = {}
    test = {}
    for group, mean in (("FDNN", 9), ("DDNN", 12), ("Random images", 11)):
        own[group] = rng.normal(mean, 2, (repeats, 30))
        test[group] = rng.normal(mean - 1, 2, (repeats, 40))
    return MaximumLogits(own, test)


def ablation(repeats: int, kinds=FITTED) -> dict:
    """What `ablate` has written of a row.

    The early-stopped ECE is the ratio, or the share, and the converged ECE half of it. Converged temperatures
    end on their bound below 0.3.
    """
    fits = []
    for value in (0.4, 0.1, 0.2):
        for kind in kinds:
            converged = kind == "converged"
            fit = {"start": None, "steps": None} if converged else {"start": 1.5, "steps": 50}
            fit["temperature"] = [1.4] * repeats
            fit["ece"] = [value / 2 if converged else value] * repeats
            fit["bound_hit"] = [converged and value < 0.3] + [False] * (repeats - 1)
            fits += [fit | {"ratio": value, "share": 0.1}, fit | {"ratio": 0.1, "share": value}]
    unique = [fit for i, fit in enumerate(fits) if fit not in fits[:i]]
    longer = [fit | {"steps": 200} for fit in unique if fit["start"]]
    own = {"ratio": 0.1, "share": 0.1, "start": 1.5, "steps": 50}
    return own | {"raw": [0.3] * repeats, "fixed": [0.05] * repeats, "fits": unique + longer}


def ablations(rows: int, repeats: int, kinds=FITTED) -> dict[str, dict]:
    return {f"digits-mtt-ipc{i}": ablation(repeats, kinds) for i in range(rows)}


def dropped(repeats: int) -> dict[str, list[dict]]:
    rng = random_numbers()
    points = {}
    for label in ("Full data", "MTT", "MTT with MDT"):
        accuracy = 0.5 + 0.1 * rng.random((2, repeats))
        points[label] = [
            {"share": 0.1, "accuracy": list(accuracy[0])},
            {"share": 0, "accuracy": list(accuracy[1])},
        ]
    return points


def draw1(repeats: int) -> Drawn:
    return figure1(methods(repeats), TITLES, "digits-mtt-ipc10: 3 networks")


def draw2a(repeats: int) -> Drawn:
    return figure2a(logits(repeats))


def draw2b(repeats: int) -> Drawn:
    rng = random_numbers()
    groups = {}
    for label in ("MTT", "MTT with MDT"):
        groups[label] = {"in": rng.random((repeats, 30)), "out": rng.random((repeats, 50))}
    return figure2b(groups, dict.fromkeys(groups, {"auroc": 0.75, "fpr95": 0.5}))


def draw3(repeats: int) -> Drawn:
    return figure3(dropped(repeats), Compared(["MTT", "MTT with MDT"], "Full data", ""))


def draw4(repeats: int) -> Drawn:
    rng = random_numbers()
    embeddings = {}
    for label in ("FDNN", "DDNN", "MDT"):
        embeddings[label] = {"conv1": rng.normal(size=(60, 2)), "conv2": rng.normal(size=(60, 2))}
    return figure4(embeddings, np.arange(60) % 12, [f"class {i}" for i in range(12)])


def draw5(repeats: int) -> Drawn:
    return figure5(dropped(repeats), {"MTT with MDT": "MTT"})


def draw7(repeats: int) -> Drawn:
    rng = random_numbers()
    masked = {ratio: rng.normal(10, 3, (repeats, 7)) for ratio in (0.1, 0.2, 0.3)}
    return figure7(logits(repeats), masked)


def draw8(repeats: int) -> Drawn:
    return figure8(ablations(5, repeats))


def draw9(repeats: int) -> Drawn:
    return figure9(ablations(2, repeats))


def draw10(repeats: int) -> Drawn:
    every = methods(repeats)
    single = {key: values for key, values in every.items() if key != "ts"}
    return figure10({"mtt": {10: every, 1: single}, "dc": {10: every, 50: every}}, TITLES)


def draw12b(repeats: int) -> Drawn:
    rng = random_numbers()
    by_loss = {}
    for loss in ("cross-entropy", "mixup", "label smoothing"):
        by_loss[loss] = {}
        for label in ("MTT", "MTT with MDT"):
            by_loss[loss][label] = {"block 1": rng.normal(size=(60, 2)), "block 2": rng.normal(size=(60, 2))}
    return figure12b(by_loss, np.arange(60) % 10, [str(i) for i in range(10)])


def draw13(repeats: int) -> Drawn:
    rng = random_numbers()
    values = {"MTT": rng.gamma(1, 1, 50), "DC": np.ones(4), "other": np.array([2.0])}
    return figure13(values, Compared(["MTT", "DC"], "other", ""))


FIGURES = {
    "figure1": draw1,
    "figure2a": draw2a,
    "figure2b": draw2b,
    "figure3": draw3,
    "figure4": draw4,
    "figure5": draw5,
    "figure7": draw7,
    "figure8": draw8,
    "figure9": draw9,
    "figure10": draw10,
    "figure12b": draw12b,
    "figure13": draw13,
}


def draw(name: str, repeats: int = 3) -> Drawn:
    """A figure from numbers that depend on nothing but the arguments."""
    return FIGURES[name](repeats)


def written(drawn: Drawn, kind: str) -> bytes:
    if kind == "svg":
        return svg_text(drawn).encode()
    file = io.BytesIO()
    drawn.figure.savefig(file, format=kind)
    return file.getvalue()


def color_of(line: Line2D) -> str:
    return to_hex(line.get_color()).upper()


def lines(axis: Axes, color: str, points: int) -> list[Line2D]:
    """The lines of a color with so many points."""
    return [line for line in axis.lines if color_of(line) == color and len(line.get_xdata()) == points]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_come_out_the_same_each_time(name):
    assert written(draw(name), "png").startswith(b"\x89PNG")
    svg = written(draw(name), "svg")
    assert svg == written(draw(name), "svg")
    assert b"<dc:date>" not in svg
    assert b"<text" in svg and len(svg) < 100_000, "text is text, points by the thousand are pixels"


@pytest.mark.parametrize("name", FIGURES)
def test_one_repeat_is_enough(name):
    drawn = draw(name, repeats=1)
    written(drawn, "png")
    assert not drawn.data.empty
    assert drawn.data.filter(like="_std_percent").isna().all(axis=None)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_have_names_with_units_in_letters_that_can_be_read(name):
    figure = draw(name).figure
    figure.draw_without_rendering()
    for labels in ([axis.get_xlabel() for axis in figure.axes], [axis.get_ylabel() for axis in figure.axes]):
        assert any(labels)
        assert all(label.endswith(")") for label in labels if label)
    assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text) if text.get_text())


def shown_texts(figure: Figure) -> list[Text]:
    """Titles, axis labels, legend, and the tick labels within the limits."""
    texts: list[Text] = []
    for panel in figure.axes:
        texts += [panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
            ticks = axis.get_major_ticks()
            texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    texts += figure.texts
    of_panels = [panel.get_legend() for panel in figure.axes]
    for legend in [*figure.legends, *of_panels]:
        texts += [legend.get_title(), *legend.get_texts()] if legend else []
    return [text for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_another_or_outside(name):
    figure = draw(name).figure
    figure.draw_without_rendering()
    texts = shown_texts(figure)
    boxes = [text.get_window_extent() for text in texts]
    page = figure.bbox
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1, texts[i]
        assert page.y0 <= box.y0 and box.y1 <= page.y1, texts[i]
        assert not [(texts[i], texts[j]) for j in range(i) if box.overlaps(boxes[j])]


EMPTY = {
    "figure1": figure1({}, {}),
    "figure3": figure3({}, Compared([], "", "")),
    "figure4": figure4({}, np.array([], int), []),
    "figure8": figure8({}),
    "figure10": figure10({}, {}),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_results_are_an_empty_figure(name):
    written(EMPTY[name], "png")
    assert EMPTY[name].data.empty


def test_the_cumulative_ratio_is_that_of_the_reconstruction():
    """`sum(s[:k]^2) / sum(s^2)` is the share of the squared entries that the best matrix of rank k keeps."""
    matrix = np.random.default_rng(0).normal(size=(5, 8))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    whole = np.sum(matrix**2)
    kept = [np.sum((u[:, :k] * s[:k] @ v[:k]) ** 2) / whole for k in range(6)]
    assert cumulative_ratio(s) == pytest.approx(np.array(kept))


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_the_cumulative_ratio_goes_from_exactly_zero_to_exactly_one(count):
    values = np.random.default_rng(count).random(count).astype(np.float32)
    ratio = cumulative_ratio(np.sort(values)[::-1])
    assert ratio[0] == 0 and ratio[-1] == 1
    assert (np.diff(ratio) >= 0).all()
    diagonal = np.linspace(0, 1, count + 1)
    assert cumulative_ratio(np.ones(count)) == pytest.approx(diagonal), "all values are alike"


def test_curves_of_other_lengths_end_at_100_percent():
    ends = draw("figure13").data.groupby("set").last()
    assert ends.eq(100).all(axis=None) and len(ends) == 3


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("figure2a", ["images", "network"]),
        ("figure2b", ["group", "distribution"]),
        ("figure7", ["images", "network"]),
    ],
)
def test_histograms_have_area_one(name, parts):
    data = draw(name).data
    data["area"] = data["density"] * (data["to"] - data["from"])
    assert data.groupby(parts)["area"].sum().to_numpy() == pytest.approx(1)


def names_in_legends(figure: Figure) -> list[list[str]]:
    """The names in the legend of each panel."""
    return [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]


def test_figure2a_says_mean_and_standard_deviation_of_all_networks_together():
    own = {"FDNN": np.array([[8.0, 9.0], [10.0, 11.0]]), "DDNN": np.array([[12.0, 12.0], [12.0, 14.0]])}
    test = {"FDNN": np.array([[1.0, 2.0, 3.0]]), "DDNN": np.array([[5.0, 5.0, 5.0]])}
    figure = figure2a(MaximumLogits(own, test)).figure
    assert [axis.get_title() for axis in figure.axes] == ["On own training images", "On test images"]
    assert names_in_legends(figure) == [
        ["FDNN: 9.50 ± 1.12", "DDNN: 12.50 ± 0.87"],
        ["FDNN: 2.00 ± 0.82", "DDNN: 5.00 ± 0.00"],
    ]


def test_figure7_has_a_panel_for_each_mask_ratio_beside_the_same_networks_of_the_full_data():
    given = logits(2)
    drawn = figure7(given, {0.1: np.full((2, 4), 3.0), 0.3: np.full((2, 4), 2.0)})
    titles = [axis.get_title() for axis in drawn.figure.axes]
    own, test = given.own["DDNN"], given.test["DDNN"]
    masked = ["DDNN, 10 % masked\n3.00 ± 0.00", "DDNN, 30 % masked\n2.00 ± 0.00"]
    unmasked = [
        f"DDNN, own training images\n{own.mean():.2f} ± {own.std():.2f}",
        f"DDNN, test images\n{test.mean():.2f} ± {test.std():.2f}",
    ]
    assert titles == [unmasked[0], *masked, unmasked[1], *masked]
    assert all(len(axis.patches) == 2 for axis in drawn.figure.axes)
    assert "do not raise" in drawn.conclusion and "to 2.00, " in drawn.conclusion


def with_deviations(**deviations: float) -> dict[str, np.ndarray]:
    """Maximum logits with these standard deviations, by group."""
    return {group.replace("_", " "): np.array([[-value, value]]) for group, value in deviations.items()}


FEW_IMAGES = "the narrower spread comes from few training images, not from distillation."


def test_the_conclusion_follows_from_the_numbers():
    """The numbers are those measured on digits."""
    own = with_deviations(FDNN=1.25, DDNN=1.04, Random_images=1.03)
    test = with_deviations(FDNN=1.35, DDNN=1.82, Random_images=1.9)
    text = spread(MaximumLogits(own, test))
    assert text == (
        "On their own training images, the maximum logits of the DDNNs spread less than those of the FDNNs "
        "(standard deviation 1.04 against 1.25). "
        f"Those of networks trained on as many random real images spread less, too (1.03): {FEW_IMAGES} "
        "On test images, the maximum logits of the DDNNs do not spread less than those of the FDNNs "
        "(standard deviation 1.82 against 1.35). "
        "The paper says that logits of DDNNs are more concentrated: here, this holds on their own training"
        " images alone."
    )


@pytest.mark.parametrize(
    "own, expected",
    [
        ({"FDNN": 1.0, "DDNN": 1.2, "Random_images": 0.9}, "On their own training .* do not spread less"),
        (
            {"FDNN": 1.0, "DDNN": 0.8, "Random_images": 1.1},
            "do not .1.10.: few training images alone are not",
        ),
        ({"FDNN": 1.0, "DDNN": 0.2, "Random_images": 0.9}, "are less than half the reason"),
        ({"FDNN": 1.0, "DDNN": 0.8}, "Without networks of random real images, it is open"),
    ],
)
def test_other_numbers_have_another_conclusion(own, expected):
    text = spread(MaximumLogits(with_deviations(**own), with_deviations(FDNN=1.0, DDNN=0.5)))
    assert re.search(expected, text)
    assert FEW_IMAGES not in text
    on_test_images = "On test images, the maximum logits of the DDNNs spread less than those of the FDNNs"
    assert f"{on_test_images} (standard deviation 0.50 against 1.00)." in text
    held = "test images alone" if own["DDNN"] > own["FDNN"] else "both"
    assert text.endswith(f"here, this holds on {held}.")


def diagram(counts: list[int], confidence: list[float], accuracy: list[float]) -> dict[str, list]:
    return {"count": counts, "confidence": confidence, "accuracy": accuracy}


def test_the_ece_in_a_title_of_figure1_is_that_of_its_bars_and_not_that_of_the_networks():
    """One network errs up and one down: together they hardly err."""
    reliability = diagram([0, 80, 0, 120], [0, 0.4, 0, 0.9], [0, 0.45, 0, 0.88])
    method = {"ece": [0.2, 0.3], "temperature": [1.2, 1.4], "reliability": reliability}
    drawn = figure1({"mts": method}, {"mts": "MTS"}, "row: 2 networks, 100 test images each")
    bars = 100 * (0.4 * 0.05 + 0.6 * 0.02)
    assert pooled_ece(drawn.data) == pytest.approx(bars)
    lines = drawn.figure.axes[0].get_title().split("\n")
    assert lines == ["MTS, T = 1.30", f"ECE of the bars {bars:.1f} %", "per network 25.0 ± 7.1 %"]
    heights = [(patch.get_height(), patch.get_x()) for patch in drawn.figure.axes[0].patches]
    gaps = sorted(abs(height) for height, _ in heights)[:2]
    assert gaps == pytest.approx([2, 5])
    assert drawn.figure.get_suptitle() == "row: 2 networks, 100 test images each"


def test_bins_with_few_predictions_are_faded():
    counts = [FEW - 1, FEW]
    method = {"ece": [0.1], "reliability": diagram(counts, [0.3, 0.8], [0.2, 0.9])}
    axis = figure1({"raw": method}, {"raw": "Raw"}).figure.axes[0]
    opacity = {patch.get_height(): patch.get_alpha() for patch in axis.patches}
    assert opacity[20] < opacity[90]
    _, names = axis.get_legend_handles_labels()
    assert f"faded: fewer than {FEW} predictions" in names


def test_the_curve_of_figure1_has_a_band_over_networks_and_ends_with_the_bins():
    smooth = {"confidence": [0.1, 0.6, 0.7, 0.9], "accuracy": [[0.1, 0.5, None, 0.8], [0.1, 0.7, 0.7, 1.0]]}
    method = {"ece": [0.1], "reliability": diagram([0, 9], [0, 0.8], [0, 0.9]), "smooth": smooth}
    data = figure1({"raw": method}, {"raw": "Raw"}).data
    curve = data[data["part"] == "curve"]
    assert curve["confidence_percent"].tolist() == pytest.approx([60, 90])
    assert curve["accuracy_percent"].tolist() == pytest.approx([60, 90])
    assert curve["lowest_percent"].tolist() == pytest.approx([50, 80])
    assert curve["highest_percent"].tolist() == pytest.approx([70, 100])
    without = {key: value for key, value in method.items() if key != "smooth"}
    assert len(figure1({"raw": without}, {"raw": "Raw"}).figure.axes) == 2


def judged(ece: float, difference: list[float], gap: float = 0.0) -> dict:
    bins = diagram([9, 9], [0.4, 0.8], [0.3, 0.9])
    return {"ece": [ece], "confidence_gap": [gap], "difference_to_raw": difference, "reliability": bins}


@pytest.mark.parametrize("gap, word", [(0.1, "10.0 points above"), (-0.02, "2.0 points below")])
def test_figure1_says_which_methods_are_told_apart_from_raw(gap, word):
    methods = {
        "raw": judged(0.1, [0, 0], gap),
        "mts": judged(0.02, [-0.09, -0.07]),
        "mixup": judged(0.2, [0.09, 0.12]),
        "ts": judged(0.09, [-0.02, 0.01]),
    }
    titles = {"raw": "Raw", "mts": "MTS", "mixup": "Mixup", "ts": "TS", "focal": "Focal"}
    assert figure1(methods, titles).conclusion == (
        f"Raw's mean confidence is {word} its accuracy. ECE below Raw's 10.0 %: MTS (2.0 %). ECE above Raw's"
        " 10.0 %: Mixup (20.0 %). ECE not told apart from Raw's 10.0 %: TS (9.0 %)."
    )


@pytest.mark.parametrize("aurocs, at_chance", [((0.51, 0.48), True), ((0.51, 0.61), False)])
def test_figure2b_says_when_detection_is_at_chance(aurocs, at_chance):
    groups = dict.fromkeys(("MTT", "MDT"), {"in": np.ones((1, 2)), "out": np.ones((1, 2))})
    detections = {label: {"auroc": auroc, "fpr95": 0.9} for label, auroc in zip(groups, aurocs)}
    text = figure2b(groups, detections).conclusion
    assert ("says nothing" in text) == at_chance
    assert ("Against MTT, it changes by +10.0 points with MDT." in text) != at_chance


def falling(*losses: float) -> list[dict]:
    """Accuracies that fall from 90 % by so many points, with a deviation of 1 point, by share."""
    points = []
    for i, loss in enumerate((0, *losses)):
        points.append({"share": i / 10, "accuracy": [0.89 - loss / 100, 0.91 - loss / 100]})
    return points


def test_figure3_says_where_distilled_data_lose_more_than_full_data_and_where_less():
    compared = Compared(["MTT"], "Full data", "Random images")
    sets = {"Full data": falling(10, 30), "MTT": falling(20, 20), "Random images": falling(21, 30)}
    text = figure3(sets, compared).conclusion
    assert "largest 10 %: Full data 10.0, MTT 20.0, Random images 21.0; without the largest 20 %" in text
    assert "MTT loses more than Full data at 1 and less at 1 of 2 shares" in text
    assert "MTT loses more than Random images at 0 and less at 1 of 2 shares" in text
    assert "The paper says" not in figure3({"MTT": falling(20)}, compared).conclusion


@pytest.mark.parametrize("with_mdt, counts", [((9, 9), "0 and less at 2"), ((21, 31), "0 and less at 0")])
def test_figure5_says_whether_less_is_lost_with_mdt(with_mdt, counts):
    sets = {"MTT": falling(20, 30), "MTT with MDT": falling(*with_mdt)}
    text = figure5(sets, {"MTT with MDT": "MTT"}).conclusion
    assert f"MTT with MDT loses more than MTT at {counts} of 2 shares" in text


@pytest.mark.parametrize("values, fewer", [([9, 1, 1, 1], 1), ([1, 1, 1, 1], 0)])
def test_figure13_says_how_many_sets_are_more_concentrated_than_the_full_data(values, fewer):
    of_sets = {"Full data": np.array([2.0, 2, 1, 0.5]), "MTT": np.array(values, float)}
    text = figure13(of_sets, Compared(["MTT"], "Full data", "")).conclusion
    assert f"here, {fewer} of 1 distilled sets need fewer than the full data." in text
    assert ("MTT 25 %" in text) == bool(fewer)


def test_a_long_curve_of_figure13_is_drawn_with_fewer_points():
    values = np.linspace(2, 1, 3072)
    data = figure13({"MTT": values}, Compared(["MTT"], "", "")).data
    assert len(data) <= 202 and data["explained_percent"].iloc[[0, -1]].tolist() == [0, 100]


def test_neighbours_on_a_map_are_counted():
    points = np.array([[0, 0], [0, 1], [9, 9], [9, 8.5]])
    assert same_class_nearby(points, np.array([0, 0, 1, 1])) == 1
    assert same_class_nearby(points, np.array([0, 1, 1, 1])) == 0.5
    drawn = figure4({"FDNN": {"block 1": points}}, np.array([0, 1, 1, 1]), ["a", "b"])
    assert drawn.conclusion.endswith("After block 1: FDNN 50 %.")


def test_figure8_counts_the_rows_that_mts_makes_better():
    better = ablation(1) | {"raw": [0.15]}  # MTS at its own ratio 0.1 has 0.1
    worse = ablation(1) | {"raw": [0.08], "fixed": [0.2]}
    text = figure8({"a": better, "b": worse}).conclusion
    assert "on 1 of 2 rows at the row's own mask ratio, on 0 without masks, and on 1 at the ratio" in text
    assert text.endswith("it is below Raw's on 1.")


def test_figure8_marks_the_rows_own_ratio_and_says_what_it_cuts():
    given = ablation(1) | {"raw": [0.1]}
    (axis,) = figure8({"a": given}).figure.axes
    (ring,) = [line for line in axis.lines if line.get_label() == "ring: the row's own"]
    assert ring.get_xdata() == pytest.approx([10]) and ring.get_ydata() == pytest.approx([10])
    assert axis.get_ylim() == pytest.approx((0, 15)), "1.5 times the highest level"
    assert [text.get_text() for text in axis.texts] == ["cut: up to 40 %"]
    (whole,) = figure8({"a": given | {"raw": [0.5]}}).figure.axes
    assert whole.get_ylim()[1] > 50 and not whole.texts


def test_figure9_says_what_the_share_changes_and_leaves_out_rows_of_one_image_per_class():
    assert "at most 30.0 points (MTS, early-stopped, `a`)" in figure9({"a": ablation(1)}).conclusion
    keys = {"suite": "s", "dataset": "s", "backbone": "mtt", "reads": "nothing", "mdt": 0, "lr": 0.1}
    rows = {
        "one": TableKeys(**keys, ipc=1),
        "ten": TableKeys(**keys, ipc=10),
        "all": TableKeys(**keys, ipc=None),
    }
    drawn = ablation_figures(rows, dict.fromkeys(rows, ablation(1)))
    assert set(drawn["figure8"].data["row"]) == {"one", "ten", "all"}
    assert set(drawn["figure9"].data["row"]) == {"ten", "all"}
    assert list(ablation_figures(rows, {"one": ablation(1)})) == ["figure8"]


def test_figure10_names_the_methods_with_the_lowest_ece():
    low, high = {"ece": [0.1]}, {"ece": [0.2]}
    results = {
        "mtt": {1: {"raw": low, "mts": high}, 10: {"raw": high, "mts": low}},
        "dc": {1: {"raw": low, "mts": high}, 10: {"raw": low, "mts": high}},
    }
    text = figure10(results, {"raw": "Raw", "mts": "MTS"}).conclusion
    assert text.endswith("1: Raw 2 of 2; 10: MTS 1 of 2, Raw 1 of 2.")


def test_methods_of_figure10_stay_near_their_number_of_images():
    (axis, *_) = draw("figure10").figure.axes
    for container in axis.containers:
        x = np.array(container.lines[0].get_xdata(), float)
        assert np.abs(x - np.round(x)).max() < 0.1


def test_an_svg_carries_its_conclusion_and_its_texts_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = points("0.00251 < 1", x=0.123456)._replace(conclusion="a < b & `c`")
    text = svg_text(drawn)
    assert description(text) == "a < b & `c`"
    assert "0.00251 &lt; 1" in text, "numbers of texts are not rounded"
    assert not re.search(r'd="[^"]*\d\.\d{3}', text), "those of paths are"
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert description(svg_text(points("a"))) == ""


def test_figure3_has_mean_and_standard_deviation_in_percent():
    points = [{"share": 0.05, "accuracy": [0.4, 0.6]}, {"share": 0, "accuracy": [0.7, 0.7]}]
    drawn = figure3({"MTT": points}, Compared(["MTT"], "", ""))
    assert drawn.data["dropped_percent"].tolist() == pytest.approx([0, 5])
    assert drawn.data["accuracy_mean_percent"].tolist() == pytest.approx([70, 50])
    assert drawn.data["accuracy_std_percent"].tolist() == pytest.approx([0, 100 * np.sqrt(0.02)])
    assert drawn.figure.axes[0].lines[0].get_ydata() == pytest.approx([70, 50])


@pytest.mark.parametrize(
    ("figure", "x"), [(figure8, "ratio_percent"), (figure9, "share_percent")], ids=["figure8", "figure9"]
)
def test_fits_are_drawn_in_order_and_hollow_where_a_temperature_is_on_its_bound(figure, x):
    drawn = figure(ablations(1, 3))
    axis = drawn.figure.axes[0]
    for method, factor in (("mts", 1), ("mts_converged", 0.5)):
        of_method = drawn.data[drawn.data["method"] == method]
        assert of_method[x].tolist() == pytest.approx([10, 20, 40])
        (line,) = lines(axis, COLORS[method], 3)
        assert line.get_ydata() == pytest.approx(factor * np.array([10, 20, 40]))
    (hollow,) = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert hollow.get_xdata() == pytest.approx([10, 20])
    assert color_of(hollow) == COLORS["mts_converged"]


def test_raw_and_the_fixed_temperature_are_levels():
    axis = figure8(ablations(1, 3)).figure.axes[0]
    levels = {
        color_of(line): line.get_ydata()[0] for line in axis.lines if line.get_linestyle() in (":", "-.")
    }
    assert levels == {COLORS["raw"]: pytest.approx(30), COLORS["fixed"]: pytest.approx(5)}


@pytest.mark.parametrize("kind", FITTED)
def test_fits_of_one_kind_alone_and_rows_without_levels_are_drawn(kind):
    of_kind = ablations(1, 1, kinds=[kind])
    for values in of_kind.values():
        del values["raw"], values["fixed"]
    drawn = figure8(of_kind)
    written(drawn, "svg")
    assert set(drawn.data["method"]) == {"mts_converged" if kind == "converged" else "mts"}


def test_figure10_leaves_out_what_does_not_exist():
    drawn = draw("figure10")
    of_mtt = drawn.data[drawn.data["rows"] == "mtt"]
    assert of_mtt[of_mtt["method"] == "ts"]["ipc"].tolist() == [10]
    assert of_mtt[of_mtt["method"] == "mts"]["ipc"].tolist() == [1, 10]
    ticks = drawn.figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["1", "10"]


def test_a_method_has_its_color_in_every_figure():
    bars = {}
    axes = draw("figure1").figure.axes
    for axis in axes[: len(TITLES)]:
        title = axis.get_title().split(", T = ")[0]
        bars[title] = to_hex(axis.patches[0].get_facecolor()).upper()
    curves = {}
    for container in draw("figure10").figure.axes[0].containers:
        curves[container.get_label()] = container.lines[0].get_color()
    panel = draw("figure8").figure.axes[0]
    in_panel = {color_of(line) for line in panel.lines}
    for method, title in TITLES.items():
        assert bars[title] == curves[title] == COLORS[method]
        assert method == "ts" or COLORS[method] in in_panel


@pytest.mark.parametrize("name", ["figure2a", "figure7"])
def test_the_networks_have_the_papers_colors(name):
    patches = draw(name).figure.axes[0].patches
    colors = [to_hex(patch.get_edgecolor()).upper() for patch in patches]
    assert colors[:2] == [COLORS["FDNN"], COLORS["DDNN"]]
    assert draw("figure3").figure.axes[0].lines[0].get_color() == COLORS["FDNN"]


@pytest.mark.parametrize("name", ["figure3", "figure10", "figure13"])
def test_lines_differ_in_color_and_in_marker(name):
    axis = draw(name).figure.axes[0]
    marked = [line for line in axis.lines if line.get_marker() not in ("None", "")]
    assert len(marked) >= 3
    assert len({line.get_color() for line in marked}) == len(marked)
    assert len({line.get_marker() for line in marked}) == len(marked)


def test_methods_have_colors_of_their_own():
    methods = list(COLORS)[: list(COLORS).index("FDNN")]
    assert len({COLORS[method] for method in methods}) == len(methods)


# Figures are drawn again when they change, and not otherwise.


def draw_points(data: pd.DataFrame, title: str) -> Figure:
    """A small figure; each drawing leaves a line in drawings.txt, also from other processes."""
    with Path("drawings.txt").open("a") as file:
        file.write(f"{title}\n")
    figure = Figure(figsize=(1, 1))
    axis = figure.subplots()
    axis.plot(data["x"])
    axis.set_title(title)
    return figure


def points(title: str, x: float = 1.0) -> Drawn:
    return Drawn(pd.DataFrame({"x": [0.0, x]}), draw_points, {"title": title})


def drawings() -> list[str]:
    """The figures that were drawn since the last call."""
    file = Path("drawings.txt")
    titles = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(titles)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The files of the figures "a" and "b", just drawn."""
    monkeypatch.chdir(tmp_path)
    write_figures({"a": points("a"), "b": points("b")}, tmp_path / "figures")
    assert drawings() == ["a", "b"]
    return tmp_path / "figures"


def test_an_unchanged_figure_is_not_drawn_again(folder):
    before = contents(folder)
    assert before.keys() == {"a.svg", "a.csv", "b.svg", "b.csv", "drawn.json"}
    write_figures({"a": points("a"), "b": points("b")}, folder)
    assert drawings() == []
    assert contents(folder) == before


def test_a_changed_number_is_drawn(folder):
    write_figures({"a": points("a", x=1 + 1e-12), "b": points("b")}, folder)
    assert drawings() == ["a"]


def test_a_changed_word_is_drawn(folder):
    write_figures({"a": points("c"), "b": points("b")}, folder)
    assert drawings() == ["c"]


def test_a_changed_color_is_drawn(folder, tmp_path, monkeypatch):
    style = tmp_path / "style.py"
    source = Path(drawing.__file__).with_name("style.py")
    style.write_text(source.read_text().replace(COLORS["MTT"], "#123456"))
    sources = [style if path == source else path for path in SOURCES]
    monkeypatch.setattr(drawing, "SOURCES", sources)
    write_figures({"a": points("a"), "b": points("b")}, folder)
    assert drawings() == ["a", "b"]


def test_the_code_of_every_figure_is_looked_at():
    modules = {drawn.draw.__module__ for drawn in (draw(name) for name in FIGURES)}
    files = {f"{module.split('.')[-1]}.py" for module in modules}
    assert {path.name for path in SOURCES} >= files | {"style.py", "svg.py"}
    assert all(path.exists() for path in SOURCES)


def test_a_figure_whose_file_was_changed_or_lost_is_drawn(folder):
    before = contents(folder)
    (folder / "a.svg").write_text("<svg/>")
    (folder / "b.csv").unlink()
    write_figures({"a": points("a"), "b": points("b")}, folder)
    assert drawings() == ["a", "b"]
    assert contents(folder) == before


def test_a_lost_record_is_made_again(folder):
    before = contents(folder)
    (folder / "drawn.json").write_text("<<<<<<< HEAD\n{")
    write_figures({"a": points("a"), "b": points("b")}, folder)
    assert drawings() == ["a", "b"]
    assert contents(folder) == before


def test_files_of_figures_that_are_no_longer_drawn_are_deleted(folder):
    (folder / "old.png").touch()
    write_figures({"b": points("b")}, folder)
    assert drawings() == []
    assert contents(folder).keys() == {"b.svg", "b.csv", "drawn.json"}


def test_no_figures_are_an_empty_record(tmp_path):
    write_figures({}, tmp_path / "figures")
    assert contents(tmp_path / "figures") == {"drawn.json": b"{}\n"}


def test_a_figure_that_fails_is_drawn_the_next_time(tmp_path):
    def fail(name: str) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        redraw(tmp_path, {"a": "key"}, (".txt",), fail)
    redraw(tmp_path, {"a": "key"}, (".txt",), lambda name: (tmp_path / "a.txt").touch())
    assert (tmp_path / "a.txt").exists()


def test_a_figure_written_alone_leaves_the_others(folder):
    write_figure(points("c"), folder / "c")
    assert contents(folder).keys() >= {"a.svg", "b.svg", "c.svg", "c.csv"}
