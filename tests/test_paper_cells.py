"""The table of the paper's numbers, on made-up results whose answers are known."""

import math
import re

import pandas as pd
import pytest
from project import ROOT
from test_tables import method, row, with_rows

from stages.reporting.cells import LONG, Results, Table
from stages.reporting.every_table import GRID
from stages.reporting.gathered import rows_of_paper_suites
from stages.reporting.page import table_section
from stages.reporting.paper_cells import cells_of_paper, hours_of_grid, paper_table
from stages.reporting.readme import readme_section
from stages.runtime.reuse import read_json
from stages.settings.tables import TableKeys

NOTHING = Results({}, {}, start=1.5)
PLACE = ["table", "dataset", "backbone", "ipc", "column"]
METHODS = {key: method(0.05) for key in ("raw", "ts", "mixup", "mts")}


def filled(table: Table) -> set[str]:
    """The numbers with one of ours beside, as `<table>.<column>`; all are of CIFAR-10 here."""
    if "row" not in table.numbers:
        return set()
    lines = table.numbers[table.numbers["row"].notna()]
    assert set(lines["dataset"]) <= {"cifar10"}
    return {f"{line['table']}.{line['column']}" for _, line in lines.iterrows()}


def of_rows(rows: dict[str, TableKeys], methods: dict | None = None, **about) -> Table:
    """The table of rows that have run, with the scores of `METHODS` where nothing else is said."""
    results = with_rows(rows, {name: methods or METHODS for name in rows}, **about)
    return paper_table(results, rows, {})


def line(table: Table, name: str, column: str) -> dict:
    """The only line of a number of CIFAR-10, as text and as numbers."""
    is_of_number = (table.numbers["table"] == name) & (table.numbers["column"] == column)
    is_of_number &= (table.numbers["dataset"] == "cifar10") & table.numbers["row"].notna()
    (number,) = table.numbers.index[is_of_number]
    return dict(table.text.loc[number]) | dict(table.numbers.loc[number])


def test_every_number_of_the_paper_has_one_line_if_nothing_ran():
    table = paper_table(NOTHING, {}, {})
    assert len(table.text) == len(table.numbers) == len(cells_of_paper()) == 136
    assert not table.numbers.duplicated(PLACE).any()
    assert not table.text.duplicated(["In the paper", "Data set", "Backbone", "IPC", "Method"]).any()
    assert dict(table.numbers["table"].value_counts()) == {
        "table1": 48,
        "table2": 16,
        "table3": 6,
        "table4": 20,
        "table5": 10,
        "table6": 12,
        "table7": 24,
    }
    assert set(table.text["Ours"]) == set(table.text["Row"]) == {""}
    assert set(table.text["Empty because"]) == {"no suite has such a row"}
    count = "0 of 136 with a number of ours beside: 0 at the published budget, 0 reduced"
    assert table.title == f"The paper's numbers: {count}"


def test_a_row_of_the_suites_would_fill_each_number(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = rows_of_paper_suites()
    hours = hours_of_grid(read_json(GRID))
    table = paper_table(NOTHING, rows, hours)
    for cell, number in zip(cells_of_paper(), table.numbers.itertuples(), strict=True):
        keys = rows[number.to_run]
        assert (keys.suite, keys.method, keys.ipc) == (cell.suite, cell.backbone, cell.ipc)
        is_rtp_of_cifar100 = (cell.suite, cell.backbone) == ("cifar100", "rtp")
        assert keys.budget == ("reduced" if is_rtp_of_cifar100 else "published")
    reasons = list(table.text["Empty because"])
    assert reasons[0] == "not run: `python -m stages.tools.lent cifar10-mtt-ipc50`"
    assert all("`python -m stages.tools.lent " in reason for reason in reasons)
    assert set(table.numbers["to_run"]) <= hours.keys()
    assert all(re.fullmatch(r"[\d.]+ to [\d.]+", text) for text in table.text["Hours on a card"])


def test_the_hours_of_a_row_are_with_those_of_its_experts():
    experts = {"name": "experts", "least_hours": 1.0, "most_hours": 2.0}
    alone = {"name": "alone", "reads": "nothing", "least_hours": 0.25, "most_hours": 0.5}
    grid = {"buffers": [experts], "rows": [alone, alone | {"name": "mtt", "reads": "buffer/experts"}]}
    assert hours_of_grid(grid) == {"alone": (0.25, 0.5), "mtt": (1.25, 2.5)}
    assert hours_of_grid({}) == {}
    rows = {"alone": row("dc"), "mtt": row()}
    table = paper_table(NOTHING, rows, hours_of_grid(grid))
    shown = dict(zip(table.numbers["to_run"].fillna(""), table.text["Hours on a card"]))
    assert shown == {"alone": "0.25 to 0.5", "mtt": "1.2 to 2.5", "": ""}


@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        (
            row(),
            "table1.raw table1.ts table1.mixup table1.mts table2.best_of_others table2.mts table3.mts"
            " table4.raw table4.mixup table6.all_data table6.ts",
        ),
        (row(mdt=0.1), "table2.mdt table2.mdt_mts table4.mdt table6.mdt"),
        (row(mdt=[0, 0.1]), "table3.mdt_ds table3.mdt_ds_mts"),
        (row(ipc=10), "table3.mts"),
        (row(ipc=10, mdt=[0, 0.1]), "table3.mdt_ds table3.mdt_ds_mts"),
        (row(ipc=1), "table5.raw table5.mixup table5.mts"),
        (row("dc"), "table1.raw table1.ts table1.mixup table1.mts"),
        (row("file", made_by="dc"), "table1.raw table1.ts table1.mixup table1.mts"),
        (row("full", None), "table7.raw table7.ts table7.mixup table7.mts"),
        (row("random"), ""),
        (row("file"), ""),  # nobody knows what made the set
        (row(ipc=5), ""),
        (row(ipc=10, mdt=0.1), ""),
        (row(suite="made-up"), ""),
        (row(budget="quick"), ""),
        (row(budget=None), ""),
    ],
)
def test_a_row_fills_its_numbers_and_no_others(keys, numbers):
    table = of_rows({"a": keys})
    assert filled(table) == set(numbers.split())
    assert len(table.text) == 136
    count = len(numbers.split())
    assert f": {count} of 136 with" in table.title
    assert table.title.endswith(f": {count} at the published budget, 0 reduced")


def test_differences_are_in_points_and_in_combined_deviations():
    scores = {"raw": method(0.1, accuracy=0.7), "mts": method(0.0123, hit=True)}
    table = of_rows({"a": row()}, scores, step_size=0.0213)
    # The paper has 1.20 ± 0.3, ours are 1.23 ± 1: 0.03 / sqrt(1 + 0.09).
    mts = line(table, "table1", "mts")
    assert (mts["The paper"], mts["Ours"]) == ("1.20 ± 0.30", "1.23 ± 1.00†")
    assert (mts["difference"], mts["Difference"]) == (pytest.approx(0.03), "+0.03")
    assert mts["combined_deviations"] == pytest.approx(0.03 / math.sqrt(1.09))
    assert mts["In deviations"] == "+0.0"
    # The paper's accuracy is 70.48 ± 0.2, ours is 70 ± 1: -0.48 / sqrt(1 + 0.04).
    accuracy = line(table, "table4", "raw")
    assert (accuracy["Number"], accuracy["Ours"]) == ("Accuracy", "70.00 ± 1.00")
    assert (accuracy["Difference"], accuracy["In deviations"]) == ("-0.48", "-0.5")
    assert accuracy["combined_deviations"] == pytest.approx(-0.48 / math.sqrt(1.04))
    assert (accuracy["Row"], accuracy["Step size"], accuracy["Repeats"]) == ("a", "learned 0.0213", "3")
    assert (accuracy["Budget"], accuracy["Empty because"]) == ("published", "")


def test_deviations_are_left_out_where_one_is_unknown():
    full = line(of_rows({"a": row("full", None)}), "table7", "raw")
    assert (full["Difference"], full["In deviations"]) == ("+0.50", "")
    one_network = {"raw": method(0.05, repeats=1)}
    single = line(of_rows({"a": row()}, one_network), "table1", "raw")
    assert (single["Difference"], single["In deviations"], single["Repeats"]) == ("+0.07", "", "1")
    assert math.isnan(single["combined_deviations"])


def test_the_best_of_the_others_is_named():
    scores = {"raw": method(0.05), "ts": method(0.04), "mts": method(0.01)}
    best = line(of_rows({"a": row()}, scores), "table2", "best_of_others")
    assert best["Ours"] == "4.00 ± 1.00 (TS)"


def test_published_rows_come_before_reduced_ones():
    reduced = {"budget": "reduced", "budget_note": "a tenth"}
    rows = {"small": row(ipc=1, **reduced), "whole": row(ipc=1)}
    table = of_rows(rows)
    assert set(table.text["Row"]) == {"", "whole"}
    assert table.title.endswith("3 of 136 with a number of ours beside: 3 at the published budget, 0 reduced")
    scores = {"small": METHODS, "whole": {"raw": method(0.1)}}
    table = paper_table(with_rows(rows, scores), rows, {})
    assert table.title.endswith("3 of 136 with a number of ours beside: 1 at the published budget, 2 reduced")
    mts = line(table, "table5", "mts")
    assert (mts["Row"], mts["Budget"]) == ("small", "reduced: a tenth")


def test_every_row_that_fits_has_a_line_and_a_number_counts_once():
    rows = {"learned": row(ipc=1), "teacher": row("file", 1, made_by="mtt", lr="teacher")}
    table = of_rows(rows)
    assert len(table.text) == 136 + 3
    assert ": 3 of 136 with" in table.title
    raw = table.text[(table.text["In the paper"] == "Table 5") & (table.text["Method"] == "Raw")]
    assert list(raw["Row"])[:2] == ["learned", "teacher"]
    assert list(raw["Step size"])[:2] == ["learned", "teacher"]


def test_an_empty_number_says_why_it_is_empty():
    rows = {
        "ran": row(ipc=1),
        "reduced": row("rtp", budget="reduced", budget_note="a tenth"),
        "dc": row("dc", budget="reduced", budget_note="a tenth"),
        "dc-whole": row("dc"),
    }
    table = paper_table(with_rows(rows, {"ran": METHODS}), rows, {})
    reasons = {}
    for _, cells in table.text.iterrows():
        if cells["Data set"] == "cifar10":
            key = (cells["In the paper"], cells["Backbone"], cells["Method"])
            reasons[key] = cells["Empty because"]
    command = "`python -m stages.tools.lent"
    assert reasons["Table 5", "mtt", "Focal"] == "`ran` ran without this method"
    assert reasons["Table 5", "mtt", "Raw"] == ""
    assert (
        reasons["Table 1", "rtp", "TS"] == f"not run, and reduced in the suite (a tenth): {command} reduced`"
    )
    assert reasons["Table 1", "dc", "TS"] == f"not run: {command} dc-whole`"
    assert reasons["Table 1", "dsa", "TS"] == "no suite has such a row"


def test_suites_that_the_paper_has_no_numbers_for_have_no_rows_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites/shapes.yaml").write_text("runs: {shapes: {}}\n")
    assert rows_of_paper_suites() == {}


@pytest.mark.parametrize("count", [LONG, LONG + 1])
def test_a_long_table_is_linked_in_the_readme_and_folded_in_the_page(count):
    text = pd.DataFrame([{"Row": "a", "ECE": "1.00"}] * count)
    table = Table("Long: a table", text, pd.DataFrame(), ["A note."])
    short = readme_section("long", table)
    page = table_section("long", table, {"a": {}})
    if count > LONG:
        assert short == "## Long: a table\n\n101 lines: [tables/long.md](tables/long.md)."
        assert "<details><summary>101 lines</summary>" in page
    else:
        assert short.count("\n") > LONG
        assert "<details" not in page
    assert page.count("A note.") == 1
