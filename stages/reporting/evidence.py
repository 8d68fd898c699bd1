"""What speaks for or against a claim: a number with a 95 % interval for every row or pair of rows.

Every measure is a function of results that reads no files. Shares are in [0, 1]. Rows of real images
(`random`, `kmeans`) and of the full data never count as distilled, and quick rows never count.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from stages.reporting.cells import Results
from stages.reporting.decompositions import cumulative_ratio
from stages.reporting.families import families
from stages.reporting.paper_cells import SUITES
from stages.reporting.paper_tables import OTHERS
from stages.reporting.rows_of_figures import REFERENCES, compared_rows, kind_of_images

__all__ = ["MEASURES", "Case", "Evidence", "distilled_plain", "over_confidence", "place", "with_all"]

LEVEL = 0.975  # the upper end of a two-sided 95 % interval
NORMAL = 1.96  # the same of the standard normal distribution
BUDGETS = ("published", "reduced")  # of rows that the paper's numbers stand beside, in their order


class Evidence(NamedTuple):
    """All results that a claim is judged by, by row."""

    results: Results  # without quick rows
    ablations: dict[str, dict]  # data/ablate/<row>.json
    features: dict[str, dict[str, np.ndarray]]  # data/features/<row>.safetensors
    decomposed: dict[str, dict]  # data/svd/<row>.json


class Case(NamedTuple):
    """A number of a row with its interval, whose bounds are NaN where there is one network alone."""

    row: str
    beside: str  # what the row is compared with
    value: float
    low: float
    high: float


def place(results: Results, row: str) -> int:
    """Rows of the paper's data sets are first, the published ones before the reduced ones."""
    keys = results.rows[row]
    is_of_paper = keys.suite in SUITES and keys.budget in BUDGETS
    return BUDGETS.index(str(keys.budget)) if is_of_paper else len(BUDGETS)


def distilled_plain(results: Results) -> list[str]:
    """The rows of sets that are distilled without masks and have results, as `place` orders them.

    A row that reads `sets/<other>` trains its networks as the other does, which is left out beside it.
    """
    names = []
    for name, row in results.rows.items():
        is_distilled = row.method not in REFERENCES and row.budget != "quick"
        if is_distilled and row.mdt == 0 and name in results.evaluated:
            names.append(name)
    read = {results.rows[name].reads.removeprefix("sets/") for name in names}
    kept = [name for name in names if name not in read]
    return sorted(kept, key=lambda name: place(results, name))


def with_all(results: Results, names: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Those of the rows that have results of all the methods."""
    return [name for name in names if all(results.method(name, method) for method in methods)]


def over_confidence(evidence: Evidence) -> list[Case]:
    """Confidence minus accuracy of Raw."""
    return [_gap(evidence.results, name) for name in distilled_plain(evidence.results)]


def _gap(results: Results, name: str) -> Case:
    """The networks vary, and so would the share of right answers on other test images."""
    raw = results.method(name, "raw") or {}
    accuracy = float(np.mean(raw["accuracy"]))
    images = results.evaluated[name].get("test_images", np.inf)
    gaps = np.array(raw["confidence_gap"], float)
    return Case(name, "", *_interval(gaps, accuracy * (1 - accuracy) / images))


def over_confidence_beside_real(evidence: Evidence) -> list[Case]:
    """By how much a row is more over-confident than the full data, and than as many random images."""
    results = evidence.results
    cases = []
    for name in distilled_plain(results):
        row = results.rows[name]
        kinds = [(row.dataset, "full", None), (row.dataset, "random", row.ipc)]
        gaps = _numbers(results, name, "raw", "confidence_gap")
        for other in results.evaluated:
            if other in results.rows and kind_of_images(results.rows[other]) in kinds:
                beside = _numbers(results, other, "raw", "confidence_gap")
                cases.append(Case(name, other, *_apart(gaps, beside)))
    return cases


def ece_beside_raw(evidence: Evidence, method: str, full: bool = False) -> list[Case]:
    """ECE of a method minus that of Raw, with the interval that `evaluate` has written.

    Args:
        full: of the rows of the full data, in place of those of distilled sets.
    """
    results = evidence.results
    names = distilled_plain(results)
    if full:
        names = [name for name, row in results.rows.items() if row.method == "full"]
    cases = []
    for name in with_all(results, names, [method]):
        numbers = results.method(name, method) or {}
        ece = numbers["ece"]
        value = float(np.mean(ece) - np.mean(_numbers(results, name, "raw", "ece")))
        if "corrected" in numbers:
            value = numbers["corrected"]["difference_to_raw"]
        cases.append(Case(name, "raw", value, *numbers["difference_to_raw"]))
    return cases


def ece_beside_best(evidence: Evidence, several: bool) -> list[Case]:
    """ECE of MTS minus that of the best other method of the paper, which is chosen on the test images.

    Args:
        several: of sets with several images per class, in place of those with one.
    """
    results = evidence.results
    cases = []
    for name in with_all(results, distilled_plain(results), ["mts"]):
        if ((results.rows[name].ipc or 0) > 1) == several:
            present = [method for method in OTHERS if results.method(name, method)]
            best = min(present, key=lambda method: np.mean(_numbers(results, name, method, "ece")))
            cases.append(_paired_methods(results, name, "mts", best, "ece"))
    return cases


def ece_beside_method(evidence: Evidence, method: str, beside: str) -> list[Case]:
    """ECE of one method minus that of another on the same rows."""
    results = evidence.results
    names = with_all(results, distilled_plain(results), [method, beside])
    return [_paired_methods(results, name, method, beside, "ece") for name in names]


def accuracy_beside_raw(evidence: Evidence, method: str) -> list[Case]:
    """Accuracy of a method minus that of Raw."""
    results = evidence.results
    names = with_all(results, distilled_plain(results), [method])
    return [_paired_methods(results, name, method, "raw", "accuracy") for name in names]


def masked_beside_unmasked(evidence: Evidence) -> list[Case]:
    """ECE of MTS at the mask ratio of the row minus that of the same fit without a mask."""
    cases = []
    for name in distilled_plain(evidence.results):
        if name in evidence.ablations:
            masked = _fit(evidence.ablations[name], evidence.ablations[name]["ratio"])
            unmasked = _fit(evidence.ablations[name], 0)
            if masked and unmasked and masked is not unmasked:
                cases.append(Case(name, "no mask", *_paired(masked["ece"], unmasked["ece"])))
    return cases


def _fit(ablation: dict, ratio: float) -> dict | None:
    """The fit at a mask ratio that is else as the row's own."""
    own = (ratio, ablation["share"], ablation["start"], ablation["steps"])
    for fit in ablation["fits"]:
        if (fit["ratio"], fit["share"], fit["start"], fit["steps"]) == own:
            return fit
    return None


def masked_distillation(
    evidence: Evidence, sampled: bool, method: str, beside: str, number: str
) -> list[Case]:
    """A number of a set that was distilled with masks minus that of the same set without.

    Args:
        sampled: whether the mask ratio was drawn anew for every iteration (MDT_ds).
        method: of the masked set.
        beside: the method of the plain set.
        number: "ece" or "accuracy".
    """
    results = evidence.results
    cases = []
    for family in families(results.rows):
        masked = family.mdt_ds if sampled else family.mdt
        if masked and results.method(masked, method) and results.method(family.plain, beside):
            values = _numbers(results, masked, method, number)
            plain = _numbers(results, family.plain, beside, number)
            cases.append(Case(masked, family.plain, *_apart(values, plain)))
    return cases


def spread_of_logits(evidence: Evidence) -> list[Case]:
    """Deviation of the maximum logits of networks on distilled data minus that on full data, in nats."""
    cases = []
    for groups in _compared(evidence):
        if "FDNN" in groups:
            for images, key in (("own images", "own.max_logit"), ("test images", "inside.max_logit")):
                distilled = _deviations(evidence, groups["DDNN"], key)
                full = _deviations(evidence, groups["FDNN"], key)
                beside = f"{groups['FDNN']}, {images}"
                cases.append(Case(groups["DDNN"], beside, *_apart(distilled, full)))
    return cases


def spread_of_masked_logits(evidence: Evidence) -> list[Case]:
    """Deviation of the maximum logits on masked distilled images minus that on unmasked ones, in nats."""
    cases = []
    for groups in _compared(evidence):
        row = groups["DDNN"]
        unmasked = _deviations(evidence, row, "own.max_logit")
        for key in sorted(evidence.features[row]):
            if key.startswith("masked."):
                masked = _deviations(evidence, row, key)
                ratio = key.removesuffix(".max_logit")
                cases.append(Case(row, ratio, *_paired(masked, unmasked)))
    return cases


def separable_early(evidence: Evidence, masked: bool) -> list[Case]:
    """How much better neighbours on the maps of all blocks but the last tell the class than on other maps.

    Args:
        masked: sets distilled with masks beside those without, in place of distilled sets beside full data.
    """
    if masked:
        of_families = families(evidence.results.rows)
        pairs = [(family.mdt, family.plain) for family in of_families if family.mdt]
    else:
        pairs = [(groups["DDNN"], groups.get("FDNN", "")) for groups in _compared(evidence)]
    cases = []
    for row, other in pairs:
        if row in evidence.features and other in evidence.features:
            cases += _separable_pair(evidence, row, other)
    return cases


def _separable_pair(evidence: Evidence, row: str, other: str) -> list[Case]:
    """A case for each block but the last, of the same images on both maps."""
    prefix = "tsne.cross_entropy."
    blocks = sorted(key for key in evidence.features[row] if key.startswith(prefix))
    labels = evidence.features[row]["tsne.labels"]
    cases = []
    for key in blocks[:-1]:
        own = nearest_is_alike(evidence.features[row][key], labels)
        beside = nearest_is_alike(evidence.features[other][key], labels)
        differences = own.astype(float) - beside
        half = NORMAL * differences.std(ddof=1) / np.sqrt(len(differences))
        mean = float(differences.mean())
        block = key.removeprefix(prefix)
        cases.append(Case(row, f"{other}, {block}", mean, mean - half, mean + half))
    return cases


def nearest_is_alike(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the nearest other point has the same label: `(n,)` of `(n, 2)` points."""
    points = points.astype(float)
    distances = np.square(points[:, None] - points[None]).sum(2)
    np.fill_diagonal(distances, np.inf)
    return labels[distances.argmin(1)] == labels


def lost_by_dropping(evidence: Evidence, masked: bool) -> list[Case]:
    """By how much more accuracy a set loses than another when its largest singular values are dropped.

    It is the loss at the largest share that was tried.

    Args:
        masked: sets distilled with masks beside those without, in place of distilled sets beside full data.
    """
    results = evidence.results
    dropped = {name: values["dropped"] for name, values in evidence.decomposed.items() if values["dropped"]}
    pairs = _masked_pairs(results) if masked else _pairs_with_full(results)
    cases = []
    for row, other in pairs:
        if row in dropped and other in dropped:
            cases.append(Case(row, other, *_apart(_lost(dropped[row]), _lost(dropped[other]))))
    return cases


def _lost(points: list[dict]) -> np.ndarray:
    """The accuracy that each repeat loses from the smallest share that is dropped to the largest."""
    ordered = sorted(points, key=lambda point: point["share"])
    return np.subtract(ordered[0]["accuracy"], ordered[-1]["accuracy"])


def explained_by_few(evidence: Evidence) -> list[Case]:
    """Area under the cumulative explained ratio minus that of the full data. It has no interval."""
    cases = []
    for row, other in _pairs_with_full(evidence.results):
        if row in evidence.decomposed and other in evidence.decomposed:
            value = _area(evidence.decomposed[row]) - _area(evidence.decomposed[other])
            cases.append(Case(row, other, value, value, value))
    return cases


def _area(decomposed: dict) -> float:
    """From 0.5, where all components explain alike, to 1, where the first explains all."""
    explained = cumulative_ratio(np.array(decomposed["singular_values"]))
    return float(np.mean((explained[1:] + explained[:-1]) / 2))


MEASURES: dict[str, Callable[..., list[Case]]] = {
    "over_confidence": over_confidence,
    "over_confidence_beside_real": over_confidence_beside_real,
    "ece_beside_raw": ece_beside_raw,
    "ece_beside_best": ece_beside_best,
    "ece_beside_method": ece_beside_method,
    "accuracy_beside_raw": accuracy_beside_raw,
    "masked_beside_unmasked": masked_beside_unmasked,
    "masked_distillation": masked_distillation,
    "spread_of_logits": spread_of_logits,
    "spread_of_masked_logits": spread_of_masked_logits,
    "separable_early": separable_early,
    "lost_by_dropping": lost_by_dropping,
    "explained_by_few": explained_by_few,
}


def _masked_pairs(results: Results) -> list[tuple[str, str]]:
    """Every set that was distilled with masks, and the same without."""
    pairs = []
    for family in families(results.rows):
        for masked in (family.mdt, family.mdt_ds):
            if masked:
                pairs.append((masked, family.plain))
    return pairs


def _pairs_with_full(results: Results) -> list[tuple[str, str]]:
    """Every plain distilled set, and the full data of its data set."""
    full = {row.dataset: name for name, row in results.rows.items() if row.method == "full"}
    pairs = []
    for name in distilled_plain(results):
        dataset = results.rows[name].dataset
        if dataset in full:
            pairs.append((name, full[dataset]))
    return pairs


def _compared(evidence: Evidence) -> list[dict[str, str]]:
    """The rows that Figures 2(a), 4 and 7 compare, by group of networks, for each suite that has them."""
    rows = evidence.results.rows
    suites: dict[str, list[str]] = {}
    for name in evidence.features:
        if name in rows:
            suites.setdefault(rows[name].suite, []).append(name)
    groups = [compared_rows(rows, names) for names in suites.values()]
    return [of_suite for of_suite in groups if of_suite]


def _deviations(evidence: Evidence, row: str, key: str) -> np.ndarray:
    """The standard deviation of the maximum logits of each network."""
    return evidence.features[row][key].astype(float).std(1)


def _numbers(results: Results, row: str, method: str, number: str) -> np.ndarray:
    numbers: dict[str, Any] = results.method(row, method) or {}
    return np.array(numbers[number], float)


def _paired_methods(results: Results, row: str, method: str, beside: str, number: str) -> Case:
    values = _numbers(results, row, method, number)
    return Case(row, beside, *_paired(values, _numbers(results, row, beside, number)))


def _paired(values: Sequence[float] | np.ndarray, beside: Sequence[float] | np.ndarray) -> tuple:
    """Mean difference of networks with the same number, and its interval by Student's t."""
    if len(values) != len(beside):
        return _apart(values, beside)
    return _interval(np.subtract(values, beside))


def _apart(values: Sequence[float] | np.ndarray, beside: Sequence[float] | np.ndarray) -> tuple:
    """Difference of the means of networks that have nothing in common, and its interval by Welch's t."""
    difference = float(np.mean(values) - np.mean(beside))
    if min(len(values), len(beside)) < 2:
        return difference, np.nan, np.nan
    parts = np.array([np.var(numbers, ddof=1) / len(numbers) for numbers in (values, beside)])
    variance = parts.sum()
    if variance == 0:
        return difference, difference, difference
    freedom = variance**2 / (parts**2 / [len(values) - 1, len(beside) - 1]).sum()
    half = float(stdtrit(freedom, LEVEL) * np.sqrt(variance))
    return difference, difference - half, difference + half


def _interval(values: np.ndarray, of_images: float = 0.0) -> tuple:
    """Mean of one number a network, and its interval by Student's t.

    Args:
        of_images: the variance of the mean over test images, which all networks share.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    of_networks = values.var(ddof=1) / len(values)
    variance = of_networks + of_images
    freedom = np.inf
    if of_networks > 0:
        freedom = (len(values) - 1) * (variance / of_networks) ** 2
    half = float(stdtrit(freedom, LEVEL) * np.sqrt(variance))
    return mean, mean - half, mean + half
