"""Every figure from made-up numbers: it shows them, can be read, and is drawn again only when it changes."""

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from stages.reporting import drawing
from stages.reporting.drawing import SOURCES, SVG, Drawn, write_figure, write_figures
from stages.reporting.figures import (
    MaximumLogits,
    conclusion,
    cumulative_ratio,
    figure1,
    figure2a,
    figure2b,
    figure3,
    figure4,
    figure5,
    figure7,
    figure8,
    figure9,
    figure10,
    figure13,
)
from stages.reporting.redraw import redraw
from stages.reporting.style import COLORS

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
    return {key: {"ece": [0.1] * repeats, "reliability": reliability} for key in TITLES}


def logits(repeats: int) -> MaximumLogits:
    """Maximum logits of the networks of full and of distilled data, and of random real images."""
    rng = random_numbers()
    own = {}
    test = {}
    for group, mean in (("FDNN", 9), ("DDNN", 12), ("Random images", 11)):
        own[group] = rng.normal(mean, 2, (repeats, 30))
        test[group] = rng.normal(mean - 1, 2, (repeats, 40))
    return MaximumLogits(own, test)


def fits(rows: int, repeats: int, kinds=FITTED) -> tuple:
    """Arguments of `figure8`.

    The early-stopped ECE is the ratio and the converged ECE half of it. Converged temperatures end on their
    bound below a ratio of 0.3.
    """
    points = []
    for ratio in (0.4, 0.1, 0.2):
        for kind in kinds:
            converged = kind == "converged"
            point = {"ratio": ratio, "share": ratio, "start": None if converged else 1.5}
            point["temperature"] = [1.4] * repeats
            point["ece"] = [ratio / 2 if converged else ratio] * repeats
            point["bound_hit"] = [converged and ratio < 0.3] + [False] * (repeats - 1)
            points.append(point)
    names = [f"digits-mtt-ipc{i}" for i in range(rows)]
    raw = dict.fromkeys(names, [0.3] * repeats)
    fixed = dict.fromkeys(names, [0.05] * repeats)
    return dict.fromkeys(names, points), {"raw": raw, "fixed": fixed}, 1.5


def dropped(repeats: int) -> dict[str, list[dict]]:
    rng = random_numbers()
    points = {}
    for label in ("FDNN", "MTT IPC 10", "MTT IPC 50"):
        accuracy = 0.5 + 0.1 * rng.random((2, repeats))
        points[label] = [
            {"share": 0.1, "accuracy": list(accuracy[0])},
            {"share": 0, "accuracy": list(accuracy[1])},
        ]
    return points


def draw1(repeats: int) -> Drawn:
    return figure1(methods(repeats), TITLES)


def draw2a(repeats: int) -> Drawn:
    return figure2a(logits(repeats))


def draw2b(repeats: int) -> Drawn:
    rng = random_numbers()
    groups = {}
    for label in ("MTT", "MTT with MDT"):
        groups[label] = {"in": rng.random((repeats, 30)), "out": rng.random((repeats, 50))}
    return figure2b(groups, dict.fromkeys(groups, {"auroc": 0.75, "fpr95": 0.5}))


def draw3(repeats: int) -> Drawn:
    return figure3(dropped(repeats))


def draw4(repeats: int) -> Drawn:
    rng = random_numbers()
    embeddings = {}
    for label in ("FDNN", "DDNN", "MDT"):
        embeddings[label] = {"conv1": rng.normal(size=(60, 2)), "conv2": rng.normal(size=(60, 2))}
    return figure4(embeddings, np.arange(60) % 12, [f"class {i}" for i in range(12)])


def draw5(repeats: int) -> Drawn:
    return figure5(dropped(repeats))


def draw7(repeats: int) -> Drawn:
    rng = random_numbers()
    masked = {ratio: rng.normal(10, 3, (repeats, 7)) for ratio in (0.1, 0.2, 0.3)}
    return figure7(logits(repeats), masked)


def draw8(repeats: int) -> Drawn:
    return figure8(*fits(5, repeats))


def draw9(repeats: int) -> Drawn:
    return figure9(*fits(2, repeats))


def draw10(repeats: int) -> Drawn:
    every = methods(repeats)
    single = {key: values for key, values in every.items() if key != "ts"}
    return figure10({10: every, 1: single}, TITLES)


def draw13(repeats: int) -> Drawn:
    rng = random_numbers()
    return figure13({"MTT": rng.gamma(1, 1, 50), "DC": np.ones(4), "other": np.array([2.0])})


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
    "figure13": draw13,
}


def draw(name: str, repeats: int = 3) -> Drawn:
    """A figure from numbers that depend on nothing but the arguments."""
    return FIGURES[name](repeats)


def written(drawn: Drawn, kind: str) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(SVG):
        drawn.figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
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
    assert b"<text" in svg and len(svg) < 500_000, "text is text, points by the thousand are pixels"


@pytest.mark.parametrize("name", FIGURES)
def test_one_repeat_is_enough(name):
    drawn = draw(name, repeats=1)
    written(drawn, "png")
    assert not drawn.data.empty
    assert drawn.data.filter(like="_std_percent").eq(0).all(axis=None)


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
    "figure3": figure3({}),
    "figure4": figure4({}, np.array([], int), []),
    "figure8": figure8({}, {}, 1.5),
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


def test_figure7_has_the_unmasked_and_the_masked_training_images_of_the_same_networks():
    given = logits(2)
    figure = figure7(given, {0.1: np.full((2, 4), 3.0)}).figure
    own, test = names_in_legends(figure)
    for names, of_panel in ((own, given.own), (test, given.test)):
        numbers = {group: f"{values.mean():.2f} ± {values.std():.2f}" for group, values in of_panel.items()}
        unmasked = [f"{group}: {numbers[group]}" for group in ("FDNN", "DDNN")]
        assert names == [*unmasked, "DDNN, distilled images 10 % masked: 3.00 ± 0.00"]


def spread(**deviations: float) -> dict[str, np.ndarray]:
    """Maximum logits with these standard deviations, by group."""
    return {group.replace("_", " "): np.array([[-value, value]]) for group, value in deviations.items()}


FEW_IMAGES = "the narrower spread comes from few training images, not from distillation."


def test_the_conclusion_follows_from_the_numbers():
    """The numbers are those measured on digits."""
    own = spread(FDNN=1.25, DDNN=1.04, Random_images=1.03)
    test = spread(FDNN=1.35, DDNN=1.82, Random_images=1.9)
    text = conclusion(MaximumLogits(own, test))
    assert text == (
        "On their own training images, the maximum logits of the DDNNs spread less than those of the FDNNs "
        "(standard deviation 1.04 against 1.25). "
        f"Those of networks trained on as many random real images spread less, too (1.03): {FEW_IMAGES} "
        "On test images, the maximum logits of the DDNNs do not spread less than those of the FDNNs "
        "(standard deviation 1.82 against 1.35)."
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
    text = conclusion(MaximumLogits(spread(**own), spread(FDNN=1.0, DDNN=0.5)))
    assert re.search(expected, text)
    assert FEW_IMAGES not in text
    on_test_images = "On test images, the maximum logits of the DDNNs spread less than those of the FDNNs"
    assert text.endswith(f"{on_test_images} (standard deviation 0.50 against 1.00).")


def test_the_conclusion_is_drawn_below_figure2a_and_not_below_figure7():
    drawn = draw("figure2a")
    text = drawn.figure.get_supxlabel()
    assert " ".join(text.split()) == conclusion(logits(3)) == drawn.words["text"]
    assert draw("figure7").figure.get_supxlabel() == ""


def test_figure3_has_mean_and_standard_deviation_in_percent():
    points = [{"share": 0.05, "accuracy": [0.4, 0.6]}, {"share": 0, "accuracy": [0.7, 0.7]}]
    drawn = figure3({"MTT": points})
    assert drawn.data["dropped_percent"].tolist() == pytest.approx([0, 5])
    assert drawn.data["accuracy_mean_percent"].tolist() == pytest.approx([70, 50])
    assert drawn.data["accuracy_std_percent"].tolist() == pytest.approx([0, 100 * np.sqrt(0.02)])
    assert drawn.figure.axes[0].lines[0].get_ydata() == pytest.approx([70, 50])


@pytest.mark.parametrize(
    ("figure", "x"), [(figure8, "ratio_percent"), (figure9, "share_percent")], ids=["figure8", "figure9"]
)
def test_fits_are_drawn_in_order_and_hollow_where_a_temperature_is_on_its_bound(figure, x):
    drawn = figure(*fits(1, 3))
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
    axis = figure8(*fits(1, 3)).figure.axes[0]
    levels = {
        color_of(line): line.get_ydata()[0] for line in axis.lines if line.get_linestyle() in (":", "-.")
    }
    assert levels == {COLORS["raw"]: pytest.approx(30), COLORS["fixed"]: pytest.approx(5)}


@pytest.mark.parametrize("kind", FITTED)
def test_fits_of_one_kind_alone_and_rows_without_levels_are_drawn(kind):
    of_kind, *_ = fits(1, 1, kinds=[kind])
    drawn = figure8(of_kind, {}, 1.5)
    written(drawn, "svg")
    assert set(drawn.data["method"]) == {"mts_converged" if kind == "converged" else "mts"}


def test_figure10_leaves_out_what_does_not_exist():
    drawn = draw("figure10")
    assert drawn.data[drawn.data["method"] == "ts"]["ipc"].tolist() == [10]
    assert drawn.data[drawn.data["method"] == "mts"]["ipc"].tolist() == [1, 10]
    ticks = drawn.figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["1", "10"]


def test_a_method_has_its_color_in_every_figure():
    bars = {}
    for axis in draw("figure1").figure.axes:
        title = axis.get_title().split("\n")[0]
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
    assert modules == {"stages.reporting.figures"}
    assert {path.name for path in SOURCES} >= {"figures.py", "style.py"}


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
