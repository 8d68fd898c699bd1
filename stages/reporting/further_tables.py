"""Tables that the paper does not have: every score, differences to Raw, over-calibration, the starting values
of MTS, images out of the distribution, other networks, and quick rows.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from stages.reporting.cells import (
    ABSENT,
    MISSING,
    REPEATS,
    SCORES,
    Results,
    Table,
    bound_mark,
    lr_and_step_size,
    mean_std,
    means,
    pair,
    percent,
    step_size,
)
from stages.reporting.counts import COUNTED_APART, OF_FEWER, count, counted_groups
from stages.reporting.paper_tables import in_paper

__all__ = ["architectures", "intervals", "outside", "overcalibration", "quick", "scores", "starts"]

IN_NATS = ("nll", "brier")  # no shares, so they are not printed in percent
QUICK_METHODS = ("raw", "mts")
ARCHITECTURE_NUMBERS = ("accuracy", "ece", "confidence_gap")
ARCHITECTURE_TEMPERATURES = {
    "shipped": "ECE at shipped T",
    "own": "ECE at own T",
    "oracle": "ECE at oracle T",
}
DETECTION = {"auroc": "AUROC", "fpr95": "FPR at 95 % TPR"}


def scores(results: Results) -> Table:
    """Every score of every method on every row, with 95 % intervals of ECE and smooth ECE."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    titles = results.titles()
    for row, keys in results.rows.items():
        named = {"Row": row, "Step size": step_size(keys)}
        if row not in results.evaluated:
            lines.append(named | _score_cells(MISSING, None))
            continue
        for key, title in titles.items():
            method = results.method(row, key)
            if method:
                lines.append(named | _score_cells(title, method))
                numbers.append(_score_numbers(row, key, method))
    notes = [
        f"{REPEATS[0].upper()}{REPEATS[1:]}; in percent, but NLL in nats and Brier's score in [0, 2]."
        " In brackets the 95 % interval of the mean, over networks and test images together"
        f"{_of_images_alone(results)}.",
        "ECE with the bins of `evaluate.bins`, 10 as in the paper, and with 15; rows that ran elsewhere keep"
        " theirs. Adaptive ECE: bins of equal count; classwise ECE: mean over classes; smooth ECE: no bins.",
        "Noise of the test images can only raise an ECE. The interval is around the ECE without what noise"
        " has added, so it may lie below the value that is printed, most of all with few test images. To"
        " compare two methods, take the intervals of their difference (table `intervals`).",
    ]
    return Table("Scores of every method", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _of_images_alone(results: Results) -> str:
    """Which rows have intervals over test images alone: those with one network, and old results."""
    single, older = [], []
    for row in results.rows:
        raw = results.method(row, "raw")
        if raw and "corrected" not in raw:
            older.append(f"`{row}`")
        elif raw and len(raw["ece"]) == 1:
            single.append(f"`{row}`")
    parts = []
    if single:
        parts.append(f"on {', '.join(single)}, with one network")
    if older:
        parts.append(
            f"on {', '.join(older)}, results of an earlier version, whose intervals have the noise of"
            " resampling in them"
        )
    return f" (over images alone {'; '.join(parts)})" if parts else ""


def _score_cells(title: str, method: dict[str, Any] | None) -> dict[str, str]:
    line = {"Method": title}
    for score, name in SCORES.items():
        line[name] = _score_cell(method, score)
    line["T"] = f"{np.mean(method['temperature']):.2f}" if method else MISSING
    return line


def _score_cell(method: dict[str, Any] | None, score: str) -> str:
    if method is None:
        return MISSING
    if score in IN_NATS:
        return pair(mean_std(method[score]), decimals=3)
    cell = percent(method[score])
    if score in method["interval"]:
        low, high = method["interval"][score]
        cell += f" [{100 * low:.2f}, {100 * high:.2f}]"
    return cell


def _score_numbers(row: str, key: str, method: dict[str, Any]) -> dict[str, Any]:
    line = {"row": row, "method": key, "repeats": len(method["ece"])}
    line |= means(method, (*SCORES, "temperature"))
    for score, bounds in method["interval"].items():
        line[f"{score}_low"], line[f"{score}_high"] = bounds
    return line


def intervals(results: Results) -> Table:
    """The difference between each method's ECE and Raw's, with its 95 % interval."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    titles = results.columns()
    del titles["raw"]
    for row, keys in results.rows.items():
        line = {"Row": row, "Step size": step_size(keys)}
        for key, title in titles.items():
            difference = _difference(results, row, key)
            if difference:
                numbers.append(difference)
            line[title] = _difference_cell(difference) if difference else _no_number(results, row)
        lines.append(line)
    for group, rows in counted_groups(results, in_paper(results.rows)).items():
        lines += _better_and_worse(group, rows, titles)
    notes = [
        "ECE minus Raw's in percentage points, mean over repeats, with the 95 % interval over networks and"
        f" test images together{_of_images_alone(results)}, paired by both: negative is better. The interval"
        " is around the difference without what noise has added to either ECE.",
        "The counts are of rows whose interval excludes zero. It covers the choice of networks and of test"
        " images; that of the distilled set only where repeats have sets of their own (§). Shipped T is taken"
        " as given: other networks to fit it on would give another. On made-up networks most such intervals"
        " contain the true difference less often than 95 times in 100 (`reports/benchmarks/coverage.json`)."
        f" {COUNTED_APART} {OF_FEWER}",
    ]
    return Table("Differences in ECE to Raw", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _better_and_worse(group: str, results: Results, titles: dict[str, str]) -> list[dict[str, str]]:
    """How many rows of a group each method makes better than Raw, and how many it makes worse."""
    better = {"Row": f"# better than Raw, {group}", "Step size": ""}
    worse = {"Row": f"# worse than Raw, {group}", "Step size": ""}
    for key, title in titles.items():
        differences = [_difference(results, row, key) for row in results.rows]
        present = [difference for difference in differences if difference]
        better[title] = count([difference["high"] < 0 for difference in present], len(results.rows))
        worse[title] = count([difference["low"] > 0 for difference in present], len(results.rows))
    return [better, worse]


def _difference(results: Results, row: str, key: str) -> dict[str, Any] | None:
    """The numbers of a method's difference to Raw on a row, if there are any."""
    method = results.method(row, key)
    raw = results.method(row, "raw")
    if not method or not raw:
        return None
    low, high = method["difference_to_raw"]
    difference = np.mean(method["ece"]) - np.mean(raw["ece"])
    return {"row": row, "method": key, "difference": difference, "low": low, "high": high}


def _difference_cell(numbers: dict[str, Any]) -> str:
    difference, low, high = 100 * numbers["difference"], 100 * numbers["low"], 100 * numbers["high"]
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def _no_number(results: Results, row: str) -> str:
    return ABSENT if row in results.evaluated else MISSING


def overcalibration(results: Results) -> Table:
    """Confidence minus accuracy: how far, and in how many networks, a method ends under-confident."""
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    titles = results.columns()
    for row, keys in results.rows.items():
        line = {"Row": row, "Step size": step_size(keys)}
        for key, title in titles.items():
            method = results.method(row, key)
            if method:
                gap = _gap(row, key, method["confidence_gap"])
                numbers.append(gap)
                networks = f"{gap['networks_under_confident']}/{gap['networks']}"
                line[title] = f"{100 * gap['gap']:+.1f} ({networks})"
            else:
                line[title] = _no_number(results, row)
        lines.append(line)
    for group, rows in counted_groups(results, in_paper(results.rows)).items():
        total = {"Row": f"# under-confident, {group}", "Step size": ""}
        for key, title in titles.items():
            of_rows = [gap for gap in numbers if gap["method"] == key and gap["row"] in rows.rows]
            total[title] = _under_confident(of_rows) if of_rows else ABSENT
        lines.append(total)
    note = (
        "Mean confidence minus accuracy in percentage points, and in how many networks of a row it is"
        f" negative, which is over-calibration where Raw is over-confident. {COUNTED_APART}"
    )
    title = "Over-calibration: confidence minus accuracy"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), [note])


def _gap(row: str, key: str, values: list[float]) -> dict[str, Any]:
    gaps = np.array(values)
    under = int((gaps < 0).sum())
    return {
        "row": row,
        "method": key,
        "gap": gaps.mean(),
        "networks_under_confident": under,
        "networks": len(gaps),
    }


def _under_confident(gaps: list[dict[str, Any]]) -> str:
    under = sum(gap["networks_under_confident"] for gap in gaps)
    networks = sum(gap["networks"] for gap in gaps)
    return f"{under} of {networks}"


def quick(results: Results) -> Table:
    """Accuracy and ECE of the rows that only try the program."""
    titles = results.titles()
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for row in results.rows:
        raw = results.method(row, "raw")
        accuracy = percent(raw["accuracy"]) if raw else MISSING
        line = {"Row": row, "Step size": lr_and_step_size(results, row), "Accuracy": accuracy}
        for key in QUICK_METHODS:
            method = results.method(row, key)
            line[titles[key]] = percent(method["ece"]) if method else _no_number(results, row)
            if method:
                numbers.append({"row": row, "method": key} | means(method, ("accuracy", "ece")))
        lines.append(line)
    note = (
        f"Accuracy of Raw and ECE in percent, {REPEATS}. With few images, a narrow network and little"
        " training these rows show in minutes that the program works; their numbers are in no other table."
    )
    return Table("Quick rows: no results", pd.DataFrame(lines), pd.DataFrame(numbers), [note])


def starts(rows: Iterable[str], ablations: dict[str, dict]) -> Table:
    """ECE of MTS by the start of its solver, the step at which it stops, and the mask ratio.

    Args:
        rows: in the table's order.
        ablations: `data/ablate/<row>.json` by row.
    """
    lines: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    ratios = _ratios(ablations)
    for row in rows:
        if row not in ablations:
            lines.append(_filled_line(row, MISSING, MISSING, ratios))
            continue
        ablation = ablations[row]
        fits = [fit for fit in ablation["fits"] if fit["share"] == ablation["share"]]
        lines += _start_lines(row, fits, ablation["steps"], ratios)
        if "shipped" in ablation:
            ece = f"{100 * np.mean(ablation['shipped']):.2f}"
            lines.append(_filled_line(row, "shipped T", ABSENT, ratios) | {f"{ratios[0]:g}": ece})
        numbers += [_fit_numbers(row, fit) for fit in fits]
    notes = [
        "ECE in percent (and the temperature in brackets), means over repeats, by mask ratio: the LBFGS run"
        " of the paper from each starting value, and the exact optimum on the same masked images.",
        "Oracle ratio: the one that does best on the test images, and so is chosen on them: a bound, not a"
        " result. † a temperature ended on a bound in some network.",
        "Shipped T comes with the set and has neither start nor mask: its ECE stands in the first column.",
        "The CSV has every number of steps too. Raw is T = 1, and a start with no step at all is that"
        " temperature unfitted.",
    ]
    title = "Starting values: MTS by start, steps and mask ratio"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _ratios(ablations: dict[str, dict]) -> list[float]:
    """Every mask ratio that was tried, sorted."""
    ratios = set()
    for ablation in ablations.values():
        ratios |= {fit["ratio"] for fit in ablation["fits"]}
    return sorted(ratios)


def _filled_line(row: str, start: str, word: str, ratios: list[float]) -> dict[str, str]:
    """A line of the table of starting values with one word in all its columns."""
    columns = ["Steps", *(f"{ratio:g}" for ratio in ratios), "Oracle ratio"]
    return {"Row": row, "Start": start} | dict.fromkeys(columns, word)


def _start_lines(row: str, fits: list[dict], steps: int, ratios: list[float]) -> list[dict[str, str]]:
    """A line for each start, at the step at which the row's own fits stop, and one for the exact optimum."""
    shown = [fit for fit in fits if fit["steps"] in (steps, None)]
    lines = []
    for start in dict.fromkeys(fit["start"] for fit in shown):
        by_ratio = {fit["ratio"]: fit for fit in shown if fit["start"] == start}
        if start is None:
            line = {"Row": row, "Start": "any", "Steps": "converged"}
        else:
            line = {"Row": row, "Start": f"{start:g}", "Steps": str(steps)}
        for ratio in ratios:
            line[f"{ratio:g}"] = _fit_cell(by_ratio.get(ratio))
        best = min(by_ratio.values(), key=lambda fit: np.mean(fit["ece"]))
        line["Oracle ratio"] = f"{best['ratio']:g}"
        lines.append(line)
    return lines


def _fit_cell(fit: dict | None) -> str:
    if fit is None:
        return ""
    return f"{100 * np.mean(fit['ece']):.2f} ({np.mean(fit['temperature']):.2f}){bound_mark(fit)}"


def _fit_numbers(row: str, fit: dict) -> dict[str, Any]:
    line = {"row": row, "ratio": fit["ratio"], "start": fit["start"], "steps": fit["steps"]}
    line |= means(fit, ("temperature", "ece"))
    line["bound_hits"] = sum(fit["bound_hit"])
    return line


def outside(detections: dict[str, dict[str, list[float]]]) -> Table:
    """How well the maximum probability tells test images from images outside the distribution.

    Args:
        detections: `{"auroc": [...], "fpr95": [...]}` by row, one number a repeat; {} without a result.
    """
    lines = []
    numbers = []
    for row, detection in detections.items():
        line = {"Row": row}
        for key, title in DETECTION.items():
            line[title] = percent(detection[key]) if detection else MISSING
        lines.append(line)
        if detection:
            repeats = len(detection["auroc"])
            numbers.append({"row": row, "repeats": repeats} | means(detection, DETECTION))
    note = (
        f"In percent, {REPEATS}, by the maximum probability of Raw networks; what lies outside is the"
        " suite's `features.<row>.outside`."
    )
    return Table("Out of distribution", pd.DataFrame(lines), pd.DataFrame(numbers), [note])


def architectures(tried: dict[str, list[str]], evaluated: dict[str, dict]) -> Table:
    """Accuracy and ECE of other networks on a row's distilled set.

    Args:
        tried: networks by row, in the table's order.
        evaluated: `data/architectures/<row>.json` by row.
    """
    lines = []
    numbers = []
    for row, networks in tried.items():
        for network in networks:
            result = evaluated.get(row, {}).get(network)
            lines.append(_architecture_line(row, network, result))
            if result:
                numbers.append(_architecture_numbers(row, network, result))
    notes = [
        f"In percent, {REPEATS}: networks trained with cross-entropy on a set that was distilled for"
        " `convnet`, uncalibrated.",
        "Confidence - accuracy is positive where a network is over-confident. All networks train on the"
        " row's own schedule and step size; none is tuned.",
        "Shipped T is the temperature that ships with the set, fitted to `convnet`. Own T is fitted to the"
        " other repeats of the same network, on the same real training images. Oracle T is fitted on the test"
        " labels: a bound, not a result. † a temperature ended on a bound.",
    ]
    title = "Architectures: other networks on the distilled sets"
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def _architecture_line(row: str, network: str, result: dict[str, Any] | None) -> dict[str, str]:
    line = {"Row": row, "Network": network}
    line["Weights"] = f"{result['parameters']:,}" if result else MISSING
    for key in ARCHITECTURE_NUMBERS:
        line[SCORES[key]] = percent(result[key]) if result else MISSING
    calibrated = result.get("calibrated", {}) if result else {}
    for key, title in ARCHITECTURE_TEMPERATURES.items():
        if key in calibrated:
            line[title] = percent(calibrated[key]["ece"]) + bound_mark(calibrated[key])
        else:
            line[title] = ABSENT if result else MISSING
    return line


def _architecture_numbers(row: str, network: str, result: dict[str, Any]) -> dict[str, Any]:
    line = {"row": row, "network": network, "parameters": result["parameters"]}
    line["repeats"] = len(result["ece"])
    line |= means(result, SCORES)
    for key, numbers in result.get("calibrated", {}).items():
        for column, value in means(numbers, ("temperature", "ece")).items():
            line[f"{key}_{column}"] = value
    return line
