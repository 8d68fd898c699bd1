"""The diagram that a reader moves: reliability and ECE of a row's networks at any temperature.

Here its numbers are written as JSON; `page.js` draws them.
"""

import json
from html import escape
from typing import Any

from stages.calibrators.fitting import NETWORKS
from stages.reporting.cells import Results
from stages.reporting.elements import section, tag

__all__ = ["GROUPS", "explorer_section", "numbers_of"]

# The group of networks of each method that does not calibrate those of Raw.
GROUPS = NETWORKS | {
    "ts_converged": "holdout",
    "mts_holdout_converged": "holdout",
    "mixup": "mixup",
    "label_smoothing": "label_smoothing",
    "focal": "focal",
    "focal_detached": "focal_detached",
}
SHARE_UNIT = 1000  # shares go into the page as whole numbers of thousandths
ECE_UNIT = 10_000
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
HEADING = "Try a temperature"
EXPLANATION = (
    "Divide the logits by T and see what becomes of the ECE. Bars are the accuracy in each bin of confidence,"
    " all networks of the row together; the line across a bar is the mean confidence there. A calibrated"
    " network has them equal, on the diagonal. Bins with less than 1 % of the predictions are faded."
)


def explorer_section(results: Results) -> str:
    """The controls and the numbers; "" without results."""
    numbers = {row: numbers_of(results, row) for row in results.rows if row in results.evaluated}
    if not numbers:
        return ""
    first = _first(numbers)
    options = [_option(row, row == first) for row in numbers]
    controls = "".join(
        [
            tag("label", "Row" + tag("select", "".join(options), id="of-row")),
            tag("label", "Method" + tag("select", "", id="of-method")),
            tag("label", _slider(), class_="temperature"),
        ]
    )
    form = tag("form", controls, hidden="hidden", aria_label=HEADING)
    drawing = tag("div", "", class_="drawing", id="drawing")
    said = tag("p", "", id="said", role="status")
    without = tag("noscript", tag("p", "This diagram needs JavaScript; everything else does not."))
    explanation = tag("p", escape(EXPLANATION), class_="notes")
    data = tag("script", as_json(numbers), type="application/json", id="sweeps")
    return section("explore", HEADING, "h2", form, said, drawing, explanation, without, data)


def _slider() -> str:
    output = tag("output", "", id="of-t")
    return f'Temperature T{output}<input type="range" id="t" min="0" max="1" step="1" value="0">'


def _option(row: str, is_first: bool) -> str:
    return tag("option", escape(row), value=row, selected="selected" if is_first else "")


def _first(numbers: dict[str, dict[str, Any]]) -> str:
    """The row that the page begins with: with a sweep, with the most test images, with a shipped T."""

    def order(row: str) -> tuple[bool, int, bool]:
        of_row = numbers[row]
        return "sweep" in of_row, of_row["images"], "shipped" in of_row["methods"]

    return max(numbers, key=order)


def as_json(numbers: dict[str, Any]) -> str:
    """JSON that stands in a script: no name in it can end the element."""
    text = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def numbers_of(results: Results, row: str) -> dict[str, Any]:
    """What is drawn of a row."""
    evaluated = results.evaluated[row]
    methods = {}
    for key, title in results.titles().items():
        method = results.method(row, key)
        if method:
            methods[key] = {
                "title": title,
                "group": GROUPS.get(key, "cross_entropy"),
                "t": round(_mean(method["temperature"]), 3),
                "ece": _whole(_mean(method["ece"]), ECE_UNIT),
                "bins": _bins(method["reliability"]),
            }
    numbers = {
        "networks": len(evaluated["methods"]["raw"]["ece"]),
        "images": evaluated.get("test_images", 0),
        "methods": methods,
    }
    if "sweep" in evaluated:
        numbers["sweep"] = _sweep(evaluated["sweep"])
    return numbers


def _sweep(sweep: dict[str, Any]) -> dict[str, Any]:
    groups = {}
    for name, group in sweep["groups"].items():
        by_temperature = []
        for count, confidence, accuracy in zip(group["count"], group["confidence"], group["accuracy"]):
            bins = {"count": count, "confidence": confidence, "accuracy": accuracy}
            by_temperature.append(_bins(bins))
        ece = [_whole(value, ECE_UNIT) for value in group["ece"]]
        groups[name] = {"ece": ece, "bins": by_temperature}
    return {"t": [round(t, 3) for t in sweep["temperatures"]], "groups": groups}


def _bins(reliability: dict[str, list]) -> str:
    """The share of predictions in each bin, their confidences, and their accuracies.

    Each is a whole number of thousandths, in two digits to the base of 36: half as long as in JSON.
    """
    total = max(sum(reliability["count"]), 1)
    shares = [count / total for count in reliability["count"]]
    values = [*shares, *reliability["confidence"], *reliability["accuracy"]]
    return "".join(_two_digits(_whole(value, SHARE_UNIT)) for value in values)


def _two_digits(number: int) -> str:
    """A number below 1296 to the base of 36."""
    high, low = divmod(number, len(DIGITS))
    return DIGITS[high] + DIGITS[low]


def _whole(value: float | None, unit: int) -> int:
    """A share in whole units; 0 for a bin without a value."""
    return round(unit * value) if value is not None and value == value else 0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
