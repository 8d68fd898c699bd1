"""Findings, verdicts and the first figure on made-up results; the committed sentences, recounted."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from project import ROOT, markdown_rows
from scipy.stats import ttest_ind, ttest_rel

from stages.reporting.by_data_set import groups, summary
from stages.reporting.cells import Results, Table
from stages.reporting.claims import CLAIMS, VERDICTS, Claim, claims_table, judge, outcome, verdict
from stages.reporting.counts import counted_groups
from stages.reporting.differences import apart, interval, paired
from stages.reporting.evidence import Case, Evidence, distilled_plain, nearest_is_alike
from stages.reporting.findings import best_advice, findings
from stages.reporting.hero import conclusion, hero, hero_row
from stages.reporting.main_readme import BEGIN, END, found_section, with_section
from stages.reporting.printed_counts import printed_counts
from stages.settings.tables import TableKeys

NETWORKS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 1000  # how five networks differ, in shares
TABLES = ROOT / "reports/tables"
WORDS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenette": "ImageNette", "digits": "digits"}
# ECE of each method in percent, where the paper is right, where it is wrong, and where nothing can be told.
ECE = {
    "right": {"raw": 10, "ts": 15, "mixup": 20, "label_smoothing": 25, "focal": 14, "mts": 2, "fixed": 5},
    "wrong": {"raw": 10, "ts": 5, "mixup": 6, "label_smoothing": 7, "focal": 8, "mts": 15, "fixed": 9},
    "open": dict.fromkeys(("raw", "ts", "mixup", "label_smoothing", "focal", "mts", "fixed"), 10),
}
EXPECTED = {"right": "held", "wrong": "not held", "open": "undecided"}
# These have no interval, or none that allows both.
ALWAYS_DECIDED = ("accuracy_mts", "condensed", "condensed_mdt")


def keys(**changes) -> TableKeys:
    """A published row of MTT with ten images a class of CIFAR-10, but for the changes."""
    values = {
        "suite": "cifar10",
        "dataset": "cifar10",
        "backbone": "mtt",
        "ipc": 10,
        "reads": "buffer/cifar10",
        "mdt": 0,
        "lr": "learned",
        "budget": "published",
    }
    return TableKeys(**(values | changes))


ROWS = {
    "full": keys(backbone="full", ipc=None, budget=None, lr=0.01),
    "random": keys(backbone="random", budget=None, lr=0.01),
    "mtt": keys(),
    "mtt-mdt": keys(mdt=0.1),
    "mtt-mdtds": keys(mdt=[0, 0.1]),
    "mtt-one": keys(ipc=1),
}


def scored(ece: float, difference: float, gap: float = 0.0, accuracy: float = 60) -> dict:
    """What `evaluate` writes of a method, in percent here; a difference of 0 cannot be told from Raw."""
    half = 1 if difference == 0 else abs(difference) / 2
    return {
        "accuracy": (accuracy / 100 + NETWORKS).tolist(),
        "ece": (ece / 100 + NETWORKS[::-1]).tolist(),
        "confidence_gap": (gap / 100 + NETWORKS).tolist(),
        "temperature": [1.0] * 5,
        "bound_hit": [False] * 5,
        "difference_to_raw": [(difference - half) / 100, (difference + half) / 100],
    }


def evaluated(world: str, row: str) -> dict:
    """The methods of a row, so that every claim of the paper is right, wrong or open."""
    sign = {"right": 1, "wrong": -1, "open": 0}[world]
    table = dict(ECE[world])
    gap = 10 * sign
    if row in ("full", "random"):
        gap = -3 * sign
        table["ts"] = 10 - 5 * sign
    if row in ("mtt-mdt", "mtt-mdtds"):
        table["raw"] -= 4 * sign
        table["mts"] += sign if row == "mtt-mdt" else -sign
    methods = {}
    for name, ece in table.items():
        methods[name] = scored(ece, ece - table["raw"], gap)
    if row == "mtt-one":
        del methods["ts"]
    else:
        methods["ts"] |= {"accuracy": (0.6 - sign * 0.02 + NETWORKS[::-1]).tolist()}
    if world == "wrong":
        methods["mts"]["accuracy"][0] += 0.01
    if row == "mtt-mdt":
        lost = {"right": 0, "wrong": 0.1, "open": 0.0126}[world]
        methods["raw"]["accuracy"] = (0.6 - lost + NETWORKS).tolist()
    methods["oracle"] = scored(2, -8)
    return {"test_images": 10_000, "mask_ratio": 0.3, "methods": methods}


def ablation(of_starts: dict[float, float], unmasked: float, many: float = 2) -> dict:
    """What `ablate` writes: ECE in percent by start at the row's ratio, without a mask, of many images."""
    own = {"ratio": 0.3, "share": 0.1, "start": 1.5, "steps": 50}
    of_own_steps = [own | {"share": 0.5, "ece": (many / 100 + NETWORKS[::-1]).tolist()}]
    for start, ece in of_starts.items():
        of_own_steps.append(own | {"start": start, "ece": (ece / 100 + NETWORKS).tolist()})
    of_own_steps.append(own | {"ratio": 0, "ece": (unmasked / 100 + NETWORKS[::-1]).tolist()})
    fits = []
    for fit in of_own_steps:  # other numbers of steps, before and after, are of no concern to claims
        fits += [fit | {"steps": 1, "ece": [0.9] * 5}, fit, fit | {"steps": 200, "ece": [0.8] * 5}]
    fits.append(own | {"start": None, "steps": None, "ece": [0.5] * 5})
    return own | {"fits": fits}


def clusters(apart: bool) -> np.ndarray:
    """A map of four classes of fifty images each, which lie apart or over each other."""
    places = np.repeat(np.arange(4), 50)[:, None] if apart else np.zeros((200, 1))
    return 100 * places + np.random.default_rng(0).normal(size=(200, 2))


def looked_into(spread: float, masked: float, apart: bool) -> dict[str, np.ndarray]:
    """What `features` writes: maximum logits of a spread, and maps of two blocks."""
    logits = np.random.default_rng(1).normal(size=(5, 400))
    return {
        "own.max_logit": spread * logits,
        "inside.max_logit": spread * logits,
        "masked.0.1.max_logit": masked * logits,
        "tsne.cross_entropy.block 1": clusters(apart),
        "tsne.cross_entropy.block 2": clusters(True),
        "tsne.labels": np.repeat(np.arange(4), 50),
    }


def decomposed(lost: float, values: list[float]) -> dict:
    """What `svd` writes of a set that loses a share of accuracy."""
    dropped = [{"share": share, "accuracy": (0.6 - share * lost + NETWORKS).tolist()} for share in (0, 1)]
    return {"singular_values": values, "dropped": dropped}


def made_up(world: str) -> Evidence:
    results = Results(ROWS, {row: evaluated(world, row) for row in ROWS}, start=1.5)
    right, is_open = world == "right", world == "open"
    distilled, full, masked = (1.0, 2.0, 1.5) if right else (2.0, 1.0, 1.5)
    if is_open:
        distilled = full = masked = 1.0
    features = {
        "full": looked_into(full, full, apart=not right and not is_open),
        "mtt": looked_into(distilled, masked, apart=right),
        "mtt-mdt": looked_into(distilled, masked, apart=not right and not is_open),
    }
    lost = {"right": (0.4, 0.1, 0.2), "wrong": (0.1, 0.4, 0.3), "open": (0.2, 0.2, 0.2)}[world]
    steep, flat = [9.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]
    svd = {
        "mtt": decomposed(lost[0], steep if right else flat),
        "full": decomposed(lost[1], flat if right else steep),
        "random": decomposed(lost[1], flat if right else steep),
        "mtt-mdt": decomposed(lost[2], flat if right else steep),
    }
    own = ECE[world]["mts"]
    unmasked, many = {"right": (6, 2), "wrong": (9, 20), "open": (10, 11)}[world]
    ablations = dict.fromkeys(("mtt", "mtt-one"), ablation({1: 10, 1.5: own}, unmasked, many))
    return Evidence(results, ablations, features, svd)


@pytest.mark.parametrize("world", EXPECTED)
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_gets_the_verdict_of_its_world(world, name):
    judged = judge(CLAIMS[name], made_up(world))
    assert judged.cases
    if world == "right" and CLAIMS[name].follows:
        assert judged.verdict == "true by construction"
    elif world != "open" or name not in ALWAYS_DECIDED:
        assert judged.verdict == EXPECTED[world]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_without_results_is_not_tested(name):
    evidence = Evidence(Results(ROWS, {}, 1.5), {}, {}, {})
    assert judge(CLAIMS[name], evidence).verdict == "not tested"


@pytest.mark.parametrize(
    "outcomes, expected",
    [
        ([], "not tested"),
        ([1], "held"),
        ([1, 1, 0], "held"),
        ([1, 0], "held on some, else undecided"),
        ([1, 1, 1, -1], "held on some, failed on others"),
        ([0, -1], "not held"),
        ([0, 0], "undecided"),
    ],
)
def test_a_verdict_follows_from_the_cases_alone(outcomes, expected):
    assert verdict(outcomes) == expected
    assert expected in VERDICTS


@pytest.mark.parametrize("low, high, above", [(1, 2, 1), (-2, -1, -1), (-1, 1, 0), (np.nan, np.nan, 0)])
def test_a_case_speaks_by_the_side_of_its_interval(low, high, above):
    case = Case("row", "", 0.0, low, high)
    claim = Claim("", "", "", "", "above", [])
    assert outcome(case, claim) == above
    assert outcome(case, claim._replace(holds="below")) == -above


def test_the_table_says_what_it_counts_and_links_to_what_is_there():
    table = claims_table(made_up("right"), ["table1", "figure1-a", "figure1-b", "figure1-c", "figure10-a"])
    (follows,) = [name for name, claim in CLAIMS.items() if claim.follows]
    assert follows == "accuracy_mts"
    counts = f"{len(CLAIMS) - 1} held; 1 true by construction"
    assert table.title == f"Claim by claim: of {len(CLAIMS)} claims of the paper, {counts}"
    first = table.text.iloc[0]
    assert first["See"] == "figure1-a, figure1-b"
    assert "CIFAR-10: 2 of 2 for it (+10.0)" in first["Evidence here"]
    cases = table.numbers[table.numbers["claim"] == "ts"]
    assert cases["row"].tolist() == ["mtt"] and cases["value"].item() == pytest.approx(0.05)


def test_a_corrected_difference_is_shown_in_place_of_the_difference_of_means():
    evidence = made_up("right")
    evidence.results.evaluated["mtt"]["methods"]["ts"]["corrected"] = {"ece": 0.1, "difference_to_raw": 0.03}
    (case,) = judge(CLAIMS["ts"], evidence).cases
    assert case.value == 0.03


def test_what_is_no_distilled_set_never_counts():
    rows = ROWS | {"quick": keys(budget="quick"), "kmeans": keys(backbone="kmeans", budget=None)}
    rows["drawn"] = keys(backbone="file", made_by="random")
    values = dict.fromkeys(rows, evaluated("right", "mtt"))
    assert distilled_plain(Results(rows, values, 1.5)) == ["mtt", "mtt-one"]


def test_a_row_stands_for_the_row_that_made_its_set():
    rows = {"made": keys(budget="reduced"), "set": keys(backbone="file", reads="sets/made", budget="reduced")}
    assert distilled_plain(Results(rows, dict.fromkeys(rows, evaluated("right", "mtt")), 1.5)) == ["set"]


def test_a_row_that_takes_the_set_of_another_does_not_count_beside_it():
    rows = {"made": keys(), "teacher": keys(backbone="file", reads="distill/made", lr=0.01)}
    values = dict.fromkeys(rows, evaluated("right", "mtt"))
    assert distilled_plain(Results(rows, values, 1.5)) == ["made"]
    (counted,) = counted_groups(Results(rows, values, 1.5), []).values()
    assert list(counted.rows) == ["made"]
    del values["made"]
    assert distilled_plain(Results(rows, values, 1.5)) == ["teacher"]


def test_one_network_has_the_interval_of_the_test_images():
    evidence = made_up("right")
    for method in evidence.results.evaluated["mtt"]["methods"].values():
        method |= {key: value[:1] for key, value in method.items() if isinstance(value, list)}
    case = next(case for case in judge(CLAIMS["overconfident"], evidence).cases if case.row == "mtt")
    accuracy = evidence.results.evaluated["mtt"]["methods"]["raw"]["accuracy"][0]
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 10_000)
    assert (case.low, case.high) == pytest.approx((case.value - half, case.value + half), abs=1e-5)
    kept = judge(CLAIMS["accuracy_mts"], evidence)
    assert kept.verdict == "true by construction", "equal accuracies of one network are equal"
    beside_raw = next(case for case in judge(CLAIMS["mts"], evidence).cases if case.row == "mtt")
    assert np.isnan(beside_raw.low) and outcome(beside_raw, CLAIMS["mts"]) == 0, "one network decides nothing"


def test_intervals_of_differences_are_those_of_the_t_tests():
    draws = np.random.default_rng(0)
    ours, theirs, others = draws.normal(3, 1, 5), draws.normal(2, 2, 5), draws.normal(2, 3, 8)
    within_a_row = ttest_rel(ours, theirs).confidence_interval()
    assert paired(ours, theirs) == pytest.approx(((ours - theirs).mean(), *within_a_row))
    between_rows = ttest_ind(ours, others, equal_var=False).confidence_interval()
    assert apart(ours, others) == pytest.approx((ours.mean() - others.mean(), *between_rows))
    assert paired(ours, others) == apart(ours, others), "networks that are not paired"
    mean, low, high = interval(ours, of_images=0.5)
    assert high - mean == pytest.approx(mean - low) and high - low > 2 * 1.96 * np.sqrt(0.5)


def test_mts_is_put_beside_the_best_other_method_and_rows_of_the_asked_kind():
    evidence = made_up("right")
    for name in ("mtt", "mtt-one"):
        methods = evidence.results.evaluated[name]["methods"]
        methods["mts"], methods["focal"] = scored(8, -2), scored(6, -4)
    several = judge(CLAIMS["mts_best"], evidence).cases
    one = judge(CLAIMS["mts_best_one"], evidence).cases
    assert [(case.row, case.beside) for case in several] == [("mtt", "focal")]
    assert [(case.row, case.beside) for case in one] == [("mtt-one", "focal")]
    assert several[0].value == pytest.approx(0.02), "other methods are at 10, 15, 20 and 25"


def test_mask_ratios_beyond_those_of_the_claim_are_no_cases():
    evidence = made_up("right")
    for of_row in evidence.ablations.values():
        of_row["fits"].append(of_row["fits"][1] | {"ratio": 0.8})
    cases = judge(CLAIMS["ratios"], evidence).cases
    assert {case.beside for case in cases} == {"raw, at mask ratio 0.3"}


def test_one_image_per_class_has_no_smaller_share():
    cases = judge(CLAIMS["share"], made_up("right")).cases
    assert [case.row for case in cases] == ["mtt"], "every share of one image is all of it"


def test_a_set_is_put_beside_every_row_of_the_full_data_that_has_results():
    evidence = made_up("right")
    rows = ROWS | {"full-cpu": keys(backbone="full", ipc=None, budget="reduced", lr=0.01)}
    evidence = evidence._replace(results=evidence.results._replace(rows=rows))
    cases = judge(CLAIMS["lost_information"], evidence).cases
    assert [(case.row, case.beside) for case in cases] == [("mtt", "full, 100 % dropped")]


def test_every_share_that_is_dropped_is_a_case():
    evidence = made_up("right")
    for name, lost in (("mtt", 0.1), ("full", 0.4)):
        evidence.decomposed[name]["dropped"].append(
            {"share": 0.5, "accuracy": (0.6 - lost + NETWORKS).tolist()}
        )
    judged = judge(CLAIMS["lost_information"], evidence)
    assert [case.beside for case in judged.cases] == ["full, 50 % dropped", "full, 100 % dropped"]
    assert judged.verdict == "held on some, failed on others"


def test_a_masked_set_that_two_rows_have_counts_once():
    rows = ROWS | {
        "set": keys(backbone="file", made_by="mtt", reads="sets/mtt"),
        "set-mdt": keys(backbone="file", made_by="mtt", reads="sets/mtt-mdt", mdt=0.1),
    }
    values = {row: evaluated("right", row.replace("set", "mtt")) for row in rows}
    evidence = made_up("right")._replace(results=Results(rows, values, start=1.5))
    assert [case.row for case in judge(CLAIMS["mdt"], evidence).cases] == ["set-mdt"]


def test_components_are_compared_with_those_of_as_many_images():
    evidence = made_up("right")
    evidence.decomposed["mtt-one"] = decomposed(0.1, [1.0])
    cases = judge(CLAIMS["condensed"], evidence).cases
    assert [(case.row, case.beside) for case in cases] == [("mtt", "random")], (
        "random images have ten a class"
    )


def test_the_papers_own_tables_are_counted_by_their_means():
    assert (
        printed_counts(["table1", "table5"], "mixup", "above", "raw")
        == "3 of 8 in Table 1, 1 of 2 in Table 5"
    )
    assert printed_counts(["table1"], "mts") == "6 of 8 in Table 1"
    assert printed_counts(["table2"], "mdt_mts", "above", "mts") == "3 of 4 in Table 2"
    for claim in CLAIMS.values():
        assert not claim.printed or printed_counts(**claim.printed)


def test_published_rows_are_first_and_digits_are_last():
    rows = {
        "digits": keys(suite="digits", dataset="digits", budget=None),
        "reduced": keys(budget="reduced", ipc=1),
        "published": keys(),
    }
    results = Results(rows, dict.fromkeys(rows, evaluated("right", "mtt")), 1.5)
    assert list(groups(results).values()) == [["published"], ["reduced"], ["digits"]]
    assert list(groups(results)) == ["CIFAR-10", "CIFAR-10 at a reduced budget", "digits"]
    results.rows["reduced"] = keys(budget="reduced")
    assert list(groups(results).values()) == [["published"], ["digits"]], "there is a published one like it"


def test_the_findings_say_that_the_paper_is_right_where_it_is():
    confident, mts, advice = findings(made_up("right"))
    assert confident == (
        "Networks trained on distilled sets are over-confident: confidence exceeds accuracy on 2 of 2 rows."
    )
    assert mts.startswith("MTS works: it lowers ECE on 2 of 2 rows and raises it on 0.")
    assert advice == "What to do: use MTS."


def test_the_findings_turn_where_the_numbers_turn():
    confident, mts, advice = findings(made_up("wrong"))
    assert "are not over-confident: confidence exceeds accuracy on 0 of 2 rows" in confident
    assert mts.startswith("MTS does not work: it lowers ECE on 0 of 2 rows and raises it on 2.")
    assert advice == "What to do: divide the logits by 1.5, and fit nothing."


def test_the_findings_stay_open_where_nothing_can_be_told():
    confident, mts, _ = findings(made_up("open"))
    assert "are not over-confident: confidence exceeds accuracy on 0 of 2 rows" in confident
    assert "it lowers ECE on 0 of 2 rows and raises it on 0" in mts


def test_a_shipped_temperature_is_the_advice_where_it_is_best():
    evidence = made_up("wrong")
    results = evidence.results
    results.evaluated["mtt"]["methods"]["shipped"] = scored(2.5, -7.5)
    results.evaluated["mtt-one"]["methods"]["shipped"] = scored(4, -6)
    assert best_advice(results, ["mtt", "mtt-one"]) == "shipped"
    advice = findings(evidence)[2]
    assert advice.startswith("What to do: ship a temperature with the set")
    assert advice.endswith(
        "It lowers ECE on 2 of 2 rows and raises it on 0; it is at most 1 point above the oracle's on 1."
    )
    results.evaluated["mtt"]["methods"]["shipped"] = scored(40, 30)
    results.evaluated["mtt-one"]["methods"]["shipped"] = scored(40, 30)
    assert best_advice(results, ["mtt", "mtt-one"]) == "fixed"


def test_the_summary_has_a_line_for_each_data_set():
    rows = ROWS | {"digits": keys(suite="digits", dataset="digits", budget=None)}
    results = Results(rows, {row: evaluated("right", row) for row in rows}, 1.5)
    results.evaluated["digits"] = evaluated("wrong", "digits")
    lines = summary(results).text.set_index("Data set").to_dict("index")
    assert lines["CIFAR-10"] == {
        "Over-confident": "2 of 2 (+10.0)",
        "Raw": "10.0",
        "MTS": "2.0",
        "T = 1.5": "5.0",
        "Shipped T": "-",
        "Oracle T": "2.0",
        "MTS better": "2 of 2",
        "MTS worse": "0 of 2",
    }
    assert lines["digits"]["Over-confident"] == "0 of 1 (-10.0)"
    assert (lines["digits"]["MTS better"], lines["digits"]["MTS worse"]) == ("0 of 1", "1 of 1")


def test_the_methods_of_a_line_are_compared_on_the_same_rows():
    results = made_up("right").results
    results.evaluated["mtt"]["methods"]["shipped"] = scored(3, -7)
    results.evaluated["mtt-one"]["methods"]["raw"] = scored(50, 0)
    (line,) = summary(results).text.to_dict("records")
    assert (line["Raw"], line["Shipped T"]) == ("10.0", "3.0")


def test_without_results_nothing_was_found():
    results = Results(ROWS, {}, 1.5)
    assert findings(Evidence(results, {}, {}, {})) == [] and hero_row(results, {}) is None


def test_the_first_figure_is_of_a_published_row_of_mtt_with_a_shipped_temperature():
    rows = {
        "digits": keys(suite="digits", dataset="digits", budget=None),
        "dc": keys(backbone="dc", budget="reduced"),
        "plain": keys(budget="reduced", lr=0.1),
        "set": keys(budget="reduced"),
        "published": keys(),
    }
    results = Results(rows, {name: evaluated("right", "mtt") for name in rows}, 1.5)
    for name in ("digits", "dc", "set"):
        results.evaluated[name]["methods"]["shipped"] = scored(3, -7)
    fits = dict.fromkeys(rows, ablation({1: 10, 1.5: 2}, 6))
    assert hero_row(results, fits) == "published"
    assert hero_row(results.of(["digits", "dc", "plain", "set"]), fits) == "set"
    assert hero_row(results.of(["digits", "dc", "plain"]), fits) == "plain"
    assert hero_row(results.of(["digits", "dc"]), fits) == "dc"
    assert hero_row(results.of(["digits"]), fits) == "digits"


def test_the_title_of_the_first_figure_is_its_conclusion():
    by_start = ablation({1: 10, 1.5: 2, 3: 12}, unmasked=1.5)
    by_mask = ablation({1: 3, 1.5: 2}, unmasked=9)
    starts, ratios = "tarts of MTS from 1 to 3", "ask ratios of MTS from 0 to 0.3"
    assert conclusion(by_start) == f"S{starts} move ECE by 10.0 points, mask ratios from 0 to 0.3 by 0.5"
    assert conclusion(by_mask) == f"M{ratios} move ECE by 7.0 points, starts from 1 to 1.5 by 1.0"


def test_the_first_figure_marks_what_no_mask_ratio_changes():
    evidence = made_up("right")
    results = evidence.results._replace(rows=ROWS | {"mtt-one": keys(ipc=1)})
    results.evaluated["mtt-one"]["methods"]["shipped"] = scored(3, -7)
    drawn = hero(results, evidence.ablations, "mtt-one")
    levels = drawn.data[drawn.data["kind"] != "mts"].set_index("name")["ece_percent"]
    assert levels.round(2).to_dict() == {
        "Raw": 10,
        "T = 1.5, no fit": 5,
        "shipped T": 3,
        "oracle T": 2,
        "the paper's MTS": 1.81,
    }
    text = {item.get_text() for axis in drawn.figure.axes for item in axis.texts}
    assert "Raw: 10.0" in text and "the paper's MTS: 1.8" in text
    assert drawn.figure.get_suptitle().replace("\n", " ") == drawn.words["title"]


def test_neighbours_tell_classes_that_lie_apart():
    labels = np.repeat(np.arange(4), 50)
    assert nearest_is_alike(clusters(True), labels).all()
    assert nearest_is_alike(clusters(False), labels).mean() < 0.5


def test_the_readme_is_written_between_its_comments_alone():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    changed = with_section(text, "new")
    assert changed == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"
    assert with_section(changed, "new") == changed
    assert with_section("no place", "new") == "no place"
    nothing = Table("Claim by claim: of 25 claims, 1 held", pd.DataFrame(), pd.DataFrame(), [])
    section = found_section([], Results(ROWS, {}, 1.5), {"claims": nothing}, None)
    claims = "Of 25 claims, 1 held: [claim by claim](reports/tables/claims.md)."
    assert section == claims
    numbers = nothing._replace(title="The paper's numbers: 11 of 136")
    section = found_section([], Results(ROWS, {}, 1.5), {"claims": nothing, "paper": numbers}, None)
    assert (
        section == f"{claims}\nThe paper's numbers: 11 of 136: [number by number](reports/tables/paper.md)."
    )


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    """Every score of the committed plain distilled rows."""
    if not (TABLES / "claims.csv").exists():
        pytest.skip("reports/tables/claims.csv is not here yet; dvc repro makes it")
    scores = pd.read_csv(TABLES / "scores.csv")
    made = "cifar10-mtt-ipc1-20"  # has made the set of another row
    others = re.compile("random|kmeans|full|-mdt")
    kept = [not others.search(row) and row != made for row in scores["row"]]
    return scores[kept].set_index(["row", "method"])


@pytest.fixture(scope="module")
def sentences(committed) -> list[str]:
    """The committed findings, which are the same in both READMEs."""
    lines = (ROOT / "reports/README.md").read_text().splitlines()
    numbered = [line for line in lines if re.match(r"[123]\. ", line)][:3]
    main = (ROOT / "README.md").read_text()
    assert all(line in main for line in numbered)
    return [line[3:] for line in numbered]


def rows_by_words(committed: pd.DataFrame) -> dict[str, list[str]]:
    """The rows that the sentences are about, by what they call their data set and budget."""
    budgets = {}
    for suite in WORDS:
        budgets |= yaml.safe_load((ROOT / f"suites/{suite}.yaml").read_text())["runs"]
    names = list(committed.index.get_level_values("row").unique())
    names = [name for name in names if budgets[name]["reads"].removeprefix("distill/") not in names]
    kinds = {name: (budgets[name]["suite"], made_by(name), budgets[name]["ipc"]) for name in names}
    published = {kinds[name] for name in names if budgets[name].get("budget") == "published"}
    rows: dict[str, list[str]] = {}
    for name in names:
        words = WORDS[kinds[name][0]]
        if budgets[name].get("budget") == "reduced":
            if kinds[name] in published:
                continue
            words += " at a reduced budget"
        rows.setdefault(words, []).append(name)
    return rows


def made_by(row: str) -> str:
    return row.split("-")[1]


@pytest.fixture(scope="module")
def lines(committed) -> dict[str, dict[str, str]]:
    """The committed table by data set, which is the same in both READMEs."""
    text = (TABLES / "summary.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    for readme in ("README.md", "reports/README.md"):
        assert "\n".join(table) in (ROOT / readme).read_text()
    return markdown_rows(text)


def test_the_committed_over_confidence_is_that_of_the_tables(committed, sentences, lines):
    claims = pd.read_csv(TABLES / "claims.csv")
    rows = rows_by_words(committed)
    assert set(lines) == set(rows)
    total = 0
    for words, names in rows.items():
        gaps = [100 * committed.loc[(name, "raw"), "confidence_gap_mean"] for name in names]
        cases = claims[(claims["claim"] == "overconfident") & claims["row"].isin(names)]
        assert len(cases) == len(names)
        above = int((cases["low"] > 0).sum())
        total += above
        ends = dict.fromkeys(f"{gap:+.1f}" for gap in (min(gaps), max(gaps)))
        assert lines[words]["Over-confident"] == f"{above} of {len(names)} ({' to '.join(ends)})"
    assert f"on {total} of {sum(map(len, rows.values()))} rows" in sentences[0]


def test_the_committed_effect_of_mts_is_that_of_the_tables(committed, sentences, lines):
    differences = pd.read_csv(TABLES / "intervals.csv").set_index(["method", "row"]).loc["mts"]
    rows = rows_by_words(committed)
    totals = np.zeros(2, int)
    for words, names in rows.items():
        better = int((differences.loc[names, "high"] < 0).sum())
        worse = int((differences.loc[names, "low"] > 0).sum())
        totals += (better, worse)
        assert lines[words]["MTS better"] == f"{better} of {len(names)}"
        assert lines[words]["MTS worse"] == f"{worse} of {len(names)}"
    count = sum(map(len, rows.values()))
    assert f"it lowers ECE on {totals[0]} of {count} rows and raises it on {totals[1]}" in sentences[1]


def test_the_committed_counts_by_iterations_are_those_of_the_networks(committed, sentences):
    """From the committed ECE of every network, as far as it is committed, by SciPy's t test."""
    table = pd.read_csv(TABLES / "iterations.csv").set_index(["data_set", "iterations"])
    rows = rows_by_words(committed)
    found = json.loads((ROOT / "reports/released/metrics.json").read_text())["rows"]
    names = rows["CIFAR-10"]
    assert names and set(names) <= set(found)
    for steps in (1, 20, 50, 200):
        better, worse, eces = 0, 0, []
        for name in names:
            ablated, raw = found[name]["ablate"], found[name]["evaluate"]["methods"]["raw"]["ece"]
            own = {"ratio": ablated["ratio"], "share": ablated["share"], "start": 1.5, "steps": steps}
            (ece,) = [fit["ece"] for fit in ablated["fits"] if own.items() <= fit.items()]
            low, high = ttest_rel(ece, raw).confidence_interval()
            better, worse, eces = better + (high < 0), worse + (low > 0), [*eces, np.mean(ece)]
        line = table.loc[("CIFAR-10", steps)]
        assert (line["rows"], line["better"], line["worse"]) == (len(names), better, worse)
        assert line["ece"] == pytest.approx(np.mean(eces), abs=1e-5)
        whole = table.loc[("all", steps)]
        assert whole["rows"] == sum(map(len, rows.values()))
        if steps != 50:
            assert f"with {steps} it is {whole['better']:g} and {whole['worse']:g}" in sentences[1]


def test_the_committed_advice_is_that_of_the_tables(committed, sentences, lines):
    ece = 100 * committed["ece_mean"]
    titles = {"raw": "Raw", "mts": "MTS", "fixed": "T = 1.5", "shipped": "Shipped T", "oracle": "Oracle T"}
    rows = rows_by_words(committed)
    near = 0
    for words, names in rows.items():
        means = {method: ece.xs(method, level="method")[names] for method in titles}
        assert means["shipped"].mean() == min(means[method].mean() for method in titles if method != "oracle")
        near += int((means["shipped"] - means["oracle"] <= 1).sum())
        for method, title in titles.items():
            assert lines[words][title] == f"{means[method].mean():.1f}"
    assert sentences[2].startswith("What to do: ship a temperature with the set")
    assert sentences[2].endswith(f"above the oracle's on {near}.")
    differences = pd.read_csv(TABLES / "intervals.csv").set_index(["method", "row"]).loc["shipped"]
    names = [name for of_group in rows.values() for name in of_group]
    better = int((differences.loc[names, "high"] < 0).sum())
    worse = int((differences.loc[names, "low"] > 0).sum())
    assert f"It lowers ECE on {better} of {len(names)} rows and raises it on {worse};" in sentences[2]


def test_the_committed_verdicts_follow_from_the_committed_intervals(committed):
    claims = pd.read_csv(TABLES / "claims.csv")
    for name, cases in claims.groupby("claim"):
        outcomes = []
        for case in cases.dropna(subset=["row"]).to_dict("records"):
            bounds = Case(case["row"], "", case["value"], case["low"], case["high"])
            outcomes.append(outcome(bounds, CLAIMS[str(name)]))
        follows = CLAIMS[str(name)].follows
        assert set(cases["verdict"]) == {"true by construction" if follows else verdict(outcomes)}
