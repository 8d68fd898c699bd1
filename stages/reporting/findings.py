"""What was found, in three sentences that are made from the numbers: whether networks on distilled sets are
over-confident, whether MTS helps, and what to do.

Rows of the paper's data sets come first, those of the published budget before the reduced ones. Rows of real
images never count as distilled.
"""

import numpy as np

from stages.reporting.cells import Results
from stages.reporting.claims import data_set
from stages.reporting.evidence import Evidence, distilled_plain, over_confidence, place, with_all

__all__ = ["WITHIN", "best_advice", "findings", "groups"]

WITHIN = 1.0  # points of ECE that a shipped temperature may be above the oracle's to count as close
ADVICE = {
    "shipped": "ship a temperature with the set, fitted once on real training images",
    "mts": "use MTS",
    "fixed": "divide the logits by {start:g}, and fit nothing",
    "raw": "leave the networks as they are",
}


def findings(results: Results) -> list[str]:
    """Three sentences, or fewer where there are no results for one; none without a distilled row.

    Args:
        results: without quick rows.
    """
    rows = groups(results)
    if not rows:
        return []
    sentences = [
        _is_over_confident(results, rows),
        _does_mts_work(results, rows),
        _what_to_do(results, rows),
    ]
    return [sentence for sentence in sentences if sentence]


def groups(results: Results) -> dict[str, list[str]]:
    """The rows of distilled sets by data set and budget, in the order in which the sentences name them.

    A row of a reduced budget is left out where there is one of the published budget otherwise like it.
    """
    names = sorted(distilled_plain(results), key=lambda name: place(results, name))
    published = {_kind(results, name) for name in names if results.rows[name].budget == "published"}
    named: dict[str, list[str]] = {}
    for name in names:
        if results.rows[name].budget != "reduced" or _kind(results, name) not in published:
            named.setdefault(data_set(results, name), []).append(name)
    return named


def _kind(results: Results, name: str) -> tuple[str, str, int | None]:
    """The suite of a row, the method that made its set, and the images per class."""
    row = results.rows[name]
    return row.suite, row.method, row.ipc


def _is_over_confident(results: Results, rows: dict[str, list[str]]) -> str:
    """On how many rows the confidence exceeds the accuracy, by its interval, and by how much."""
    cases = {case.row: case for case in over_confidence(Evidence(results, {}, {}, {}))}
    parts = []
    every = []
    for group, names in rows.items():
        signs = [cases[name].low > 0 for name in names]
        gaps = [100 * cases[name].value for name in names]
        every += signs
        ends = dict.fromkeys(f"{gap:+.1f}" for gap in (min(gaps), max(gaps)))
        parts.append(f"{_of(signs)} of {group} ({' to '.join(ends)} points)")
    verb = _verb(
        every, "are over-confident", "are over-confident on some sets only", "are not over-confident"
    )
    head = f"Networks trained on distilled sets {verb}"
    return f"{head}: confidence exceeds accuracy on {'; on '.join(parts)}."


def _does_mts_work(results: Results, rows: dict[str, list[str]]) -> str:
    """On how many rows MTS is better than Raw, and on how many worse, by its interval."""
    parts = []
    every = []
    for group, names in rows.items():
        both = with_all(results, names, ["raw", "mts", "fixed"])
        if both:
            every += [_difference(results, name)[1] < 0 for name in both]
            parts.append(_effect_of_mts(results, group, both))
    if not parts:
        return ""
    head = _verb(every, "MTS works", "MTS works on some sets only", "MTS does not work")
    return f"{head}: {'; '.join(parts)}."


def _effect_of_mts(results: Results, group: str, names: list[str]) -> str:
    """MTS on the rows of a group, beside Raw and the starting value."""
    better = [_difference(results, name)[1] < 0 for name in names]
    worse = [_difference(results, name)[0] > 0 for name in names]
    raw, mts, fixed = (_mean(results, names, method) for method in ("raw", "mts", "fixed"))
    counts = f"on {group} it lowers ECE on {_of(better)} and raises it on {sum(worse)}"
    start = f"{fixed:.1f} % at its start, T = {results.start:g}, without any fit"
    return f"{counts} (mean ECE {raw:.1f} % uncalibrated, {mts:.1f} % with MTS, {start})"


def _what_to_do(results: Results, rows: dict[str, list[str]]) -> str:
    """The method with the lowest mean ECE, and how near a shipped temperature comes to the oracle's.

    What is best is decided by the first group that has results.
    """
    choices = [best_advice(results, names) for names in rows.values()]
    best = next((choice for choice in choices if choice), None)
    if best is None:
        return ""
    parts = []
    for group, names in rows.items():
        words = []
        shown = with_all(results, names, ["raw", best])
        near = with_all(results, names, ["shipped", "oracle"])
        if shown:
            words.append(_effect_of_advice(results, best, shown))
        if near:
            close = [_above_oracle(results, name) <= WITHIN for name in near]
            words.append(f"a shipped temperature is within {WITHIN:g} point of the oracle on {_of(close)}")
        if words:
            parts.append(f"on {group} {', and '.join(words)}")
    return f"What to do: {ADVICE[best].format(start=results.start)}: {'; '.join(parts)}."


def _effect_of_advice(results: Results, best: str, names: list[str]) -> str:
    raw = _mean(results, names, "raw")
    if best == "raw":
        return f"mean ECE is {raw:.1f} %"
    mean = _mean(results, names, best)
    return f"mean ECE {'falls' if mean < raw else 'rises'} from {raw:.1f} to {mean:.1f} %"


def best_advice(results: Results, names: list[str]) -> str | None:
    """The method with the lowest mean ECE of Raw, MTS, its starting value, and a shipped temperature.

    Where rows have a shipped temperature, the methods are compared on those rows alone. None without results.
    """
    shown = with_all(results, names, ["raw", "mts", "fixed"])
    with_shipped = with_all(results, shown, ["shipped"])
    kept = with_shipped or shown
    if not kept:
        return None
    methods = [method for method in ADVICE if with_all(results, kept, [method]) == kept]
    return min(methods, key=lambda method: _mean(results, kept, method))


def _verb(signs: list[bool], every: str, some: str, none: str) -> str:
    if all(signs):
        return every
    return some if any(signs) else none


def _of(signs: list[bool]) -> str:
    """ "3 of 4 rows"."""
    return f"{sum(signs)} of {len(signs)} row{'' if len(signs) == 1 else 's'}"


def _ece(results: Results, row: str, method: str) -> float:
    """In percent."""
    return 100 * float(np.mean((results.method(row, method) or {})["ece"]))


def _mean(results: Results, rows: list[str], method: str) -> float:
    """The mean over rows of the ECE in percent."""
    return float(np.mean([_ece(results, row, method) for row in rows]))


def _difference(results: Results, row: str) -> list[float]:
    """The interval of MTS's difference to Raw."""
    return (results.method(row, "mts") or {})["difference_to_raw"]


def _above_oracle(results: Results, row: str) -> float:
    return _ece(results, row, "shipped") - _ece(results, row, "oracle")
