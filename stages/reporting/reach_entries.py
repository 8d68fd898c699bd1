"""What the tables of `reach` share: the entries of `data/reach/<row>.json` and their numbers."""

from typing import Any

__all__ = ["NUMBERS", "entry_of"]

NUMBERS = ("temperature", "accuracy", "ece", "nll", "confidence_gap")


def entry_of(entries: list[dict[str, Any]], choice: str, on: str = "clean") -> dict[str, Any] | None:
    """The first entry of a choice on the same networks and images."""
    for entry in entries:
        if (entry["choice"], entry["on"]) == (choice, on):
            return entry
    return None
