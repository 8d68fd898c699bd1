"""How a trial can end, and the record of all trials in reports/benchmarks/faults.json."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.measure import FOLDER
from stages.runtime.files import write_json
from stages.runtime.reuse import read_json

__all__ = ["OUTCOMES", "Judged", "close"]

OUTCOMES = ("harmless", "reported", "WRONG")


class Judged(Protocol):
    """A trial of any campaign: a NamedTuple with at least these fields."""

    @property
    def kind(self) -> str: ...

    @property
    def outcome(self) -> str: ...

    def _asdict(self) -> dict[str, Any]: ...


def close(
    campaign: str, seed: int, done: Sequence[Judged], problems: Sequence[str] = (), about: dict | None = None
) -> bool:
    """Print and write what came out of a campaign; whether nothing went wrong.

    Args:
        problems: what went wrong beside the trials.
        about: what else is known of the campaign.
    """
    print(table(done))
    for problem in problems:
        print(f"WRONG: {problem}")
    write_outcomes(campaign, seed, done, {"problems": list(problems), **(about or {})})
    return not problems and all(trial.outcome != "WRONG" for trial in done)


def table(done: Sequence[Judged]) -> str:
    """A line for each kind of fault, with the number of trials that ended in each way."""
    counts = Counter((trial.kind, trial.outcome) for trial in done)
    kinds = dict.fromkeys(trial.kind for trial in done)
    sums = counts_of(done)
    lines = [_line("", OUTCOMES)]
    for kind in kinds:
        lines.append(_line(kind, [counts[kind, outcome] for outcome in OUTCOMES]))
    lines.append(_line("all", sums.values()))
    return "\n".join(lines)


def _line(title: str, cells) -> str:
    return f"{title:22}" + "".join(f"{cell:>10}" for cell in cells)


def counts_of(done: Sequence[Judged]) -> dict[str, int]:
    counts = Counter(trial.outcome for trial in done)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def write_outcomes(campaign: str, seed: int, done: Sequence[Judged], about: dict) -> None:
    """Put a campaign's trials into faults.json, where those of other seeds and campaigns stay.

    Args:
        about: what else is known of the campaign.
    """
    file = FOLDER / "faults.json"
    whole = read_json(file)
    trials = [trial._asdict() for trial in done]
    entry = {"outcomes": counts_of(done), **about, "trials": trials}
    whole.setdefault(campaign, {})[f"seed {seed}"] = entry
    write_json(file, whole)
