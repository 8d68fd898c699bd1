"""The paper's tables, and what it left out, from the rows' results. Reads no files: a table is a function of rows and results.

`results` is everywhere `data/evaluate/<row>.json` by row; a row without results shows as missing, and is never dropped.
`paper` is `stages/paper.yaml`, `start` the first temperature of the LBFGS runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.shared.settings import Count, Ratio, Section

__all__ = ["METHODS", "Family", "Row", "Table", "architectures", "families", "intervals", "mean_std", "outside", "overcalibration", "scores"]
__all__ += ["starts", "table1", "table2", "table3", "table4", "table5", "table6", "table7", "worse_than_raw"]

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
OTHERS = ("raw", "ts", "mixup", "label_smoothing", "focal")  # the methods that the paper holds its own against
SCORES = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "ece_15": "ECE, 15 bins",
    "adaptive_ece": "Adaptive ECE",
    "classwise_ece": "Classwise ECE",
    "smooth_ece": "Smooth ECE",
    "nll": "NLL",
    "brier": "Brier",
    "confidence_gap": "Confidence - accuracy",
}
IN_NATS = ("nll", "brier")  # not shares: printed as they are
ARCHITECTURE_NUMBERS = ("accuracy", "ece", "confidence_gap")
REPEATS = "mean ± standard deviation over repeats"


class Row(Section):
    """The keys of `runs.<row>` by which a table knows it."""

    suite: str
    dataset: str
    backbone: str
    ipc: Count | None
    reads: str
    mdt: Ratio | list[Ratio]


class Table(NamedTuple):
    title: str
    text: pd.DataFrame  # cells as printed
    numbers: pd.DataFrame  # one line a number with its mean, std, ..., and the paper's
    notes: list[str]


class Family(NamedTuple):
    """Rows of one backbone on one data set with as many images: plain, and distilled under masks."""

    plain: str
    mdt: str | None
    mdt_ds: str | None


def table1(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE of every method on every distilled set of several images a class, and on the references of real images."""
    several = {name: row for name, row in rows.items() if row.mdt == 0 and (row.ipc or 1) > 1}
    return _ece_table("Table 1: ECE of networks trained on distilled data", several, results, paper["table1"], start)


def table2(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE with masked distillation training (MDT), against the best of the other methods without it."""

    def best(family: Family) -> Callable[[str], dict | None]:
        """As the paper takes it, by ECE on the test images."""
        methods = results[family.plain]["methods"]
        return min((methods[key] | {"name": METHODS[key]} for key in OTHERS if key in methods), key=lambda method: np.mean(method["ece"]))

    columns = {
        "best_of_others": ("Best of others", lambda f: best(f) if f.plain in results else None),
        "mdt": ("MDT", lambda f: _method(results, f.mdt, "raw")),
        "mts": ("MTS", lambda f: _method(results, f.plain, "mts")),
        "mdt_mts": ("MDT+MTS", lambda f: _method(results, f.mdt, "mts")),
    }
    notes = ["Best of others: of Raw, TS, mixup, label smoothing and focal loss the one with the lowest ECE on the test images, as in the paper; named in brackets."]
    return _family_table("Table 2: ECE with masked distillation training", "ece", [f for f in families(rows) if f.mdt], columns, rows, paper["table2"], notes)


def table3(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE where MDT draws its mask ratio anew for every iteration (MDT_ds)."""
    columns = {
        "mdt_ds": ("MDT_ds", lambda f: _method(results, f.mdt_ds, "raw")),
        "mts": ("MTS", lambda f: _method(results, f.plain, "mts")),
        "mdt_ds_mts": ("MDT_ds+MTS", lambda f: _method(results, f.mdt_ds, "mts")),
    }
    notes = ["The paper fixes the ratio of MTS at 0.1 on these sets; here it is the row's own, `mask_ratio`."]
    return _family_table("Table 3: ECE with MDT at sampled ratios", "ece", [f for f in families(rows) if f.mdt_ds], columns, rows, paper["table3"], notes)


def table4(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """Accuracy of what changes the training; MTS changes none."""
    columns = {key: (METHODS[key], lambda f, key=key: _method(results, f.plain, key)) for key in ("raw", "mixup", "label_smoothing", "focal")}
    columns["mdt"] = ("MDT", lambda f: _method(results, f.mdt, "raw"))
    several = [f for f in families(rows) if (rows[f.plain].ipc or 1) > 1]
    return _family_table("Table 4: accuracy by method", "accuracy", several, columns, rows, paper["table4"], ["MTS leaves the accuracy at Raw's."])


def table5(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE at one image a class, where TS does not exist."""
    single = {name: row for name, row in rows.items() if row.mdt == 0 and row.ipc == 1}
    return _ece_table("Table 5: ECE at one image per class", single, results, paper["table5"], start)


def table6(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """What it costs in accuracy that TS keeps a share of the distilled images from training."""
    columns = {
        "all_data": ("All images (MTS)", lambda f: _method(results, f.plain, "raw")),
        "ts": ("Without TS's share", lambda f: _method(results, f.plain, "ts")),
        "mdt": ("MDT", lambda f: _method(results, f.mdt, "raw")),
    }
    several = [f for f in families(rows) if (rows[f.plain].ipc or 1) > 1]
    return _family_table("Table 6: accuracy without the images that TS holds out", "accuracy", several, columns, rows, paper["table6"], [])


def table7(rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE of every method on networks trained on the full data."""
    full = {name: row for name, row in rows.items() if row.backbone == "full"}
    return _ece_table("Table 7: ECE of networks trained on the full data", full, results, paper["table7"], start)


def scores(rows: dict[str, Row], results: dict[str, dict], start: float) -> Table:
    """Every score of every method on every row, with 95 % intervals of ECE and smooth ECE."""
    lines, numbers = [], []
    for name, key, method in _each_method(rows, results):
        cells = {"Row": name, "Method": METHODS[key].format(start=start) if key else "missing"}
        for score, title in SCORES.items():
            cells[title] = _score(method, score)
        cells["T"] = f"{np.mean(method['temperature']):.2f}" if method else "missing"
        lines.append(cells)
        if method:
            bounds = {f"{score}_{end}": value for score, pair in method["interval"].items() for end, value in zip(("low", "high"), pair)}
            numbers.append({"row": name, "method": key, "repeats": len(method["ece"])} | _means(method, (*SCORES, "temperature")) | bounds)
    notes = [
        f"{REPEATS[0].upper()}{REPEATS[1:]}; in percent, but NLL in nats and Brier's score in [0, 2]. In brackets the 95 % bootstrap interval over test images of the mean.",
        "ECE with 10 bins as in the paper, and 15; adaptive ECE: bins of equal count; classwise ECE: mean over classes; smooth ECE: without bins.",
        "A resampled binned ECE is biased upwards, so its interval can lie above the value; to compare two methods, take the intervals of their difference (next table).",
    ]
    return Table("Scores of every method", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def intervals(rows: dict[str, Row], results: dict[str, dict], start: float) -> Table:
    """Difference of each method's ECE and Raw's, with its 95 % interval over test images: is it larger than chance?"""
    titles = {key: title.format(start=start) for key, title in METHODS.items() if key != "raw"}
    lines, numbers, better, worse = [], [], dict.fromkeys(titles, 0), dict.fromkeys(titles, 0)
    for name in rows:
        line = {"Row": name}
        for key, title in titles.items():
            method, raw = _method(results, name, key), _method(results, name, "raw")
            line[title] = "missing" if raw is None else "-"
            if method:
                low, high = method["difference_to_raw"]
                mean = np.mean(method["ece"]) - np.mean(raw["ece"])
                better[key], worse[key] = better[key] + (high < 0), worse[key] + (low > 0)
                line[title] = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
                numbers.append({"row": name, "method": key, "difference": mean, "low": low, "high": high})
        lines.append(line)
    for label, count in (("# better than Raw", better), ("# worse than Raw", worse)):
        lines.append({"Row": label} | {title: str(count[key]) for key, title in titles.items()})
    notes = [
        "ECE minus Raw's in percentage points, mean over repeats, with the 95 % interval of a paired bootstrap over the test images: negative is better.",
        "The counts are of rows whose interval excludes zero. It covers the choice of test images, not that of the distilled set.",
    ]
    return Table("Differences in ECE to Raw", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def overcalibration(rows: dict[str, Row], results: dict[str, dict], start: float) -> Table:
    """Confidence minus accuracy: how far, and in how many networks, a method ends under-confident."""
    titles = {key: title.format(start=start) for key, title in METHODS.items()}
    lines, numbers, under = [], [], {key: [0, 0] for key in METHODS}
    for name in rows:
        line = {"Row": name}
        for key, title in titles.items():
            method = _method(results, name, key)
            line[title] = "missing" if name not in results else "-"
            if method:
                gaps = np.array(method["confidence_gap"])
                under[key] = [under[key][0] + int((gaps < 0).sum()), under[key][1] + len(gaps)]
                line[title] = f"{100 * gaps.mean():+.1f} ({(gaps < 0).sum()}/{len(gaps)})"
                numbers.append({"row": name, "method": key, "gap": gaps.mean(), "networks_under_confident": int((gaps < 0).sum()), "networks": len(gaps)})
        lines.append(line)
    lines.append({"Row": "# under-confident"} | {titles[key]: f"{few} of {of}" if of else "-" for key, (few, of) in under.items()})
    notes = ["Mean confidence minus accuracy in percentage points, and in how many networks of a row it is negative, which is over-calibration where Raw is over-confident."]
    return Table("Over-calibration: confidence minus accuracy", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def starts(rows: dict[str, Row], ablations: dict[str, dict]) -> Table:
    """ECE of MTS by where its solver starts, when it stops, and the mask ratio.

    Args:
        ablations: `data/ablate/<row>.json` by row.
    """
    lines, numbers = [], []
    ratios = sorted({fit["ratio"] for found in ablations.values() for fit in found["fits"]})
    for name in rows:
        found = ablations.get(name)
        if found is None:
            lines.append({"Row": name, "Start": "missing", "Steps": "missing"} | {f"{ratio:g}": "missing" for ratio in ratios} | {"Oracle ratio": "missing"})
            continue
        fits = [fit for fit in found["fits"] if fit["share"] == found["share"]]
        numbers += [{"row": name, **{key: fit[key] for key in ("ratio", "start", "steps")}} | _means(fit, ("temperature", "ece")) | {"bound_hits": sum(fit["bound_hit"])} for fit in fits]  # fmt: skip
        shown = [fit for fit in fits if fit["steps"] in (found["steps"], None)]
        for start in dict.fromkeys(fit["start"] for fit in shown):
            line = {"Row": name, "Start": "any" if start is None else f"{start:g}", "Steps": "converged" if start is None else str(found["steps"])}
            some = {fit["ratio"]: fit for fit in shown if fit["start"] == start}
            best = min(some.values(), key=lambda fit: np.mean(fit["ece"]))
            lines.append(line | {f"{ratio:g}": _fit(some.get(ratio)) for ratio in ratios} | {"Oracle ratio": f"{best['ratio']:g}"})
    notes = [
        "ECE in percent (and the temperature in brackets), means over repeats, by mask ratio: the LBFGS run of the paper from each starting value, and the exact optimum on the same masked images.",
        "Oracle ratio: the one that does best on the test images, and so is chosen on them: a bound, not a result. † a temperature ended on a bound in some network.",
        "The CSV has every number of steps too. Raw is T = 1, and a start with no step at all is that temperature unfitted.",
    ]
    return Table("Starting values: MTS by start, steps and mask ratio", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def outside(found: dict[str, dict]) -> Table:
    """How well the maximum probability tells test images from images outside the distribution.

    Args:
        found: `{"auroc": [...], "fpr95": [...]}` by row, one number a repeat; empty where there is no result.
    """
    titles = {"auroc": "AUROC", "fpr95": "FPR at 95 % TPR"}
    lines = [{"Row": name} | {title: _percent(values[key]) if values else "missing" for key, title in titles.items()} for name, values in found.items()]
    numbers = [{"row": name, "repeats": len(values["auroc"])} | _means(values, titles) for name, values in found.items() if values]
    notes = [f"In percent, {REPEATS}, by the maximum probability of Raw networks; what lies outside is the suite's `features.<row>.outside`."]
    return Table("Out of distribution", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def architectures(tried: dict[str, list[str]], results: dict[str, dict]) -> Table:
    """Accuracy and ECE of other networks on a row's distilled set.

    Args:
        tried: networks by row, in the table's order.
        results: `data/evaluate/architectures/<row>.json` by row.
    """
    lines, numbers = [], []
    for name, networks in tried.items():
        for network in networks:
            found = results.get(name, {}).get(network)
            cells = {SCORES[key]: _percent(found[key]) if found else "missing" for key in ARCHITECTURE_NUMBERS}
            lines.append({"Row": name, "Network": network, "Weights": f"{found['parameters']:,}" if found else "missing"} | cells)
            if found:
                numbers.append({"row": name, "network": network, "parameters": found["parameters"], "repeats": len(found["ece"])} | _means(found, SCORES))
    notes = [
        f"In percent, {REPEATS}: networks trained with cross-entropy on a set that was distilled for `convnet`, uncalibrated.",
        "Confidence - accuracy is positive where a network is over-confident. All networks train on the row's own schedule and step size; none is tuned.",
    ]
    return Table("Architectures: other networks on the distilled sets", pd.DataFrame(lines), pd.DataFrame(numbers), notes)


def families(rows: dict[str, Row]) -> list[Family]:
    """The plain rows in their order, each with those that differ by the mask of distillation alone."""
    found = []
    for name, row in rows.items():
        if row.mdt == 0 and row.backbone != "full":
            like = {other: r for other, r in rows.items() if r.model_copy(update={"mdt": 0}) == row}
            mdt = next((other for other, r in like.items() if isinstance(r.mdt, float) and r.mdt > 0), None)
            found.append(Family(name, mdt, next((other for other, r in like.items() if isinstance(r.mdt, list)), None)))
    return found


def worse_than_raw(results: dict[str, dict], rows, method: str) -> int:
    """Rows on which a method's mean ECE is above Raw's: the paper's "# over-calibration"."""
    pairs = [(results[name]["methods"].get(method), results[name]["methods"]["raw"]) for name in rows if name in results]
    return sum(np.mean(ours["ece"]) > np.mean(raw["ece"]) for ours, raw in pairs if ours)


def mean_std(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _ece_table(title: str, rows: dict[str, Row], results: dict[str, dict], paper: dict, start: float) -> Table:
    """ECE in percent of every method on every row, with the paper's number below ours where it has one."""
    names = {key: name.format(start=start) for key, name in METHODS.items()}
    lines, numbers = [], []
    for name, row in rows.items():
        lines.append({"Row": name, "Accuracy": _cell(results, name, "raw", "accuracy")} | {names[key]: _cell(results, name, key, "ece") for key in names})
        printed = _paper_values(row, paper)
        if printed:
            lines.append({"Row": "(the paper)", "Accuracy": ""} | {names[key]: _pair(printed.get(key)) for key in names})
        for key in names:
            if method := _method(results, name, key):
                numbers.append({"row": name, "method": key, "repeats": len(method["ece"])} | _means(method, (*SCORES, "temperature")) | {"bound_hits": sum(method["bound_hit"])} | _paper_numbers(printed.get(key)))  # fmt: skip
    worse = {names[key]: str(worse_than_raw(results, rows, key)) if key != "raw" else "-" for key in names}
    lines.append({"Row": "# worse than Raw", "Accuracy": ""} | worse)
    notes = [
        f"ECE in percent, {REPEATS}. Accuracy is that of Raw, and so of every temperature on the same networks.",
        "TS and MTS stop early, as in the paper; `conv.` is the exact minimiser on the same images.",
        f"T = {start:g} is where the early-stopped fits start: no fit at all. Oracle T is fitted on the test labels: the best that one temperature can do in NLL, not a result.",
        "`# worse than Raw` counts the rows that a method makes worse: the paper's \"# over-calibration\".",
        "† a temperature ended on a bound. `-`: does not exist for the row (TS cannot hold out images at one image a class). `missing`: no result yet.",
    ]
    if "over_calibration" in paper and any(_paper_values(row, paper) for row in rows.values()):
        counts = ", ".join(f"{METHODS[key]} {count}" for key, count in zip(paper["columns"], paper["over_calibration"]) if count is not None)
        notes.append(f"The paper's counts over its {len(paper['rows'])} rows: {counts}.")
    return Table(title, pd.DataFrame(lines), pd.DataFrame(numbers), notes + _paper_notes(rows.values(), paper))


def _family_table(title: str, number: str, shown: list[Family], columns: dict[str, tuple], rows: dict[str, Row], paper: dict, notes: list[str]) -> Table:
    """One number of each family: `columns` gives each key its title and a function of the family to a method's results."""
    lines, numbers = [], []
    for family in shown:
        printed, line = _paper_values(rows[family.plain], paper), {"Row": family.plain}
        for key, (column, find) in columns.items():
            absent = (key.startswith("mdt_ds") and family.mdt_ds is None) or (key in ("mdt", "mdt_mts") and family.mdt is None)
            found = find(family)
            line[column] = "-" if absent or found == {} else "missing" if found is None else _percent(found[number]) + (f" ({found['name']})" if "name" in found else "")
            if found:
                numbers.append({"row": family.plain, "column": key, "number": number, "repeats": len(found[number])} | _means(found, [number]) | _paper_numbers(printed.get(key)))
        lines.append(line)
        if printed:
            lines.append({"Row": "(the paper)"} | {column: _pair(printed.get(key)) for key, (column, _) in columns.items()})
    notes = [f"{'ECE' if number == 'ece' else 'Accuracy'} in percent, {REPEATS}.", *notes, "`-`: the suite has no such row, or the method does not exist for it. `missing`: no result yet."]
    text = pd.DataFrame(lines, columns=["Row", *(column for column, _ in columns.values())])
    return Table(title, text, pd.DataFrame(numbers), notes + _paper_notes((rows[family.plain] for family in shown), paper))


def _method(results: dict[str, dict], name: str | None, key: str) -> dict | None:
    """A method's results on a row; None without results, {} where the method does not exist for the row."""
    return results[name]["methods"].get(key, {}) if name in results else None


def _each_method(rows, results):
    """(row, method, its results) in order; (row, None, None) where a row has no results."""
    for name in rows:
        if name not in results:
            yield name, None, None
        else:
            yield from ((name, key, results[name]["methods"][key]) for key in METHODS if key in results[name]["methods"])


def _cell(results: dict[str, dict], name: str, key: str, number: str) -> str:
    method = _method(results, name, key)
    if not method:
        return "missing" if method is None else "-"
    return _percent(method[number]) + ("†" if number == "ece" and any(method["bound_hit"]) else "")


def _score(method: dict | None, key: str) -> str:
    if method is None:
        return "missing"
    mean, std = mean_std(method[key])
    if key in IN_NATS:
        return f"{mean:.3f} ± {std:.3f}"
    low, high = method["interval"].get(key, (None, None))
    return _pair([100 * mean, 100 * std]) + (f" [{100 * low:.2f}, {100 * high:.2f}]" if low is not None else "")


def _fit(fit: dict | None) -> str:
    return f"{100 * np.mean(fit['ece']):.2f} ({np.mean(fit['temperature']):.2f})" + ("†" if any(fit["bound_hit"]) else "") if fit else ""


def _percent(values: list[float]) -> str:
    return _pair([100 * value for value in mean_std(values)])


def _pair(values) -> str:
    if values is None:
        return ""
    return f"{values[0]:.2f} ± {values[1]:.2f}" if isinstance(values, (list, tuple)) else f"{values:.2f}"


def _means(method: dict, keys) -> dict[str, float]:
    """Mean and deviation of those of the numbers that there are."""
    return {f"{key}_{part}": value for key in keys if key in method for part, value in zip(("mean", "std"), mean_std(method[key]))}


def _paper_values(row: Row, paper: dict) -> dict:
    """The paper's [mean, std] by column for this data set, backbone and IPC; empty where it has none."""
    for entry in paper["rows"]:
        if (entry["dataset"], entry["backbone"], entry["ipc"]) == (row.suite, row.backbone, row.ipc):
            return dict(zip(paper["columns"], entry["values"]))
    return {}


def _paper_numbers(printed) -> dict[str, float | None]:
    mean, std = printed if isinstance(printed, list) else (printed, None)
    return {"paper_percent": mean, "paper_std_percent": std}


def _paper_notes(rows, paper: dict) -> list[str]:
    """Contradictions in the paper that touch the numbers shown."""
    shown = {row.suite for row in rows if _paper_values(row, paper)}
    return [note for suite, note in paper.get("notes", {}).items() if suite in shown]
