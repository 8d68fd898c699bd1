"""The tables' arithmetic on made-up results whose answers are known."""

import numpy as np
import pytest
import yaml
from conftest import outside

from stages.reporting import further_tables, paper_tables
from stages.reporting.cells import Results, Table, mean_std, worse_than_raw
from stages.reporting.formats import latex, write_table
from stages.reporting.paper_tables import PAPER, families
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


def row(backbone="mtt", ipc=50, mdt=0.0, suite="cifar10", reads="buffer/all") -> TableKeys:
    return TableKeys(suite=suite, dataset=suite, backbone=backbone, ipc=ipc, reads=reads, mdt=mdt)


ROWS = {
    "a": row(),
    "a-mdt": row(mdt=0.1),
    "a-ds": row(mdt=[0, 0.1]),
    "b": row("dc"),
    "c": row(ipc=1),
    "d": row(suite="made-up"),  # has no results
    "full": row("full", None),
}
METHODS = {
    "a": {
        "raw": method(0.05),
        "ts": method(0.04, accuracy=0.69),
        "mixup": method(0.2),
        "mts": method(0.0123, gap=-0.005, difference=(-0.05, -0.03)),
    },
    "a-mdt": {"raw": method(0.03, accuracy=0.65), "mts": method(0.02, difference=(-0.02, 0.01))},
    "a-ds": {"raw": method(0.06), "mts": method(0.07, difference=(0.005, 0.02), hit=True)},
    "b": {"raw": method(0.2, gap=0.2), "mixup": method(0.1), "mts": method(0.3, gap=-0.3)},
    "c": {"raw": method(0.1), "mixup": method(0.11), "mts": method(0.02)},
    "full": {"raw": method(0.04, repeats=1)},
}
RESULTS = Results(ROWS, {name: {"methods": methods} for name, methods in METHODS.items()}, start=1.5)


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
    assert list(table) == ["a", "a paper", "b", "b paper", "d", "# worse than Raw"]
    assert table["a"]["MTS"] == "1.23 ± 1.00"
    assert table["a"]["Accuracy"] == "70.00 ± 1.00"
    assert table["a"]["LS"] == "-"
    assert table["a paper"]["MTS"] == "1.20 ± 0.30"
    assert table["b paper"]["Raw"] == "23.60 ± 0.70"
    assert table["b paper"]["Oracle T"] == ""


def test_a_row_without_results_is_shown_as_missing():
    table = lines(paper_tables.table1(RESULTS))
    assert set(table["d"].values()) == {"d", "missing"}


def test_a_temperature_on_its_bound_is_marked():
    sampled = RESULTS._replace(rows={"a-ds": row()})
    assert lines(paper_tables.table1(sampled))["a-ds"]["MTS"] == "7.00 ± 1.00†"


def test_table1_counts_the_rows_that_a_method_makes_worse():
    worse = lines(paper_tables.table1(RESULTS))["# worse than Raw"]
    assert worse["Raw"] == "-"
    assert worse["TS"] == worse["T = 1.5"] == "0"
    assert worse["Mixup"] == worse["MTS"] == "1"
    assert worse_than_raw(RESULTS, "mixup") == 2, "with the row of one image per class"


def test_table5_has_the_rows_of_one_image_per_class():
    table = lines(paper_tables.table5(RESULTS))
    assert list(table) == ["c", "c paper", "# worse than Raw"]
    assert table["c paper"]["Mixup"] == "8.40 ± 1.10"
    assert table["# worse than Raw"]["Mixup"] == "1"


def test_table7_has_the_full_data():
    table = lines(paper_tables.table7(RESULTS))
    assert list(table) == ["full", "full paper", "# worse than Raw"]
    assert table["full"]["Raw"] == "4.00 ± 0.00"
    assert table["full paper"]["Mixup"] == "14.80"


def test_the_rows_of_a_family_differ_in_the_mask_alone():
    alone = [("b", None, None), ("c", None, None), ("d", None, None)]
    assert families(ROWS) == [("a", "a-mdt", "a-ds"), *alone]
    fewer = {"e": row(reads="buffer/some"), "e-mdt": row(mdt=0.2, reads="buffer/some")}
    fewer |= {"a": ROWS["a"], "a-mdt": ROWS["a-mdt"]}
    assert families(fewer) == [("e", "e-mdt", None), ("a", "a-mdt", None)]


def test_table2_takes_the_best_of_the_others():
    table = lines(paper_tables.table2(RESULTS))
    assert list(table) == ["a", "a paper"]
    assert table["a"] == {
        "Row": "a",
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
    assert table["# better than Raw"]["MTS"] == "1"
    assert table["# worse than Raw"]["MTS"] == "1"


def test_overcalibration_counts_the_networks_with_a_negative_gap():
    table = lines(further_tables.overcalibration(RESULTS))
    assert table["a"]["MTS"] == "-0.5 (2/3)", "the gaps are -1.5, -0.5 and +0.5 points"
    assert table["b"]["MTS"] == "-30.0 (3/3)"
    assert table["# under-confident"]["Raw"] == "0 of 16"
    assert table["# under-confident"]["MTS"] == "5 of 15"


def test_scores_have_a_line_for_each_method():
    table = further_tables.scores(RESULTS)
    first = table.text.iloc[0]
    assert (first["Row"], first["Method"]) == ("a", "Raw")
    assert first["ECE"] == "5.00 ± 1.00 [3.00, 7.00]"
    assert first["NLL"] == "0.050 ± 0.000"
    methods = sum(len(of_row) for of_row in METHODS.values())
    assert len(table.text) == methods + 1, "and one line for the row without results"
    missing = table.text[table.text["Row"] == "d"].drop(columns="Row")
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
    table = further_tables.starts(["a", "d"], {"a": ablation})
    optimum, own, other, missing = table.text.to_dict("records")
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
    tried = {"a": ["mlp", "vgg11"]}
    first, second = further_tables.architectures(tried, {"a": {"mlp": result}}).text.to_dict("records")
    assert (first["Weights"], first["ECE"]) == ("12,345", "5.00 ± 1.00")
    assert (second["Weights"], second["ECE"]) == ("missing", "missing")


def test_means_and_deviations_are_over_repeats():
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    assert mean_std([0.5]) == (0.5, 0.0)


def test_a_table_is_written_as_csv_markdown_and_latex(tmp_path):
    table = paper_tables.table2(RESULTS)
    write_table(table, tmp_path / "table2")
    numbers, text, tabular = [(tmp_path / f"table2.{ending}").read_text() for ending in ("csv", "md", "tex")]
    assert numbers.splitlines()[1].startswith("a,best_of_others,ece,3,0.04,0.01,3.64,0.2")
    assert "| a | 4.00 ± 1.00 (TS) | 3.00 ± 1.00 |" in text
    assert r"a & 4.00 $\pm$ 1.00 (TS) & 3.00 $\pm$ 1.00 &" in tabular
    assert latex(paper_tables.table1(RESULTS)).count(r"\# worse than Raw & ") == 1


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
