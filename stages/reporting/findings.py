"""What was found, in three findings that are made from the numbers: whether networks on distilled sets are
over-confident, whether MTS helps, and what to do.
"""

from itertools import chain

from stages.reporting.by_data_set import WITHIN, Found, compared, found_on, groups, mean_ece
from stages.reporting.cells import Results
from stages.reporting.evidence import Evidence, with_all
from stages.reporting.iterations_table import Counted, counts

__all__ = ["best_advice", "findings"]

ADVICE = {
    "shipped": "ship a temperature with the set, fitted once on real training images",
    "mts": "use MTS",
    "fixed": "divide the logits by {start:g}, and fit nothing",
    "raw": "leave the networks as they are",
}


def findings(evidence: Evidence) -> list[str]:
    """Three findings, or fewer where there are no results for one; none without a distilled row."""
    results = evidence.results
    rows = groups(results)
    names = list(chain(*rows.values()))
    found = found_on(results, names)
    sentences = []
    if found.gaps:
        sentences.append(_is_over_confident(found.over_confident))
    if found.better:
        counted = counts(results, evidence.ablations, names)
        own = sorted({ablation["steps"] for ablation in evidence.ablations.values()})
        others = {steps: of for steps, of in counted.items() if steps not in own}
        sentences.append(_does_mts_work(found.better, found.worse) + _with_other_iterations(own, others))
    choices = [best_advice(results, names) for names in rows.values()]
    best = next((choice for choice in choices if choice), None)  # of the first data set that has results
    if best:
        advice = f"What to do: {ADVICE[best].format(start=results.start)}."
        sentences.append(f"{advice} {_how_shipped_does(found)}" if best == "shipped" else advice)
    return sentences


def best_advice(results: Results, names: list[str]) -> str | None:
    """The method with the lowest mean ECE of Raw, MTS, its starting value, and a shipped temperature.

    Where rows have a shipped temperature, the methods are compared on those rows alone. None without results.
    """
    rows = compared(results, names)
    if not rows:
        return None
    methods = [method for method in ADVICE if with_all(results, rows, [method]) == rows]
    return min(methods, key=lambda method: mean_ece(results, rows, method))


def _is_over_confident(signs: list[bool]) -> str:
    verb = _verb(
        signs, "are over-confident", "are over-confident on some sets only", "are not over-confident"
    )
    return f"Networks trained on distilled sets {verb}: confidence exceeds accuracy on {_of(signs)}."


def _does_mts_work(better: list[bool], worse: list[bool]) -> str:
    head = _verb(better, "MTS works", "MTS works on some sets only", "MTS does not work")
    return f"{head}: it lowers ECE on {_of(better)} and raises it on {sum(worse)}."


def _with_other_iterations(own: list[int], counted: dict[int, Counted]) -> str:
    """The same counts with other numbers of iterations of the fit than the rows' own; "" without any."""
    if not counted:
        return ""
    parts = [f"with {steps} it is {of.better} and {of.worse}" for steps, of in counted.items()]
    here = " or ".join(str(steps) for steps in own)
    return (
        f" That is with {here} iterations of its fit, for which the paper has no number: {', '.join(parts)}."
    )


def _how_shipped_does(found: Found) -> str:
    """On how many rows a shipped temperature helps, and how near it comes to the oracle's."""
    helps = f"It lowers ECE on {_of(found.shipped_better)} and raises it on {sum(found.shipped_worse)}"
    return f"{helps}; it is at most {WITHIN:g} point above the oracle's on {sum(found.close)}."


def _verb(signs: list[bool], every: str, some: str, none: str) -> str:
    if all(signs):
        return every
    return some if any(signs) else none


def _of(signs: list[bool]) -> str:
    """ "3 of 4 rows"."""
    return f"{sum(signs)} of {len(signs)} row{'' if len(signs) == 1 else 's'}"
