"""How long the grid takes on several cards, and how many cards a time limit needs."""

import heapq
from collections.abc import Callable
from typing import Any

__all__ = ["PLANS", "cards_for", "makespan", "spread"]

LARGEST_PLAN = 64  # cards

Plan = Callable[[dict[str, Any], int], float]


def makespan(grid: dict[str, Any], cards: int, key: str = "most_hours") -> float:
    """Hours until all is done, where each card takes the longest row that is left.

    The experts of a buffer are divided among all cards. A row runs on one card. It starts when the buffers
    are done, and a row that reads another row's set when that row is done.
    """
    start = sum(buffer[key] for buffer in grid["buffers"]) / cards
    first = [row for row in grid["rows"] if not row["reads"].startswith("distill/")]
    later = [row for row in grid["rows"] if row["reads"].startswith("distill/")]
    free = [start] * cards
    ends: dict[str, float] = {}  # of a row, by what others read of it
    for rows in (first, later):
        for row in sorted(rows, key=lambda row: -row[key]):
            begin = max(heapq.heappop(free), ends.get(row["reads"], 0.0))
            ends[f"distill/{row['name']}"] = begin + row[key]
            heapq.heappush(free, begin + row[key])
    return max(free)


def spread(grid: dict[str, Any], cards: int, key: str = "most_hours") -> float:
    """Hours that are needed at least, if the networks of a row are divided among cards as well.

    A distillation runs on one card all the same, and no card does two things at once.
    """
    entries = [*grid["buffers"], *grid["rows"]]
    longest = max(row["stages"]["distill"][key] for row in grid["rows"])
    return max(sum(entry[key] for entry in entries) / cards, longest)


def cards_for(grid: dict[str, Any], hours: float, plan: Plan = makespan) -> int | None:
    """The smallest number of cards that are done in this time; None: no number is.

    Args:
        plan: the hours that so many cards take.
    """
    for cards in range(1, LARGEST_PLAN + 1):
        if plan(grid, cards) <= hours:
            return cards
    return None


PLANS: dict[str, Plan] = {"": makespan, ", networks spread": spread}
