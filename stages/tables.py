"""The paper's tables, from the rows' results. Reads no files: a table is a function of rows, results and the paper."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.shared.settings import Count, Ratio, Section

__all__ = ["METHODS", "Row", "Table", "architectures", "mean_std", "table1", "table7", "worse_than_raw"]

METHODS = {
    "raw": "Raw",
    "ts": "TS",
    "mixup": "Mixup",
    "label_smoothing": "LS",
    "focal": "Focal",
    "mts": "MTS",
    "fixed": "T = {start:g}",
    "ts_converged": "TS conv.",
    "mts_converged": "MTS conv.",
    "oracle": "Oracle T",
}


SCORES = ("accuracy", "ece", "nll", "brier", "confidence_gap")
ARCHITECTURE_NUMBERS = {"accuracy": "Accuracy", "ece": "ECE", "confidence_gap": "Confidence - accuracy"}


class Row(Section):
    """The keys of `runs.<row>` by which a table knows it."""

    suite: str
    dataset: str
    backbone: str
    ipc: Count | None
    mdt: Ratio | list[Ratio]


class Table(NamedTuple):
    title: str
    text: pd.DataFrame  # cells as printed
    numbers: pd.DataFrame  # one line a row and method: mean and std of every number, and the paper's
    notes: list[str]


def table1(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE of every method on every distilled set, and on the references that a distilled set is held against."""
    distilled = {name: row for name, row in rows.items() if row.backbone != "full"}
    return ece_table("Table 1: ECE of networks trained on distilled data", distilled, results, paper, start)


def table7(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """The same for networks trained on the full data."""
    full = {name: row for name, row in rows.items() if row.backbone == "full"}
    return ece_table("Table 7: ECE of networks trained on the full data", full, results, paper, start)


def architectures(tried: dict[str, list[str]], results: dict[str, dict]) -> Table:
    """Accuracy and ECE of other networks on a row's distilled set.

    Args:
        tried: networks by row, in the table's order.
        results: `data/evaluate/architectures/<row>.json` by row; rows without one are shown as missing.
    """
    lines, numbers = [], []
    for name, networks in tried.items():
        for network in networks:
            found = results.get(name, {}).get(network)
            cells = {title: _percent(found[key]) if found else "missing" for key, title in ARCHITECTURE_NUMBERS.items()}
            lines.append({"Row": name, "Network": network, "Weights": f"{found['parameters']:,}" if found else "missing"} | cells)
            if found:
                pairs = {f"{key}_{part}": value for key in SCORES for part, value in zip(("mean", "std"), mean_std(found[key]))}
                numbers.append({"row": name, "network": network, "parameters": found["parameters"], "repeats": len(found["ece"])} | pairs)
    notes = [
        "In percent, mean ± standard deviation over repeats: networks trained with cross-entropy on a set that was distilled for `convnet`, uncalibrated.",
        "Confidence - accuracy is positive where a network is over-confident. All networks train on the row's own schedule and step size; none is tuned.",
    ]
    return Table("Architectures: other networks on the distilled sets", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def ece_table(title: str, rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE in percent of every method on every row, with the paper's number below ours where it has one.

    Args:
        rows: the rows to show, in order.
        results: `data/evaluate/<row>.json` by row; rows without one are shown as missing.
        paper: `stages/paper.yaml`.
        start: first temperature of the LBFGS runs, which the column `fixed` keeps.
    """
    names = {key: name.format(start=start) for key, name in METHODS.items()}
    lines, numbers = [], []
    for name, row in rows.items():
        methods = results[name]["methods"] if name in results else None
        cells = {"Row": name, "Accuracy": _cell(methods, "raw", "accuracy")}
        lines.append(cells | {names[key]: _cell(methods, key, "ece") for key in names})
        printed = _paper_ece(row, paper)
        if printed:
            lines.append({"Row": "(the paper)", "Accuracy": ""} | {names[key]: _pair(printed.get(key)) for key in names})
        numbers += [_numbers(name, key, methods[key], printed.get(key)) for key in names if methods and key in methods]
    worse = {names[key]: str(worse_than_raw(results, rows, key)) if key != "raw" else "-" for key in names}
    lines.append({"Row": "# worse than Raw", "Accuracy": ""} | worse)
    notes = [
        "ECE in percent, mean ± standard deviation over repeats. Accuracy is that of Raw, and so of every temperature on the same networks.",
        "TS and MTS stop early, as in the paper; `conv.` is the exact minimiser on the same images.",
        f"T = {start:g} is where the early-stopped fits start: no fit at all. Oracle T is fitted on the test labels: the best that one temperature can do in NLL, not a result.",
        "† a temperature ended on a bound. `-`: does not exist for the row (TS cannot hold out images at one image a class). `missing`: no result yet.",
    ]
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def worse_than_raw(results: dict[str, dict], rows, method: str) -> int:
    """Rows on which a method's mean ECE is above Raw's: the paper's "# over-calibration"."""
    pairs = [(results[name]["methods"].get(method), results[name]["methods"]["raw"]) for name in rows if name in results]
    return sum(np.mean(ours["ece"]) > np.mean(raw["ece"]) for ours, raw in pairs if ours)


def mean_std(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _cell(methods: dict | None, method: str, number: str) -> str:
    if methods is None:
        return "missing"
    if method not in methods:
        return "-"
    mark = "†" if number == "ece" and any(methods[method]["bound_hit"]) else ""
    return _percent(methods[method][number]) + mark


def _percent(values: list[float]) -> str:
    return _pair([100 * value for value in mean_std(values)])


def _pair(values) -> str:
    if values is None:
        return ""
    return f"{values[0]:.2f} ± {values[1]:.2f}" if isinstance(values, (list, tuple)) else f"{values:.2f}"


def _paper_ece(row: Row, paper: dict) -> dict:
    """The paper's [mean, std] by method for this data set, backbone and IPC; empty where it has none."""
    for entry in paper["ece"]["rows"]:
        if (entry["dataset"], entry["backbone"], entry["ipc"]) == (row.suite, row.backbone, row.ipc) and row.mdt == 0:
            return dict(zip(paper["ece"]["columns"], entry["ece"]))
    return {}


def _numbers(name: str, key: str, method: dict, printed) -> dict:
    out = {"row": name, "method": key, "repeats": len(method["ece"])}
    for number in (*SCORES, "temperature"):
        out[f"{number}_mean"], out[f"{number}_std"] = mean_std(method[number])
    out["bound_hits"] = sum(method["bound_hit"])
    out["paper_ece_percent"], out["paper_ece_std_percent"] = printed if isinstance(printed, list) else (printed, None)
    return out
