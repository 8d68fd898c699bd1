"""The tables' arithmetic on made-up results whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import outside

from stages import tables
from stages.tables import Row, families, mean_std, worse_than_raw

ROOT = Path(__file__).parent.parent
PAPER = yaml.safe_load((ROOT / "stages/paper.yaml").read_text())
START = 1.5


def method(ece: float, accuracy: float = 0.7, gap: float = 0.1, low: float = 0.0, high: float = 0.0, hit: bool = False, repeats: int = 3) -> dict:
    """`repeats` networks around a mean, one standard deviation of 0.01 from each other."""
    spread = 0.01 * (np.arange(repeats) - (repeats - 1) / 2)
    numbers = {key: (value + spread).tolist() for key, value in {"ece": ece, "accuracy": accuracy, "confidence_gap": gap}.items()}
    numbers |= {key: [ece] * repeats for key in ("ece_15", "adaptive_ece", "classwise_ece", "smooth_ece", "nll", "brier")} | {"temperature": [1.3] * repeats}
    return numbers | {"bound_hit": [hit] * repeats, "interval": {"ece": [ece - 0.02, ece + 0.02], "smooth_ece": [0.0, 0.5]}, "difference_to_raw": [low, high]}


def row(backbone="mtt", ipc=50, mdt=0.0, suite="cifar10", reads="buffer/all") -> Row:
    return Row(suite=suite, dataset=suite, backbone=backbone, ipc=ipc, reads=reads, mdt=mdt)


ROWS = {
    "a": row(),
    "a-mdt": row(mdt=0.1),
    "a-ds": row(mdt=[0, 0.1]),
    "b": row("dc"),
    "c": row(ipc=1),
    "d": row(suite="made-up"),
    "full": row("full", None),
}
RESULTS = {
    "a": {"methods": {"raw": method(0.05), "ts": method(0.04, 0.69), "mixup": method(0.2), "mts": method(0.0123, gap=-0.005, low=-0.05, high=-0.03)}},
    "a-mdt": {"methods": {"raw": method(0.03, 0.65), "mts": method(0.02, low=-0.02, high=0.01)}},
    "a-ds": {"methods": {"raw": method(0.06), "mts": method(0.07, low=0.005, high=0.02, hit=True)}},
    "b": {"methods": {"raw": method(0.2, gap=0.2), "mixup": method(0.1), "mts": method(0.3, gap=-0.3)}},
    "c": {"methods": {"raw": method(0.1), "mixup": method(0.11), "mts": method(0.02)}},
    "full": {"methods": {"raw": method(0.04, repeats=1)}},
}


def lines(table) -> dict[str, dict]:
    """A table's lines by row; the paper's stand under "<row> paper"."""
    found, name = {}, None
    for line in table.text.to_dict("records"):
        name, key = (name, f"{name} paper") if line["Row"] == "(the paper)" else (line["Row"], line["Row"])
        found[key] = line
    return found


def test_table1_has_the_rows_of_several_images_and_counts_those_made_worse():
    found = lines(tables.table1(ROWS, RESULTS, PAPER, START))
    assert [*found] == ["a", "a paper", "b", "b paper", "d", "# worse than Raw"]
    assert found["a"]["MTS"] == "1.23 ± 1.00" and found["a"]["Accuracy"] == "70.00 ± 1.00" and found["a"]["LS"] == "-"
    assert found["a paper"]["MTS"] == "1.20 ± 0.30" and found["b paper"]["Raw"] == "23.60 ± 0.70" and found["b paper"]["Oracle T"] == ""
    assert set(found["d"].values()) == {"d", "missing"}, "a row without results is shown, never dropped"
    worse = found["# worse than Raw"]
    assert (worse["TS"], worse["Mixup"], worse["MTS"], worse["Raw"]) == ("0", "1", "1", "-") and worse["T = 1.5"] == "0"
    assert worse_than_raw(RESULTS, ROWS, "mixup") == 2, "with the row of one image a class"


def test_tables_5_and_7():
    five, seven = lines(tables.table5(ROWS, RESULTS, PAPER, START)), lines(tables.table7(ROWS, RESULTS, PAPER, START))
    assert [*five] == ["c", "c paper", "# worse than Raw"] and five["c paper"]["Mixup"] == "8.40 ± 1.10" and five["# worse than Raw"]["Mixup"] == "1"
    assert [*seven] == ["full", "full paper", "# worse than Raw"] and seven["full"]["Raw"] == "4.00 ± 0.00" and seven["full paper"]["Mixup"] == "14.80"


def test_families_differ_by_the_mask_alone():
    assert families(ROWS) == [("a", "a-mdt", "a-ds"), ("b", None, None), ("c", None, None), ("d", None, None)]
    fewer = {"e": row(reads="buffer/some"), "e-mdt": row(mdt=0.2, reads="buffer/some")}
    assert families(fewer | {"a": ROWS["a"], "a-mdt": ROWS["a-mdt"]}) == [("e", "e-mdt", None), ("a", "a-mdt", None)]


def test_table2_takes_the_best_of_the_others():
    found = lines(tables.table2(ROWS, RESULTS, PAPER, START))
    assert [*found] == ["a", "a paper"]
    assert found["a"] == {"Row": "a", "Best of others": "4.00 ± 1.00 (TS)", "MDT": "3.00 ± 1.00", "MTS": "1.23 ± 1.00", "MDT+MTS": "2.00 ± 1.00"}
    assert found["a paper"]["Best of others"] == "3.64 ± 0.20" and found["a paper"]["MDT+MTS"] == "2.50 ± 0.50"
    without = {name: result for name, result in RESULTS.items() if name != "a-mdt"}
    assert lines(tables.table2(ROWS, without, PAPER, START))["a"]["MDT"] == "missing"


def test_table3_is_of_sampled_ratios():
    found = lines(tables.table3(ROWS, RESULTS, PAPER, START))
    assert [*found] == ["a", "a paper"] and found["a"]["MDT_ds"] == "6.00 ± 1.00" and found["a"]["MDT_ds+MTS"] == "7.00 ± 1.00"
    assert found["a paper"]["MDT_ds"] == "5.10 ± 0.40"


def test_tables_4_and_6_are_of_accuracy():
    four, six = lines(tables.table4(ROWS, RESULTS, PAPER, START)), lines(tables.table6(ROWS, RESULTS, PAPER, START))
    assert [*four] == ["a", "a paper", "b", "d"] and four["a"]["MDT"] == "65.00 ± 1.00" and four["a paper"]["Mixup"] == "65.50 ± 0.50"
    assert four["b"]["MDT"] == "-" and four["d"]["Raw"] == "missing" and four["b"]["LS"] == "-"
    assert six["a"]["Without TS's share"] == "69.00 ± 1.00" and six["a paper"]["Without TS's share"] == "69.78 ± 0.50" and six["b"]["Without TS's share"] == "-"


def test_differences_count_rows_whose_interval_excludes_zero():
    found = lines(tables.intervals(ROWS, RESULTS, START))
    assert found["a"]["MTS"] == "-3.8 [-5.0, -3.0]" and found["d"]["MTS"] == "missing" and found["b"]["TS"] == "-"
    assert (found["# better than Raw"]["MTS"], found["# worse than Raw"]["MTS"]) == ("1", "1")


def test_overcalibration_is_the_sign_of_the_gap():
    found = lines(tables.overcalibration(ROWS, RESULTS, START))
    assert found["a"]["MTS"] == "-0.5 (2/3)", "gaps of -1.5, -0.5 and +0.5 points" and found["b"]["MTS"] == "-30.0 (3/3)"
    assert found["# under-confident"]["Raw"] == "0 of 16" and found["# under-confident"]["MTS"] == "5 of 15"


def test_scores_have_a_line_a_method():
    table = tables.scores(ROWS, RESULTS, START)
    first = table.text.iloc[0]
    assert (first["Row"], first["Method"], first["ECE"], first["NLL"]) == ("a", "Raw", "5.00 ± 1.00 [3.00, 7.00]", "0.050 ± 0.000")
    assert len(table.text) == 4 + 2 + 2 + 3 + 3 + 1 + 1 and (table.text[table.text["Row"] == "d"].drop(columns="Row") == "missing").all(axis=None)
    assert table.numbers.set_index(["row", "method"]).loc[("a", "mts"), "ece_mean"] == pytest.approx(0.0123)


def test_starting_values_name_the_oracle_ratio_as_one():
    def fit(ratio, start, steps, ece, share=0.1):
        return {"ratio": ratio, "share": share, "start": start, "steps": steps, "temperature": [1.2, 1.4], "bound_hit": [False, start is None], "ece": [ece, ece]}

    fits = [fit(ratio, start, steps, ece) for ratio, ece in ((0.1, 0.05), (0.3, 0.02)) for start, steps in ((None, None), (1.5, 50), (1.5, 1), (3.0, 50))]
    found = {"a": {"ratio": 0.1, "share": 0.1, "start": 1.5, "steps": 50, "fits": [*fits, fit(0.1, 1.5, 50, 0.9, share=0.5)]}}
    table = tables.starts({"a": ROWS["a"], "d": ROWS["d"]}, found)
    text = table.text.to_dict("records")
    assert [(line["Start"], line["Steps"]) for line in text] == [("any", "converged"), ("1.5", "50"), ("3", "50"), ("missing", "missing")]
    assert text[1]["0.1"] == "5.00 (1.30)" and text[0]["0.3"] == "2.00 (1.30)†" and text[1]["Oracle ratio"] == "0.3"
    assert len(table.numbers) == 8, "every number of steps is in the CSV, other shares are not"


def test_means_and_deviations_are_over_repeats():
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1))) and mean_std([0.5]) == (0.5, 0.0)


def test_the_papers_numbers_are_the_papers():
    """All 136 of them, against the tables as they were taken from the paper's text."""
    printed = yaml.safe_load((outside("PAPER_DIR", "paper") / "tables.yaml").read_text())
    names = {"table1_ece": "table1", "table2_ece": "table2", "table3_ece": "table3", "table4_accuracy": "table4", "table5_ece_ipc1": "table5", "table6_accuracy": "table6", "table7_ece_full_data": "table7"}
    counted = 0
    for theirs, ours in names.items():
        for key, values in printed[theirs]["rows"].items():
            backbone, dataset = key.split("/") if "/" in key else ("full" if ours == "table7" else "mtt", "cifar10" if key.startswith("ipc") else key)
            (entry,) = [e for e in PAPER[ours]["rows"] if (e["dataset"], e["backbone"]) == (dataset, backbone) and (not key.startswith("ipc") or e["ipc"] == int(key[3:]))]
            assert entry["values"] == values, (ours, key)
            counted += sum(value is not None for value in values)
    assert counted == 136
    assert PAPER["table1"]["over_calibration"] == printed["table1_ece"]["over_calibration"]
