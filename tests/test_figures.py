"""Every figure from made-up numbers: what is drawn is what was given, can be read and told apart, and comes out the same each time."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from stages import figures
from stages.figures import COLORS, SVG, Drawn, cumulative_ratio

pytestmark = pytest.mark.filterwarnings("error")

TITLES = {"raw": "Raw", "ts": "TS", "mts": "MTS", "fixed": "T = 1.5", "mts_converged": "MTS conv."}
FITTED = ("early", "converged")


def reliability() -> dict:
    return {"count": [0, 5, 0, 5], "confidence": [0.0, 0.4, 0.0, 0.9], "accuracy": [0.0, 0.6, 0.0, 0.8]}


def fits(rows: int, repeats: int, kinds=FITTED) -> tuple:
    """`figure8`'s arguments: early-stopped ECE is the ratio, converged ECE half of it, on the bound below a ratio of 0.3."""
    points = [
        {"ratio": x, "share": x, "start": None if kind == "converged" else 1.5, "temperature": [1.4] * repeats}
        | {"ece": [x / 2 if kind == "converged" else x] * repeats, "bound_hit": [kind == "converged" and x < 0.3] + [False] * (repeats - 1)}
        for x in (0.4, 0.1, 0.2)
        for kind in kinds
    ]
    names = [f"digits-mtt-ipc{i}" for i in range(rows)]
    return dict.fromkeys(names, points), dict.fromkeys(names, [0.3] * repeats), dict.fromkeys(names, [0.05] * repeats), 1.5


def draw(name: str, repeats: int = 3) -> Drawn:
    """A figure from numbers that depend on nothing but the arguments."""
    rng = np.random.default_rng(0)
    logits = {key: rng.normal(mean, 2, (repeats, 40)) for key, mean in (("full", 9), ("distilled", 12))}
    masked = {ratio: rng.normal(10, 3, (repeats, 7)) for ratio in (0.1, 0.2, 0.3)}
    methods = {key: {"ece": [0.1] * repeats, "reliability": reliability()} for key in TITLES}
    groups = {label: {"in": rng.random((repeats, 30)), "out": rng.random((repeats, 50))} for label in ("MTT", "MTT with MDT")}
    dropped = {label: [{"share": share, "accuracy": list(0.5 + 0.1 * rng.random(repeats))} for share in (0.1, 0)] for label in ("FDNN", "MTT IPC 10", "MTT IPC 50")}
    blocks = {label: {block: rng.normal(size=(60, 2)) for block in ("conv1", "conv2")} for label in ("FDNN", "DDNN", "MDT")}
    arguments = {
        "figure1": (methods, TITLES),
        "figure2a": tuple(logits.values()),
        "figure2b": (groups, dict.fromkeys(groups, {"auroc": 0.75, "fpr95": 0.5})),
        "figure3": (dropped,),
        "figure4": (blocks, np.arange(60) % 12, [f"class {i}" for i in range(12)]),
        "figure5": (dropped,),
        "figure7": (*logits.values(), masked),
        "figure8": fits(5, repeats),
        "figure9": fits(2, repeats),
        "figure10": ({10: methods, 1: {key: methods[key] for key in TITLES if key != "ts"}}, TITLES),
        "figure13": ({"MTT": rng.gamma(1, 1, 50), "DC": np.ones(4), "something": np.array([2.0])},),
    }
    return getattr(figures, name)(*arguments[name])


FIGURES = [name for name in figures.__all__ if name.startswith("figure")]


def written(drawn: Drawn, kind: str) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(SVG):
        drawn.figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def lines(axis, color: str, points: int) -> list:
    return [line for line in axis.lines if to_hex(line.get_color()).upper() == color and len(line.get_xdata()) == points]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_come_out_the_same_each_time(name):
    assert written(draw(name), "png").startswith(b"\x89PNG")
    svg = written(draw(name), "svg")
    assert svg == written(draw(name), "svg") and b"<dc:date>" not in svg
    assert b"<text" in svg and len(svg) < 500_000, "text is text, points by the thousand are pixels"


@pytest.mark.parametrize("name", FIGURES)
def test_one_repeat_is_enough(name):
    drawn = draw(name, repeats=1)
    written(drawn, "png")
    assert not drawn.data.empty and drawn.data.filter(like="_std_percent").eq(0).all(axis=None)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_have_names_with_units_in_letters_that_can_be_read(name):
    figure = draw(name).figure
    figure.draw_without_rendering()
    for labels in ([axis.get_xlabel() for axis in figure.axes], [axis.get_ylabel() for axis in figure.axes]):
        assert any(labels) and all(label.endswith(")") for label in labels if label)
    assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text) if text.get_text())


def shown_texts(figure) -> list[Text]:
    """Titles, axis labels, legend and the tick labels within the limits."""
    axes = [(axes, axis, limits) for axes in figure.axes for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))]
    ticks = [tick.label1 for _, axis, (low, high) in axes for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    legends = [text for legend in figure.legends for text in (legend.get_title(), *legend.get_texts())]
    texts = [*(text for panel, axis, _ in axes for text in (panel.title, axis.label)), *ticks, *legends]
    return list({id(text): text for text in texts if text.get_text() and text.get_visible()}.values())


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_another_or_outside(name):
    figure = draw(name).figure
    figure.draw_without_rendering()
    texts = shown_texts(figure)
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, texts[i]
        assert not [(texts[i], texts[j]) for j in range(i) if box.overlaps(boxes[j])]


EMPTY = [("figure1", ({}, {})), ("figure3", ({},)), ("figure4", ({}, np.array([], int), [])), ("figure8", ({}, {}, {}, 1.5)), ("figure10", ({}, {}))]


@pytest.mark.parametrize(("name", "arguments"), EMPTY)
def test_no_results_are_an_empty_figure(name, arguments):
    drawn = getattr(figures, name)(*arguments)
    written(drawn, "png")
    assert drawn.data.empty


def test_the_cumulative_ratio_is_that_of_the_reconstruction():
    """`sum(s[:k]^2) / sum(s^2)` is the share of the squared entries that the best matrix of rank k keeps."""
    matrix = np.random.default_rng(0).normal(size=(5, 8))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    kept = [np.sum((u[:, :k] * s[:k] @ v[:k]) ** 2) / np.sum(matrix**2) for k in range(6)]
    assert cumulative_ratio(s) == pytest.approx(np.array(kept))


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_the_cumulative_ratio_goes_from_exactly_zero_to_exactly_one(count):
    ratio = cumulative_ratio(np.sort(np.random.default_rng(count).random(count).astype(np.float32))[::-1])
    assert ratio[0] == 0 and ratio[-1] == 1 and (np.diff(ratio) >= 0).all()
    assert cumulative_ratio(np.ones(count)) == pytest.approx(np.linspace(0, 1, count + 1)), "all alike: the diagonal"


def test_curves_of_other_lengths_end_at_100_percent():
    ends = draw("figure13").data.groupby("set").last()
    assert ends.eq(100).all(axis=None) and len(ends) == 3


@pytest.mark.parametrize("name", ["figure2a", "figure2b", "figure7"])
def test_histograms_have_area_one(name):
    data = draw(name).data
    area = (data["density"] * (data["to"] - data["from"])).groupby([data[key] for key in data.columns[: 2 if name == "figure2b" else 1]]).sum()
    assert area.to_numpy() == pytest.approx(1)


def test_figure2a_says_mean_and_standard_deviation_of_all_networks_together():
    full, distilled = np.array([[8.0, 9.0], [10.0, 11.0]]), np.array([[12.0, 12.0], [12.0, 14.0]])
    drawn = figures.figure2a(full, distilled)
    assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == ["FDNN: 9.50 ± 1.12", "DDNN: 12.50 ± 0.87"]


def test_figure3_has_mean_and_standard_deviation_in_percent():
    drawn = figures.figure3({"MTT": [{"share": 0.05, "accuracy": [0.4, 0.6]}, {"share": 0, "accuracy": [0.7, 0.7]}]})
    assert drawn.data["dropped_percent"].tolist() == pytest.approx([0, 5])
    assert drawn.data["accuracy_mean_percent"].tolist() == pytest.approx([70, 50])
    assert drawn.data["accuracy_std_percent"].tolist() == pytest.approx([0, 100 * np.sqrt(0.02)])
    assert drawn.figure.axes[0].lines[0].get_ydata() == pytest.approx([70, 50])


@pytest.mark.parametrize(("name", "x"), [("figure8", "ratio_percent"), ("figure9", "share_percent")])
def test_fits_are_drawn_in_order_and_hollow_where_one_is_on_its_bound(name, x):
    drawn = getattr(figures, name)(*fits(1, 3))
    axis = drawn.figure.axes[0]
    for method, factor in (("mts", 1), ("mts_converged", 0.5)):
        assert drawn.data.loc[drawn.data["method"] == method, x].tolist() == pytest.approx([10, 20, 40])
        (line,) = lines(axis, COLORS[method], 3)
        assert line.get_ydata() == pytest.approx(factor * np.array([10, 20, 40]))
    (hollow,) = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert hollow.get_xdata() == pytest.approx([10, 20]) and to_hex(hollow.get_color()).upper() == COLORS["mts_converged"]
    levels = {to_hex(line.get_color()).upper(): line.get_ydata()[0] for line in axis.lines if line.get_linestyle() in (":", "-.")}
    assert levels == {COLORS["raw"]: pytest.approx(30), COLORS["fixed"]: pytest.approx(5)}


@pytest.mark.parametrize("kind", FITTED)
def test_fits_of_one_kind_alone_and_rows_without_levels_are_drawn(kind):
    found, *_ = fits(1, 1, kinds=[kind])
    drawn = figures.figure8(found, {}, {}, 1.5)
    written(drawn, "svg")
    assert set(drawn.data["method"]) == {"mts_converged" if kind == "converged" else "mts"}


def test_figure10_leaves_out_what_does_not_exist():
    drawn = draw("figure10")
    assert drawn.data[drawn.data["method"] == "ts"]["ipc"].tolist() == [10]
    assert drawn.data[drawn.data["method"] == "mts"]["ipc"].tolist() == [1, 10]
    assert [label.get_text() for label in drawn.figure.axes[0].get_xticklabels()] == ["1", "10"]


def test_a_method_has_its_color_in_every_figure():
    bars = {axis.get_title().split("\n")[0]: axis.patches[0].get_facecolor() for axis in draw("figure1").figure.axes if axis.get_title()}
    panel, axis = draw("figure8").figure.axes[0], draw("figure10").figure.axes[0]
    curves = {container.get_label(): container.lines[0].get_color() for container in axis.containers}
    for method, title in TITLES.items():
        assert to_hex(bars[title]).upper() == curves[title] == COLORS[method]
        assert method == "ts" or [line for line in panel.lines if to_hex(line.get_color()).upper() == COLORS[method]]
    for name in ("figure2a", "figure7"):
        assert [to_hex(patch.get_edgecolor()).upper() for patch in draw(name).figure.axes[0].patches][:2] == [COLORS["FDNN"], COLORS["DDNN"]]
    assert draw("figure3").figure.axes[0].lines[0].get_color() == COLORS["FDNN"]


@pytest.mark.parametrize("name", ["figure3", "figure10", "figure13"])
def test_lines_differ_in_color_and_in_marker(name):
    shown = [line for line in draw(name).figure.axes[0].lines if line.get_marker() not in ("None", "")]
    assert len(shown) >= 3
    assert len({line.get_color() for line in shown}) == len({line.get_marker() for line in shown}) == len(shown)


def test_methods_have_colors_of_their_own():
    methods = list(COLORS)[: list(COLORS).index("FDNN")]
    assert len({COLORS[method] for method in methods}) == len(methods) == 11
