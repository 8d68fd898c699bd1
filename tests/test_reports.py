"""The stages that draw and report, on results that are made up, so that nothing has to be trained."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from project import make_project, suite, write_arrays, write_yaml

from stages import pictures
from stages.analyses import suite_figures
from stages.pictures import as_pictures, grid
from stages.report import report
from stages.reporting.calibration_figures import calibration_figures
from stages.reporting.feature_figures import masked_logits
from stages.reporting.gathered import gather
from stages.runtime.files import write_result
from stages.settings.rows import Row, listed_rows

NAMES = ("shapes-mtt-ipc2", "shapes-random-ipc1")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project without results, as the working directory."""
    monkeypatch.chdir(make_project(tmp_path))
    return tmp_path


def write_set(name: str, shade: float = 0.5, losses=(2.0, 1.0)) -> None:
    """A distilled set of a gray picture for each class, and its curve."""
    row = Row(name)
    images = np.full((3, 3, 8, 8), shade, np.float32)
    write_arrays(row.distilled, {"images": images, "labels": np.arange(3)})
    mean = np.zeros(3, np.float32)
    inverse = np.ones(3, np.float32)
    write_arrays(row.prepared / "transform.safetensors", {"mean": mean, "inverse": inverse})
    lines = [f"{i},{loss}" for i, loss in enumerate(losses)]
    row.curve.write_text("\n".join(["iteration,loss", *lines]) + "\n")


@pytest.fixture
def drawn(project, monkeypatch):
    """A function that runs `pictures` and returns the names of the rows that it draws."""
    for name in NAMES:
        write_set(name)
    draw_row = pictures.draw_row

    def counted(row: Row, plain: Row | None) -> None:
        Path(f"{row.name}.drawn").touch()
        draw_row(row, plain)

    def run() -> list[str]:
        pictures.pictures()
        files = sorted(project.glob("*.drawn"))
        for file in files:
            file.unlink()
        return [file.stem for file in files]

    monkeypatch.setattr(pictures, "draw_row", counted)
    assert run() == sorted(NAMES)
    return run


@pytest.mark.parametrize("shift, alike", [(0.01, True), (0.2, False)])
def test_a_picture_says_how_far_masks_change_a_set(shift, alike):
    plain = np.full((4, 2, 2, 1), 0.5)
    text = pictures.compared(plain + shift, plain, "digits-mtt")
    assert f"from those of digits-mtt by {shift:.3f} on average" in text
    assert text.endswith("the two look alike.") == alike
    assert pictures.compared(plain[:2], plain, "digits-mtt") == ""


def test_an_unchanged_picture_is_not_drawn_again(drawn):
    before = Row(NAMES[0]).picture.read_bytes()
    assert drawn() == []
    assert Row(NAMES[0]).picture.read_bytes() == before


def test_a_picture_is_drawn_when_its_set_changes(drawn):
    before = Row(NAMES[0]).picture.read_bytes()
    write_set(NAMES[0], shade=0.6)
    assert drawn() == [NAMES[0]]
    assert Row(NAMES[0]).picture.read_bytes() != before
    write_set(NAMES[0])
    assert drawn() == [NAMES[0]]
    assert Row(NAMES[0]).picture.read_bytes() == before


def test_a_picture_is_drawn_when_its_curve_changes(drawn):
    write_set(NAMES[1], losses=(2.0, 1.5))
    assert drawn() == [NAMES[1]]


def test_a_row_without_images_of_its_own_has_no_picture(drawn):
    write_arrays(Row(NAMES[0]).distilled, {"labels": np.arange(3)})
    assert drawn() == []
    assert not Row(NAMES[0]).picture.exists()
    assert Row(NAMES[1]).picture.exists()


def test_pictures_are_cut_to_what_a_screen_can_show():
    transform = {"mean": np.full(1, 0.5), "inverse": np.full(1, 2.0)}
    images = np.array([-1.0, 0.0, 0.25, 1.0]).reshape(1, 1, 2, 2)
    assert as_pictures(images, transform).ravel().tolist() == [0.0, 0.5, 1.0, 1.0]


def test_a_grid_has_a_line_for_each_class():
    shades = np.arange(6).repeat(4).reshape(6, 2, 2, 1) / 10
    image = grid(shades, np.array([0, 1, 2, 0, 1, 2]))
    assert image.shape == (3 * 3 + 1, 2 * 3 + 1, 1)
    corners = image[1::3, 1::3, 0]
    assert corners.tolist() == [[0.0, 0.3], [0.1, 0.4], [0.2, 0.5]]


def test_a_grid_of_many_classes_has_twenty_pictures_a_line():
    image = grid(np.zeros((200, 2, 2, 1)), np.arange(200))
    assert image.shape == (10 * 3 + 1, 20 * 3 + 1, 1)


def evaluated() -> dict:
    """What `evaluate` writes of Raw, as far as Figures 1 and 10 and the tables read it."""
    shares = ("accuracy", "ece", "ece_15", "adaptive_ece", "classwise_ece", "smooth_ece")
    numbers = {key: [0.25, 0.5] for key in (*shares, "nll", "brier", "confidence_gap", "temperature")}
    numbers |= {"bound_hit": [False, False], "difference_to_raw": [0.0, 0.0]}
    numbers["interval"] = {"ece": [0.2, 0.6], "smooth_ece": [0.2, 0.6]}
    numbers["reliability"] = {"count": [4, 6], "confidence": [0.3, 0.8], "accuracy": [0.2, 0.9]}
    return {"mask_ratio": 0.1, "test_images": 10, "methods": {"raw": numbers}}


def test_figure10_needs_mtt_rows_of_several_numbers_of_images(project):
    values = suite()
    values["runs"]["shapes-mtt-ipc1"] = values["runs"]["shapes-mtt-ipc2"] | {"ipc": 1}
    write_yaml(Path("suites/shapes.yaml"), values)
    rows = {row.name: row for row in listed_rows()}
    assert calibration_figures(gather()) == {}
    write_result(rows["shapes-mtt-ipc2"].results, evaluated())
    assert list(calibration_figures(gather())) == ["figure1-shapes-mtt-ipc2"]
    write_result(rows["shapes-mtt-ipc1"].results, evaluated())
    drawn = calibration_figures(gather())
    assert list(drawn) == ["figure1-shapes-mtt-ipc2", "figure10-shapes"]
    assert drawn["figure10-shapes"].data["ipc"].tolist() == [1, 2]


def test_a_report_without_results_says_what_is_missing(project):
    report()
    table = Path("reports/tables/table7.md").read_text()
    assert "| shapes-full | 0.05 | missing |" in table
    assert Path("reports/index.html").exists()
    assert [path.name for path in Path("reports/figures/calibration").iterdir()] == ["drawn.json"]
    assert suite_figures(Path("suites/shapes.yaml")) == {}


def test_a_report_has_no_table_of_analyses_that_the_suites_do_not_have(project):
    report()
    assert Path("reports/tables/outside.md").exists()
    shutil.rmtree("reports")
    write_yaml(Path("suites/shapes.yaml"), suite() | {"features": {}, "svd": {}, "architectures": {}})
    report()
    names = {path.stem for path in Path("reports/tables").iterdir()}
    assert not {"outside", "architectures"} & names
    assert {"table1", "table7", "scores"} <= names
    assert suite_figures(Path("suites/shapes.yaml")) == {}


def test_a_report_draws_and_shows_figure1_and_the_pictures(project):
    write_set(NAMES[0])
    write_result(Row(NAMES[0]).results, evaluated())
    pictures.pictures()
    report()
    readme = Path("reports/README.md").read_text()
    assert f"(figures/calibration/figure1-{NAMES[0]}.svg)" in readme
    page = Path("reports/index.html").read_text()
    assert f'alt="Images of {NAMES[0]}"' in page
    assert "| shapes-mtt-ipc2 | learned | 37.50 ± 17.68 |" in Path("reports/tables/table1.md").read_text()


def tables_with(name: str) -> list[str]:
    """The tables that have a line for a row, which may have a mark behind its name."""
    files = Path("reports/tables").glob("*.md")
    return sorted(file.stem for file in files if f"| {name} " in file.read_text())


def test_a_quick_row_is_in_no_table_but_its_own(project):
    values = suite()
    for kind in ("runs", "architectures", "features"):
        values[kind]["shapes-quick"] = dict(values[kind][NAMES[0]])
    values["runs"]["shapes-quick"]["budget"] = "quick"
    write_yaml(Path("suites/shapes.yaml"), values)
    for name in ("shapes-quick", NAMES[0]):
        write_result(Row(name).results, evaluated() | {"step_size": 0.02, "sets": 1})
    report()
    assert tables_with("shapes-quick") == ["quick"]
    assert {"table1", "table4", "starts", "outside", "architectures", "scores"} <= set(tables_with(NAMES[0]))
    shown = Path("reports/tables/quick.md").read_text()
    assert shown.startswith("**Quick rows: no results**")
    assert "| shapes-quick | learned 0.02 | 37.50 ± 17.68 | 37.50 ± 17.68 | - |" in shown
    headings = [line for line in Path("reports/README.md").read_text().splitlines() if line[:3] == "## "]
    assert headings[-2:] == ["## Quick rows: no results", "## Figures"]


def test_a_report_without_quick_rows_has_no_table_for_them(project):
    report()
    assert not Path("reports/tables/quick.md").exists()


def test_a_reduced_row_is_marked_in_every_table_and_its_numbers_are_links(project):
    values = suite()
    values["runs"][NAMES[0]] |= {"budget": "reduced", "budget_note": "2 experts instead of 100"}
    write_yaml(Path("suites/shapes.yaml"), values)
    report()
    for name in tables_with(NAMES[0]):
        text = Path(f"reports/tables/{name}.md").read_text()
        assert f"| {NAMES[0]} ‡ |" in text
        assert f"- ‡ reduced budget, `{NAMES[0]}`: 2 experts instead of 100." in text
    assert rf"{NAMES[0]} $^\ddagger$ &" in Path("reports/tables/table1.tex").read_text()
    page = Path("reports/index.html").read_text()
    assert f'<a href="#row-{NAMES[0]}">{NAMES[0]} ‡</a>' in page


def test_masked_logits_are_in_the_order_of_their_ratios():
    features = {f"masked.{ratio:g}.max_logit": np.full(2, ratio) for ratio in (0.3, 0.1, 0.25)}
    features["inside.max_logit"] = np.zeros(2)
    assert list(masked_logits(features)) == [0.1, 0.25, 0.3]
