"""The paper's claims with a verdict each, by a rule: which side of a bound the 95 % intervals lie on.

The claims stand in claims.yaml beside this file, and what they are judged by in evidence.py.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.reporting.cells import Results, Table
from stages.reporting.each_set_once import each_set_once
from stages.reporting.evidence import MEASURES, Case, Evidence, place
from stages.reporting.printed_counts import printed_counts
from stages.settings.project import read_yaml

__all__ = ["CLAIMS", "VERDICTS", "Claim", "Judged", "claims_table", "data_set", "judge", "outcome", "verdict"]

NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tinyimagenet": "Tiny ImageNet",
    "imagenette": "ImageNette",
}
HELD = "held"
PARTLY = "held on some, failed on others"
SOME = "held on some, else undecided"
NOT_HELD = "not held"
UNDECIDED = "undecided"
NOT_TESTED = "not tested"
FOLLOWS = "true by construction"
VERDICTS = (HELD, SOME, PARTLY, NOT_HELD, UNDECIDED, NOT_TESTED, FOLLOWS)
LINKS = 2  # figures of one name, of several suites or rows, that a claim links to
NOTES = [
    "A case is a row, a pair of rows, or a row at one of several settings. It speaks for a claim where its"
    " whole 95 % interval lies on the side that the claim says, against it where the whole interval lies on"
    " the other side, and else for neither.",
    f"`{HELD}`: more than half of the cases speak for the claim, and none against it. `{SOME}`: fewer speak"
    f" for it, and none against it. `{PARTLY}`: some speak for it, and some against it. `{NOT_HELD}`: some"
    f" speak against it, and none for it. `{UNDECIDED}`: all intervals allow both. `{NOT_TESTED}`: no row has"
    f" the results. `{FOLLOWS}`: it held, and cannot fail, as a temperature changes no prediction.",
    "ECE minus Raw's: the interval of `intervals`, over networks and test images together; of older rows over"
    " test images alone. Confidence minus accuracy: over networks and test images, too.",
    "Other differences: over networks alone, by Student's t of the paired networks within a row, and by"
    " Welch's t between two rows. They leave out that other test images would give other numbers, so a case"
    " near its bound may be decided by a few images. In differences, a row with one network decides nothing.",
    "Most rows have one set, so their intervals do not cover its choice; those of rows with several (§) do."
    " Figure 13 has no interval, so its cases speak by their values; those of Figures 4 and 6 are over the"
    " images of one map.",
    "The claims are a selection: those that the results here can judge. `So in the paper` counts rows of the"
    " paper's own tables, by the means that they print.",
    "In points of percent, unless another unit is named. In brackets: the least and the largest case.",
]


class Claim(NamedTuple):
    """An entry of claims.yaml, whose comment says what each key means."""

    claim: str
    where: str
    number: str
    measure: str
    holds: str
    see: list[str]
    of: dict[str, Any] = {}
    than: float = 0.0
    unit: str = "points"
    follows: bool = False
    printed: dict[str, Any] = {}


class Judged(NamedTuple):
    """A claim with its cases and its verdict."""

    claim: Claim
    cases: list[Case]
    outcomes: list[int]  # of the cases: 1 for the claim, -1 against it, 0 neither
    verdict: str


CLAIMS = {name: Claim(**entry) for name, entry in read_yaml(Path(__file__).with_name("claims.yaml")).items()}


def claims_table(evidence: Evidence, names: Iterable[str]) -> Table:
    """Every claim with where it stands in the paper, its verdict, and what speaks for it here.

    Args:
        names: of the tables and figures of the page, which claims link to.
    """
    names = list(names)
    lines = []
    numbers = []
    judged = {name: judge(claim, evidence) for name, claim in CLAIMS.items()}
    for name, of_claim in judged.items():
        lines.append(
            {
                "The paper's claim": of_claim.claim.claim,
                "Verdict": of_claim.verdict,
                "Evidence here": _in_words(of_claim, evidence.results),
                "In the paper": of_claim.claim.where,
                "So in the paper": _printed(of_claim.claim),
                "See": ", ".join(_links(of_claim.claim, names)),
            }
        )
        numbers += _numbers(name, of_claim, evidence.results)
    counts = Counter(of_claim.verdict for of_claim in judged.values())
    summary = "; ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
    title = f"Claim by claim: of {len(judged)} claims of the paper, {summary}"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), list(NOTES))


def _printed(claim: Claim) -> str:
    """In how many rows of the paper's own tables the claim is so, where they bear on it."""
    return printed_counts(**claim.printed) if claim.printed else ""


def judge(claim: Claim, evidence: Evidence) -> Judged:
    """The verdict on a claim by the cases of its measure, for each set once."""
    found = MEASURES[claim.measure](evidence, **claim.of)
    once = each_set_once(evidence.results.rows, [case.row for case in found])
    cases = [case for case in found if case.row in once]
    cases.sort(key=lambda case: place(evidence.results, case.row))
    outcomes = [outcome(case, claim) for case in cases]
    word = verdict(outcomes)
    return Judged(claim, cases, outcomes, FOLLOWS if claim.follows and word == HELD else word)


def outcome(case: Case, claim: Claim) -> int:
    """1 where a case speaks for the claim, -1 where against it, and 0 where its interval allows both."""
    if claim.holds == "equal":
        low, high = (case.value, case.value) if np.isnan(case.low) else (case.low, case.high)
        return 1 if low == high == claim.than else -1
    if claim.holds == "within":
        inside = -claim.than < case.low and case.high < claim.than
        outside = case.low > claim.than or case.high < -claim.than
        return int(inside) - int(outside)
    above = case.low > claim.than
    below = case.high < claim.than
    if claim.holds == "below":
        return int(below) - int(above)
    return int(above) - int(below)


def verdict(outcomes: list[int]) -> str:
    """The verdict by the outcomes of the cases; `NOTES` has the rule in words."""
    if not outcomes:
        return NOT_TESTED
    speaking_for = outcomes.count(1)
    against = outcomes.count(-1)
    if speaking_for and against:
        return PARTLY
    if speaking_for:
        return HELD if speaking_for > len(outcomes) / 2 else SOME
    return NOT_HELD if against else UNDECIDED


def data_set(results: Results, row: str) -> str:
    """What a row's data set is called, and whether its budget is reduced."""
    keys = results.rows[row]
    name = NAMES.get(keys.suite, keys.suite)
    return f"{name} at a reduced budget" if keys.budget == "reduced" else name


def _in_words(judged: Judged, results: Results) -> str:
    """How many cases of each data set speak for the claim and against it, and in what range they lie."""
    if not judged.cases:
        return "no row has the results"
    by_set: dict[str, list[int]] = {}
    for i, case in enumerate(judged.cases):
        by_set.setdefault(data_set(results, case.row), []).append(i)
    parts = []
    for name, positions in by_set.items():
        outcomes = [judged.outcomes[i] for i in positions]
        values = [judged.cases[i].value for i in positions]
        parts.append(f"{name}: {_counts(outcomes)} {_range(values, judged.claim)}")
    first = judged.claim.number
    return f"{first[0].upper()}{first[1:]}. {'; '.join(parts)}."


def _counts(outcomes: list[int]) -> str:
    speaking_for = outcomes.count(1)
    against = outcomes.count(-1)
    words = f"{speaking_for} of {len(outcomes)} for it"
    return f"{words}, {against} against" if against else words


def _range(values: list[float], claim: Claim) -> str:
    """The least and the largest value, which may be the same."""
    ends = (min(values), max(values))
    if claim.unit == "points":
        words = dict.fromkeys(f"{100 * end:+.1f}" for end in ends)
        return f"({' to '.join(words)})"
    words = dict.fromkeys(f"{end:+.2f}" for end in ends)
    return f"({' to '.join(words)} {claim.unit})"


def _links(claim: Claim, names: list[str]) -> list[str]:
    """The tables and figures of the page that a claim names."""
    links = []
    for beginning in claim.see:
        fitting = [name for name in names if name == beginning or name.startswith(f"{beginning}-")]
        links += fitting[:LINKS]
    return links


def _numbers(name: str, judged: Judged, results: Results) -> list[dict[str, Any]]:
    """One line a case; a claim without cases has one line, too."""
    about = {"claim": name, "verdict": judged.verdict}
    if not judged.cases:
        return [about]
    lines = []
    for case, result in zip(judged.cases, judged.outcomes):
        line = about | {"dataset": results.rows[case.row].suite} | case._asdict()
        lines.append(line | {"outcome": result})
    return lines
