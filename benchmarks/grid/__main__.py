"""What the paper's full grid takes: counted operations, hours of a card, memory and disk, row by row.

    python -m benchmarks.grid [--share S] [--call MICROSECONDS] [--price PRICE]

It reads the suites and runs no stage. It writes `reports/benchmarks/grid.json` and the tables of
docs/grid.md; under other assumptions it prints the tables and writes nothing. Nothing of it has been measured
on a GPU. Operations, calls and bytes are counted (`benchmarks/counted.py`); the card's rates are published
peaks, of which a share is assumed.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.grid.card import CARD, Card
from benchmarks.grid.check import checked
from benchmarks.grid.entries import counted_grid, without_rtp
from benchmarks.grid.side_by_side import PLANS, cards_for
from benchmarks.grid.tables import printed, tables
from benchmarks.grid.ten_times import large_grid
from benchmarks.measure import FOLDER
from stages.runtime.files import write_json, write_text

__all__ = ["main"]

PAGE = Path("docs/grid.md")
DAY = 24  # hours
CARDS = (1, 4, 8, 16, 32)


def counted(card: Card) -> dict[str, Any]:
    """What `main` writes as JSON."""
    grid = counted_grid(card)
    groups = {"everything": grid, "without RTP": without_rtp(grid)}
    times = {}
    limits: dict[str, dict[str, int | None]] = {"day": {}, "week": {}}
    for name, group in groups.items():
        for words, plan in PLANS.items():
            times[f"{name}{words}"] = {str(cards): plan(group, cards) for cards in CARDS}
            limits["day"][f"{name}{words}"] = cards_for(group, DAY, plan)
            limits["week"][f"{name}{words}"] = cards_for(group, 7 * DAY, plan)
    return {
        "card": card._asdict(),
        **grid,
        "hours_by_cards": times,
        "cards_for": limits,
        "ten_times": large_grid(card),
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid")
    parser.add_argument("--share", type=float, default=CARD.share, help="of the card's peak rates")
    parser.add_argument("--call", type=float, help="microseconds of a call")
    parser.add_argument("--price", type=float, help="of an hour of a card, in any currency")
    return parser.parse_args()


def main() -> None:
    words = parsed()
    call = CARD.call if words.call is None else 1e-6 * words.call
    card = CARD._replace(share=words.share, call=call)
    numbers = counted(card) | {"check": checked()}
    if card == CARD:  # other assumptions are printed, and change no file
        write_json(FOLDER / "grid.json", numbers)
        write_text(PAGE, printed(PAGE.read_text(), tables(numbers)))
    print(*tables(numbers, words.price).values(), sep="\n\n")


if __name__ == "__main__":
    main()
