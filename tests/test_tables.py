"""The tables' arithmetic on made-up results whose answers are known."""

import numpy as np
import pytest
import yaml
from conftest import outside

from stages.reporting import further_tables, paper_tables
from stages.reporting.cells import Results, Table, lr_and_step_size, mean_std, percent
from stages.reporting.counts import worse_than_raw
from stages.reporting.families import families, without_family
from stages.reporting.formats import latex, write_table
from stages.reporting.marks import marked, with_step_size
from stages.reporting.paper_tables import CHOICES, PAPER, refer_to_choices
from stages.settings.tables import TableKeys

SCORES = ("ece_15", "adaptive_ece", "classwise_ece", "smooth_ece", "nll", "brier")


def method(ece: float, accuracy=0.7, gap=0.1, difference=(0.0, 0.0), hit=False, repeats=3) -> dict:
    """Scores of `repeats` networks around a mean, with a standard deviation of 0.01.

    Args:
        gap: mean confidence minus accuracy.
        difference: the interval of the ECE's difference to Raw's.
        hit: whether the temperatures ended on a bound.
    """
    spread = 0.01 * (np.arange(repeats) - (repeats - 1) / 2)
    numbers = {key: [ece] * repeats for key in SCORES}
    numbers["ece"] = list(ece + spread)
    numbers["accuracy"] = list(accuracy + spread)
    numbers["confidence_gap"] = list(gap + spread)
    numbers["temperature"] = [1.3] * repeats
    numbers["bound_hit"] = [hit] * repeats
    numbers["interval"] = {"ece": [ece - 0.02, ece + 0.02], "smooth_ece": [0.0, 0.5]}
    numbers["difference_to_raw"] = list(difference)
    return numbers


def row(backbone="mtt", ipc: int | None = 50, mdt=0.0, suite="cifar10", **changes) -> TableKeys:
    """A published row of CIFAR-10, but for what is said."""
    values = {"reads": "buffer/all", "lr": "learned" if backbone == "mtt" else 0.01, "budget": "published"}
    return TableKeys(suite=suite, dataset=suite, backbone=backbone, ipc=ipc, mdt=mdt, **values | changes)


ROWS = {
    "a": row(),
    "a-mdt": row(mdt=0.1),
    "a-ds": row(mdt=[0, 0.1]),
    "b": row("dc"),
    "c": row(ipc=1),
    "d": row(suite="made-up", budget=None),  # has no results
    "full": row("full", None),
}
METHODS = {
    "a": {
        "raw": method(0.05),
        "ts": method(0.04, accuracy=0.69),
        "mixup": method(0.2, difference=(0.1, 0.2)),
        "mts": method(0.0123, gap=-0.005, difference=(-0.05, -0.03)),
    },
    "a-mdt": {"raw": method(0.03, accuracy=0.65), "mts": method(0.02, difference=(-0.02, 0.01))},
    "a-ds": {"raw": method(0.06), "mts": method(0.07, difference=(0.005, 0.02), hit=True)},
    "b": {
        "raw": method(0.2, gap=0.2),
        "mixup": method(0.1),
        "mts": method(0.3, gap=-0.3, difference=(0.05, 0.15)),
    },
    "c": {"raw": method(0.1), "mixup": method(0.11, difference=(0.001, 0.02)), "mts": method(0.02)},
    "full": {"raw": method(0.04, repeats=1)},
}
RESULTS = Results(
    ROWS, {name: {"mask_ratio": 0.3, "methods": methods} for name, methods in METHODS.items()}, start=1.5
)


def test_the_distance_of_a_shipped_temperature_is_how_much_worse_than_the_oracle_it_is():
    methods = METHODS["c"] | {"shipped": method(0.031), "oracle": method(0.02)}
    lines = paper_tables.table5(with_rows({"c": ROWS["c"]}, {"c": methods})).text
    assert lines.set_index("Row").loc["c", "Shipped - oracle"] == "+1.10"


def with_rows(rows: dict[str, TableKeys], methods: dict[str, dict], **about) -> Results:
    """Results of made-up rows; `about` is said of each row that has methods."""
    evaluated = {name: {"mask_ratio": 0.3, "methods": of_row} | about for name, of_row in methods.items()}
    return Results(rows, evaluated, start=1.5)


def lines(table: Table) -> dict[str, dict[str, str]]:
    """A table's lines by row; the paper's stand under "<row> paper"."""
    by_row = {}
    name = ""
    for line in table.text.to_dict("records"):
        if line["Row"] == "(the paper)":
            by_row[f"{name} paper"] = line
        else:
            name = line["Row"]
            by_row[name] = line
    return by_row


def test_table1_has_the_rows_of_several_images_per_class():
    table = lines(paper_tables.table1(RESULTS))
    assert list(table) == ["a", "a paper", "b", "b paper", "d", "# worse than Raw, the paper's rows (2)"]
    assert table["a"]["MTS"] == "1.23 ± 1.00"
    assert table["a"]["Accuracy"] == "70.00 ± 1.00"
    assert table["a"]["LS"] == "-"
    assert table["a paper"]["MTS"] == "1.20 ± 0.30"
    assert table["b paper"]["Raw"] == "23.60 ± 0.70"
    assert table["b paper"]["Oracle T"] == ""


def test_a_row_without_results_is_shown_as_missing():
    table = lines(paper_tables.table1(RESULTS))
    assert set(table["d"].values()) == {"d", "learned", "missing"}


def test_a_temperature_on_its_bound_is_marked():
    sampled = RESULTS._replace(rows={"a-ds": row()})
    assert lines(paper_tables.table1(sampled))["a-ds"]["MTS"] == "7.00 ± 1.00†"


def test_table1_counts_the_rows_that_a_method_makes_worse():
    worse = lines(paper_tables.table1(RESULTS))["# worse than Raw, the paper's rows (2)"]
    assert worse["Raw"] == "-"
    assert worse["Mixup"] == worse["MTS"] == "1"
    assert worse["TS"] == "0 of 1", "a method that exists for one of the two rows"
    assert worse["LS"] == worse["T = 1.5"] == "-", "a method that exists for none of them"
    assert sum(worse_than_raw(RESULTS, "mixup")) == 2, "with the row of one image per class"


def test_table5_has_the_rows_of_one_image_per_class():
    table = lines(paper_tables.table5(RESULTS))
    assert list(table) == ["c", "c paper", "# worse than Raw, the paper's rows (1)"]
    assert table["c paper"]["Mixup"] == "8.40 ± 1.10"
    worse = table["# worse than Raw, the paper's rows (1)"]
    assert (worse["Mixup"], worse["TS"]) == ("1", "-")


def test_table7_has_the_full_data():
    table = lines(paper_tables.table7(RESULTS))
    assert list(table) == ["full", "full paper", "# worse than Raw, the paper's rows (1)"]
    assert table["full"]["Raw"] == "4.00", "one network has no deviation"
    assert table["full paper"]["Mixup"] == "14.80"


def test_the_rows_of_a_family_differ_in_the_mask_alone():
    alone = [("b", None, None), ("c", None, None), ("d", None, None)]
    assert families(ROWS) == [("a", "a-mdt", "a-ds"), *alone]
    fewer = {"e": row(reads="buffer/some"), "e-mdt": row(mdt=0.2, reads="buffer/some")}
    fewer |= {"a": ROWS["a"], "a-mdt": ROWS["a-mdt"]}
    assert families(fewer) == [("e", "e-mdt", None), ("a", "a-mdt", None)]


def test_rows_with_other_settings_are_no_family():
    """Everything counts but the mask: what is distilled, and how the networks are trained."""
    for changes in (
        {"distill": {"lr_img": 1e4}},
        {"epochs": 300},
        {"lr": "teacher"},
        {"budget": "reduced"},
        {"reads": "buffer/other"},
        {"backbone": "file", "made_by": "mtt"},
    ):
        values = {"backbone": "mtt"} | changes
        rows = {"x": row(**values), "a-mdt": row(mdt=0.1)}
        assert families(rows) == [("x", None, None)]
        assert without_family(rows) == ["a-mdt"]


def imported(folder: str, mdt: float | list[float] = 0.0, **changes) -> TableKeys:
    """A set of MTT's that was made elsewhere."""
    values = {"made_by": "mtt", "lr": "learned", "reads": f"sets/{folder}"}
    return row("file", mdt=mdt, **values | changes)


def test_imported_sets_are_a_family_although_each_is_a_folder_of_its_own():
    rows = {"s": imported("s"), "s-mdt": imported("t", 0.1), "s-ds": imported("u", [0, 0.1]), **ROWS}
    assert families(rows)[:2] == [("s", "s-mdt", "s-ds"), ("a", "a-mdt", "a-ds")]
    assert without_family(rows) == []


def test_no_row_is_taken_for_another():
    """Where several rows fit, the budget's words decide; or else none is taken, and a note says so."""
    small, large = {"budget_note": "few experts"}, {"budget_note": "many experts"}
    two = {
        "small": imported("s", **small),
        "large": imported("l", **large),
        "large-mdt": imported("lm", 0.1, **large),
    }
    assert families(two) == [("small", None, None), ("large", "large-mdt", None)]
    four = two | {"small-mdt": imported("sm", 0.1, **small)}
    assert families(four) == [("small", "small-mdt", None), ("large", "large-mdt", None)]
    unclear = four | {"small-mdt-again": imported("sm2", 0.2, **small)}
    assert families(unclear) == [("small", None, None), ("large", "large-mdt", None)]
    assert without_family(unclear) == ["small-mdt", "small-mdt-again"]
    notes = paper_tables.table4(with_rows(unclear, {})).notes
    assert any("in the mask alone: `small-mdt`, `small-mdt-again`." in note for note in notes)


def test_table2_takes_the_best_of_the_others():
    table = lines(paper_tables.table2(RESULTS))
    assert list(table) == ["a", "a paper"]
    assert table["a"] == {
        "Row": "a",
        "Step size": "learned",
        "Best of others": "4.00 ± 1.00 (TS)",
        "MDT": "3.00 ± 1.00",
        "MTS": "1.23 ± 1.00",
        "MDT+MTS": "2.00 ± 1.00",
    }
    assert table["a paper"]["Best of others"] == "3.64 ± 0.20"
    assert table["a paper"]["MDT+MTS"] == "2.50 ± 0.50"


def test_a_row_of_a_family_without_results_is_shown_as_missing():
    evaluated = {name: result for name, result in RESULTS.evaluated.items() if name != "a-mdt"}
    table = lines(paper_tables.table2(RESULTS._replace(evaluated=evaluated)))
    assert table["a"]["MDT"] == "missing"


def test_table3_has_the_rows_with_sampled_ratios():
    table = lines(paper_tables.table3(RESULTS))
    assert list(table) == ["a", "a paper"]
    assert table["a"]["MDT_ds"] == "6.00 ± 1.00"
    assert table["a"]["MDT_ds+MTS"] == "7.00 ± 1.00"
    assert table["a paper"]["MDT_ds"] == "5.10 ± 0.40"


def test_table3_says_which_mask_ratio_mts_has():
    rows = ROWS | {"e": row(ipc=10), "e-ds": row(ipc=10, mdt=[0, 0.1])}
    evaluated = RESULTS.evaluated | {"e-ds": RESULTS.evaluated["a-ds"] | {"mask_ratio": 0.1}}
    notes = paper_tables.table3(RESULTS._replace(rows=rows, evaluated=evaluated)).notes
    fixed = "The paper fixes the mask ratio of MTS in MDT_ds+MTS at 0.1."
    assert f"{fixed} Here it is 0.3 on `a-ds`; 0.1 on `e-ds`." in notes
    assert fixed in paper_tables.table3(RESULTS._replace(evaluated={})).notes


def test_table4_has_the_accuracy_of_each_method():
    table = lines(paper_tables.table4(RESULTS))
    assert list(table) == ["a", "a paper", "b", "d"]
    assert table["a"]["MDT"] == "65.00 ± 1.00"
    assert table["a paper"]["Mixup"] == "65.50 ± 0.50"
    assert table["b"]["MDT"] == table["b"]["LS"] == "-"
    assert table["d"]["Raw"] == "missing"


def test_table6_has_the_accuracy_without_the_images_that_ts_holds_out():
    table = lines(paper_tables.table6(RESULTS))
    assert table["a"]["Without TS's share"] == "69.00 ± 1.00"
    assert table["a paper"]["Without TS's share"] == "69.78 ± 0.50"
    assert table["b"]["Without TS's share"] == "-"


def test_differences_count_the_rows_whose_interval_excludes_zero():
    table = lines(further_tables.intervals(RESULTS))
    assert table["a"]["MTS"] == "-3.8 [-5.0, -3.0]"
    assert table["b"]["TS"] == "-"
    assert table["d"]["MTS"] == "missing"
    assert table["# better than Raw, the paper's rows (4)"]["MTS"] == "1 of 3"
    assert table["# worse than Raw, the paper's rows (4)"]["MTS"] == "1 of 3"
    assert table["# better than Raw, other distilled rows (2)"]["MTS"] == "0"
    assert table["# worse than Raw, other distilled rows (2)"]["MTS"] == "1"


def test_overcalibration_counts_the_networks_with_a_negative_gap():
    table = lines(further_tables.overcalibration(RESULTS))
    assert table["a"]["MTS"] == "-0.5 (2/3)", "the gaps are -1.5, -0.5 and +0.5 points"
    assert table["b"]["MTS"] == "-30.0 (3/3)"
    assert table["# under-confident, the paper's rows (4)"]["Raw"] == "0 of 10"
    assert table["# under-confident, the paper's rows (4)"]["MTS"] == "5 of 9"


def test_scores_have_a_line_for_each_method():
    table = further_tables.scores(RESULTS)
    first = table.text.iloc[0]
    assert (first["Row"], first["Method"]) == ("a", "Raw")
    assert first["ECE"] == "5.00 ± 1.00 [3.00, 7.00]"
    assert first["NLL"] == "0.050 ± 0.000"
    methods = sum(len(of_row) for of_row in METHODS.values())
    assert len(table.text) == methods + 1, "and one line for the row without results"
    missing = table.text[table.text["Row"] == "d"].drop(columns=["Row", "Step size"])
    assert (missing == "missing").all(axis=None)
    numbers = table.numbers.set_index(["row", "method"])
    assert numbers.loc[("a", "mts"), "ece_mean"] == pytest.approx(0.0123)


def fit(ratio: float, start: float | None, steps: int | None, ece: float, share=0.1) -> dict:
    """A fit of two networks, as `ablate` writes it; the exact optimum has one of them on the bound."""
    return {
        "ratio": ratio,
        "share": share,
        "start": start,
        "steps": steps,
        "temperature": [1.2, 1.4],
        "bound_hit": [False, start is None],
        "ece": [ece, ece],
    }


def test_starting_values_name_the_oracle_ratio():
    fits = [fit(0.1, 1.5, 50, 0.9, share=0.5)]
    for ratio, ece in ((0.1, 0.05), (0.3, 0.02)):
        for start, steps in ((None, None), (1.5, 50), (1.5, 1), (3.0, 50)):
            fits.append(fit(ratio, start, steps, ece))
    ablation = {"ratio": 0.1, "share": 0.1, "start": 1.5, "steps": 50, "fits": fits}
    ablation |= {"raw": [0.2, 0.2], "fixed": [0.08, 0.08], "shipped": [0.01, 0.03]}
    table = further_tables.starts(["a", "d"], {"a": ablation})
    optimum, own, other, shipped, missing = table.text.to_dict("records")
    assert (shipped["Start"], shipped["0.1"]) == ("shipped T", "2.00")
    assert (optimum["Start"], optimum["Steps"]) == ("any", "converged")
    assert (own["Start"], own["Steps"]) == ("1.5", "50")
    assert (other["Start"], other["Steps"]) == ("3", "50")
    assert (missing["Start"], missing["Steps"]) == ("missing", "missing")
    assert own["0.1"] == "5.00 (1.30)"
    assert optimum["0.3"] == "2.00 (1.30)†"
    assert own["Oracle ratio"] == "0.3"
    assert len(table.numbers) == 8, "every number of steps is in the CSV, other shares are not"


def test_detections_and_architectures_without_results_are_missing():
    detections = {"a": {"auroc": [0.75, 0.75], "fpr95": [0.5, 0.5]}, "b": {}}
    table = lines(further_tables.outside(detections))
    assert table["a"]["AUROC"] == "75.00 ± 0.00"
    assert table["b"]["AUROC"] == "missing"
    result = method(0.05) | {"parameters": 12345}
    result["calibrated"] = {"own": method(0.02), "oracle": method(0.01) | {"bound_hit": [False, True]}}
    tried = {"a": ["mlp", "vgg11"]}
    first, second = further_tables.architectures(tried, {"a": {"mlp": result}}).text.to_dict("records")
    assert (first["Weights"], first["ECE"]) == ("12,345", "5.00 ± 1.00")
    assert (first["ECE at own T"], first["ECE at oracle T"]) == ("2.00 ± 1.00", "1.00 ± 1.00†")
    assert (second["Weights"], second["ECE"]) == ("missing", "missing")


def test_means_and_deviations_are_over_repeats():
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    assert mean_std([0.5]) == pytest.approx((0.5, np.nan), nan_ok=True)
    assert (percent([0.5, 0.5]), percent([0.5])) == ("50.00 ± 0.00", "50.00")


def test_a_table_is_written_as_csv_markdown_and_latex(tmp_path):
    table = paper_tables.table2(RESULTS)
    write_table(table, tmp_path / "table2")
    numbers, text, tabular = [(tmp_path / f"table2.{ending}").read_text() for ending in ("csv", "md", "tex")]
    assert numbers.splitlines()[1].startswith("a,best_of_others,ece,3,0.04,0.01,3.64,0.2")
    assert "| a | learned | 4.00 ± 1.00 (TS) | 3.00 ± 1.00 |" in text
    assert r"a & learned & 4.00 $\pm$ 1.00 (TS) & 3.00 $\pm$ 1.00 &" in tabular
    assert latex(paper_tables.table1(RESULTS)).count(r"\# worse than Raw, the paper's rows (2) &") == 1


# Budgets, step sizes, held-out images, optional losses, sets


RAW_AND_MTS = {"raw": method(0.1), "mts": method(0.2, difference=(0.05, 0.15))}
UNDECIDED = {"raw": method(0.1), "mts": method(0.2, difference=(-0.05, 0.25))}


def test_rows_of_the_paper_reduced_rows_and_all_others_are_counted_apart():
    """Real images are counted apart whatever their budget; so are sets that the paper does not have."""
    rows = {
        "published": row(),
        "reduced": row("dc", budget="reduced", budget_note="few iterations"),
        "imported": row("file", made_by="dsa", budget="reduced", budget_note="few images"),
        "not-in-paper": row("rtp", ipc=10),
        "own": row(suite="made-up", budget=None),
        "undecided": row(suite="made-up", budget=None),
        "random": row("random", budget=None),
        "random-reduced": row("random", budget="reduced"),
        "without-results": row(),
    }
    methods = {name: RAW_AND_MTS for name in rows if name != "without-results"}
    methods["own"] = {"raw": method(0.1), "mts": method(0.05, difference=(-0.06, -0.04))}
    methods["undecided"] = UNDECIDED
    table = lines(paper_tables.table1(with_rows(rows, methods)))
    counts = {name: line["MTS"] for name, line in table.items() if name.startswith("#")}
    assert counts == {
        "# worse than Raw, the paper's rows (1)": "1",
        "# worse than Raw, reduced rows (2)": "2",
        "# worse than Raw, other distilled rows (3)": "1",
        "# worse than Raw, rows of real images (2)": "2",
    }


def test_a_set_counts_once():
    rows = {
        "made": row(budget="reduced"),
        "again": row("file", reads="sets/made", made_by="mtt", budget="reduced"),
    }
    table = lines(paper_tables.table1(with_rows(rows, dict.fromkeys(rows, RAW_AND_MTS))))
    assert table["# worse than Raw, reduced rows (1)"]["MTS"] == "1"


def test_a_count_is_shown_only_if_there_is_such_a_row():
    table = lines(paper_tables.table1(with_rows({"own": row(budget=None)}, {"own": RAW_AND_MTS})))
    assert list(table) == ["own", "# worse than Raw, other distilled rows (1)"]
    table = lines(paper_tables.table1(with_rows({"own": row(budget=None)}, {})))
    assert list(table) == ["own"]


def test_the_papers_numbers_stand_beside_published_and_reduced_rows_alone():
    rows = {
        "published": row(),
        "reduced": row(budget="reduced", budget_note="20 experts"),
        "imported": row("file", made_by="mtt"),
        "unknown": row("file"),
        "own": row(budget=None),
        "quick": row(budget="quick"),
    }
    table = lines(paper_tables.table1(with_rows(rows, {})))
    beside = [name.removesuffix(" paper") for name in table if name.endswith(" paper")]
    assert beside == ["published", "reduced", "imported"]


def test_reduced_rows_are_marked_and_a_note_says_what_is_reduced():
    reduced = {"budget": "reduced", "budget_note": "20 experts instead of 100"}
    rows = {"a": row(), "small": row(**reduced), "small-2": row("dc", **reduced)}
    results = with_rows(rows, {})
    table = marked(paper_tables.table1(results), results)
    assert list(table.text["Row"]) == [
        "a",
        "(the paper)",
        "small ‡",
        "(the paper)",
        "small-2 ‡",
        "(the paper)",
    ]
    assert table.notes[-1] == "‡ reduced budget, `small`, `small-2`: 20 experts instead of 100."
    other = marked(paper_tables.table5(results), results)
    assert not [note for note in other.notes if "‡" in note], "the table does not show them"


def test_rows_of_several_sets_are_marked():
    rows = {"one": row("dc"), "five": row("random", budget="reduced")}
    results = with_rows(rows, {"one": RAW_AND_MTS}, sets=1)
    results.evaluated["five"] = {"methods": RAW_AND_MTS, "sets": 5}
    table = marked(further_tables.scores(results), results)
    assert list(table.text["Row"]) == ["one", "one", "five ‡§", "five ‡§"]
    assert table.notes[-1].endswith("± is over sets and networks.")


def test_every_table_says_which_step_size():
    rows = {
        "learned": row(),
        "older": row("file", made_by="mtt", lr="learned"),
        "teacher": row("file", made_by="mtt", lr="teacher"),
        "number": row("dc"),
    }
    results = with_rows(rows, dict.fromkeys(rows, RAW_AND_MTS), step_size=0.0497123)
    del results.evaluated["older"]["step_size"]
    results.evaluated["teacher"]["step_size"] = 0.009999999776482582
    table = lines(paper_tables.table1(results))
    assert [table[name]["Step size"] for name in rows] == [
        "learned 0.0497",
        "learned",
        "teacher 0.01",
        "0.01",
    ]
    for make in (paper_tables.table4, further_tables.intervals, further_tables.scores):
        table = lines(make(results))
        assert [table[name]["Step size"] for name in rows] == ["learned", "learned", "teacher", "0.01"]
    numbers = paper_tables.table1(results).numbers.set_index(["row", "method"])
    assert numbers.loc[("learned", "raw"), "step_size"] == 0.0497123
    assert numbers.loc[("teacher", "raw"), "lr"] == "teacher"


def test_mts_on_held_out_images_has_a_column_in_table7_alone():
    methods = RAW_AND_MTS | {"mts_holdout": method(0.07), "mts_holdout_converged": method(0.08)}
    rows = {"a": row(), "c": row(ipc=1), "full": row("full", None)}
    results = with_rows(rows, dict.fromkeys(rows, methods))
    table = lines(paper_tables.table7(results))
    assert (table["full"]["MTS"], table["full"]["MTS, held out"]) == ("20.00 ± 1.00", "7.00 ± 1.00")
    assert table["full"]["MTS, held out, conv."] == "8.00 ± 1.00"
    for make in (paper_tables.table1, paper_tables.table5, further_tables.intervals):
        assert "MTS, held out" not in make(results).text
    assert "MTS, held out" in list(further_tables.scores(results).text["Method"])
    assert "MTS, held out" not in paper_tables.table7(RESULTS).text, "where no row has it"


def test_the_loss_with_p_detached_has_a_column_where_a_row_has_it():
    for make in (paper_tables.table1, paper_tables.table4, further_tables.intervals):
        assert "Focal, p detached" not in make(RESULTS).text
        assert "Focal" in make(RESULTS).text
    detached = {"focal_detached": method(0.3, difference=(0.1, 0.3))}
    methods = {"a": RAW_AND_MTS | detached, "b": RAW_AND_MTS}
    results = with_rows({"a": row(), "b": row("dc")}, methods)
    table = lines(paper_tables.table1(results))
    assert (table["a"]["Focal, p detached"], table["b"]["Focal, p detached"]) == ("30.00 ± 1.00", "-")
    assert table["# worse than Raw, the paper's rows (2)"]["Focal, p detached"] == "1 of 1"
    assert "Focal, p detached" in paper_tables.table4(results).text
    assert "Focal, p detached" not in paper_tables.table5(results).text


def test_quick_rows_have_a_table_of_their_own():
    rows = {"a": row(), "q": row(budget="quick"), "r": row("dc", budget="quick")}
    results = with_rows(rows, {"q": RAW_AND_MTS}, step_size=0.01)
    assert list(results.without_quick().rows) == ["a"]
    table = further_tables.quick(results.quick())
    first, second = table.text.to_dict("records")
    assert table.title == "Quick rows: no results"
    assert first == {
        "Row": "q",
        "Step size": "learned 0.01",
        "Accuracy": "70.00 ± 1.00",
        "Raw": "10.00 ± 1.00",
        "MTS": "20.00 ± 1.00",
    }
    assert (second["Accuracy"], second["MTS"]) == ("missing", "missing")


def test_tables_1_and_5_point_to_the_table_of_choices_where_there_is_one():
    tables = {f"table{number}": paper_tables.table1(RESULTS) for number in (1, 2)}
    refer_to_choices(tables, {})
    assert CHOICES not in tables["table1"].notes
    tables["choices"] = tables["table2"]
    refer_to_choices(tables, {})
    assert CHOICES in tables["table1"].notes and CHOICES not in tables["table2"].notes
    assert not [character for character in CHOICES if character.isdigit()]


def test_the_note_on_early_stopping_says_whose_iterations_they_are():
    notes = " ".join(paper_tables.table1(RESULTS).notes)
    assert '0.02 and "only one step"' in notes and "public fork" in notes


# The names of the tables as they were taken from the paper's text, and ours.
PRINTED = {
    "table1_ece": "table1",
    "table2_ece": "table2",
    "table3_ece": "table3",
    "table4_accuracy": "table4",
    "table5_ece_ipc1": "table5",
    "table6_accuracy": "table6",
    "table7_ece_full_data": "table7",
}


def named_by(key: str, table: str) -> dict:
    """What a key of the paper's text says of a row, e.g. "rtp/cifar100", "cifar10" or "ipc50"."""
    if "/" in key:
        backbone, dataset = key.split("/")
        return {"backbone": backbone, "dataset": dataset}
    if key.startswith("ipc"):
        return {"backbone": "mtt", "dataset": "cifar10", "ipc": int(key[3:])}
    return {"backbone": "full" if table == "table7" else "mtt", "dataset": key}


def test_the_papers_numbers_are_the_papers():
    """All 136 numbers agree with the tables as they were taken from the paper's text."""
    printed = yaml.safe_load((outside("PAPER_DIR", "paper") / "tables.yaml").read_text())
    counted = 0
    for theirs, ours in PRINTED.items():
        for key, values in printed[theirs]["rows"].items():
            named = named_by(key, ours)
            (entry,) = [entry for entry in PAPER[ours]["rows"] if named.items() <= entry.items()]
            assert entry["values"] == values, (ours, key)
            counted += sum(value is not None for value in values)
    assert counted == 136
    assert PAPER["table1"]["over_calibration"] == printed["table1_ece"]["over_calibration"]


def test_the_images_per_class_are_the_papers_but_for_tiny_imagenet():
    """The paper prints 10 for Tiny ImageNet; its numbers stand beside 50, and a note says why."""
    printed = yaml.safe_load((outside("PAPER_DIR", "paper") / "tables.yaml").read_text())
    expected = printed["table1_ece"]["ipc"]
    assert expected["mtt/tinyimagenet"] == 10
    for name in ("table1", "table2", "table4", "table6"):
        rows = [entry for entry in PAPER[name]["rows"] if entry["backbone"] == "mtt"]
        ours = {f"mtt/{entry['dataset']}": entry["ipc"] for entry in rows}
        assert ours == expected | {"mtt/tinyimagenet": 50}
        assert PAPER[name]["notes"]["tinyimagenet"].startswith("The paper prints 10 images a class")
    at_50 = paper_tables.table1(with_rows({"tiny": row(suite="tinyimagenet")}, {}))
    assert lines(at_50)["tiny paper"]["Raw"] == "15.78 ± 0.30"
    assert PAPER["table1"]["notes"]["tinyimagenet"] in at_50.notes
    assert "tiny paper" not in lines(
        paper_tables.table1(with_rows({"tiny": row(ipc=10, suite="tinyimagenet")}, {}))
    )


def test_a_table_without_step_sizes_gets_them_and_others_stay_as_they_are():
    starts = further_tables.starts(["a"], {})
    shown = with_step_size(starts, RESULTS)
    assert list(shown.text)[:2] == ["Row", "Step size"]
    assert shown.text["Step size"][0] == lr_and_step_size(RESULTS, "a")
    table1 = paper_tables.table1(RESULTS)
    assert with_step_size(table1, RESULTS) is table1
