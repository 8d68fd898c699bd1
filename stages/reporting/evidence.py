"""What speaks for or against a claim: a number with a 95 % interval for every row or pair of rows.

Every measure is a function of results that reads no files. Shares are in [0, 1]. Rows of real images
(`random`, `kmeans`) and of the full data never count as distilled, and quick rows never count.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.reporting.cells import Results
from stages.reporting.decompositions import cumulative_ratio
from stages.reporting.differences import apart, interval, paired
from stages.reporting.each_set_once import each_set_once
from stages.reporting.families import families
from stages.reporting.paper_cells import SUITES
from stages.reporting.paper_tables import COMPARABLE, best_other
from stages.reporting.rows_of_figures import REFERENCES, compared_rows, kind_of_images

__all__ = ["MEASURES", "Case", "Evidence", "distilled_plain", "over_confidence", "place", "with_all"]


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
    is_of_paper = keys.suite in SUITES and keys.budget in COMPARABLE
    return COMPARABLE.index(str(keys.budget)) if is_of_paper else len(COMPARABLE)


def distilled_plain(results: Results) -> list[str]:
    """The rows with results of sets distilled without masks, each set once, as `place` orders them."""
    names = []
    for name, row in results.rows.items():
        is_distilled = row.method not in REFERENCES and row.budget != "quick"
        if is_distilled and row.mdt == 0 and name in results.evaluated:
            names.append(name)
    return sorted(each_set_once(results.rows, names), key=lambda name: place(results, name))


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
    return Case(name, "", *interval(gaps, accuracy * (1 - accuracy) / images))


def ece_beside_raw(evidence: Evidence, method: str, full: bool = False) -> list[Case]:
    """ECE of a method minus that of Raw, with the interval that `evaluate` has written.

    That of a single network is over test images alone, and decides nothing.

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
        bounds = numbers["difference_to_raw"] if len(ece) > 1 else (np.nan, np.nan)
        cases.append(Case(name, "raw", value, *bounds))
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
            cases.append(_paired_methods(results, name, "mts", best_other(results, name), "ece"))
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
    for name, ablation in _ablations(evidence):
        masked = _fit(ablation, ablation["ratio"], ablation["share"])
        unmasked = _fit(ablation, 0, ablation["share"])
        if masked and unmasked and masked is not unmasked:
            cases.append(Case(name, "no mask", *paired(masked["ece"], unmasked["ece"])))
    return cases


def masked_beside_raw(evidence: Evidence, least: float, largest: float) -> list[Case]:
    """ECE of MTS minus that of Raw at each mask ratio that was tried, from the least to the largest."""
    cases = []
    for name, ablation in _ablations(evidence):
        raw = _numbers(evidence.results, name, "raw", "ece")
        for ratio in sorted({fit["ratio"] for fit in ablation["fits"]}):
            fit = _fit(ablation, ratio, ablation["share"])
            if fit and least <= ratio <= largest:
                cases.append(Case(name, f"raw, at mask ratio {ratio:g}", *paired(fit["ece"], raw)))
    return cases


def many_beside_few(evidence: Evidence) -> list[Case]:
    """ECE of MTS fitted on the largest share of the images that was tried, minus that on the row's own.

    Rows with one image per class have no case, as every share of one image is all of it.
    """
    cases = []
    for name, ablation in _ablations(evidence):
        if evidence.results.rows[name].ipc == 1:
            continue
        ratio = ablation["ratio"]
        largest = max(fit["share"] for fit in ablation["fits"])
        many, few = _fit(ablation, ratio, largest), _fit(ablation, ratio, ablation["share"])
        if many and few and many is not few:
            beside = f"a share of {ablation['share']:g}, not {largest:g}"
            cases.append(Case(name, beside, *paired(many["ece"], few["ece"])))
    return cases


def _ablations(evidence: Evidence) -> list[tuple[str, dict]]:
    """The rows of sets distilled without masks whose MTS was tried at other settings, and the results."""
    names = distilled_plain(evidence.results)
    return [(name, evidence.ablations[name]) for name in names if name in evidence.ablations]


def _fit(ablation: dict, ratio: float, share: float) -> dict | None:
    """The fit at a mask ratio and a share of the images that is else as the row's own."""
    own = (ratio, share, ablation["start"], ablation["steps"])
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
            cases.append(Case(masked, family.plain, *apart(values, plain)))
    return cases


def sampled_beside_fixed(evidence: Evidence) -> list[Case]:
    """ECE of MTS on a set of MDT_ds minus that on the same set with MDT at one mask ratio."""
    results = evidence.results
    cases = []
    for family in families(results.rows):
        if family.mdt and family.mdt_ds and with_all(results, [family.mdt, family.mdt_ds], ["mts"]):
            fixed = _numbers(results, family.mdt, "mts", "ece")
            sampled = _numbers(results, family.mdt_ds, "mts", "ece")
            cases.append(Case(family.mdt_ds, family.mdt, *apart(sampled, fixed)))
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
                cases.append(Case(groups["DDNN"], beside, *apart(distilled, full)))
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
                cases.append(Case(row, ratio, *paired(masked, unmasked)))
    return cases


def separable_early(evidence: Evidence, masked: bool) -> list[Case]:
    """How much better neighbours on the maps of all blocks but the last tell the class than on other maps.

    Args:
        masked: sets distilled with masks beside those without, in place of distilled sets beside full data.
    """
    if masked:
        pairs = _masked_pairs(evidence.results)
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
        block = key.removeprefix(prefix)
        cases.append(Case(row, f"{other}, {block}", *paired(own.astype(float), beside.astype(float))))
    return cases


def nearest_is_alike(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the nearest other point has the same label: `(n,)` of `(n, 2)` points."""
    points = points.astype(float)
    distances = np.square(points[:, None] - points[None]).sum(2)
    np.fill_diagonal(distances, np.inf)
    return labels[distances.argmin(1)] == labels


def lost_by_dropping(evidence: Evidence, masked: bool) -> list[Case]:
    """By how much more accuracy a set loses than another when its largest singular values are dropped.

    Every share of them that was tried has a case.

    Args:
        masked: sets distilled with masks beside those without, in place of distilled sets beside full data.
    """
    results = evidence.results
    dropped = {name: values["dropped"] for name, values in evidence.decomposed.items() if values["dropped"]}
    pairs = _masked_pairs(results) if masked else _pairs_with_real(results, "full")
    cases = []
    for row, other in pairs:
        if row in dropped and other in dropped:
            own, beside = _lost(dropped[row]), _lost(dropped[other])
            for share in sorted(own.keys() & beside.keys()):
                words = f"{other}, {100 * share:g} % dropped"
                cases.append(Case(row, words, *apart(own[share], beside[share])))
    return cases


def _lost(points: list[dict]) -> dict[float, np.ndarray]:
    """The accuracy that each repeat loses by each share that is dropped, beyond what the smallest costs."""
    least, *others = sorted(points, key=lambda point: point["share"])
    return {point["share"]: np.subtract(least["accuracy"], point["accuracy"]) for point in others}


def explained_by_few(evidence: Evidence, masked: bool) -> list[Case]:
    """Area under the cumulative explained ratio minus that of another set with as many images.

    It has no interval. As many images, because fewer need fewer components, whatever they show.

    Args:
        masked: sets distilled with masks beside those without, in place of distilled sets beside random
            real images.
    """
    pairs = _masked_pairs(evidence.results) if masked else _pairs_with_real(evidence.results, "random")
    cases = []
    for row, other in pairs:
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
    "ece_beside_raw": ece_beside_raw,
    "ece_beside_best": ece_beside_best,
    "ece_beside_method": ece_beside_method,
    "accuracy_beside_raw": accuracy_beside_raw,
    "masked_beside_unmasked": masked_beside_unmasked,
    "masked_beside_raw": masked_beside_raw,
    "many_beside_few": many_beside_few,
    "masked_distillation": masked_distillation,
    "sampled_beside_fixed": sampled_beside_fixed,
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


def _pairs_with_real(results: Results, kind: str) -> list[tuple[str, str]]:
    """Every plain distilled set with real images of its data set.

    Args:
        kind: "full", all of them, or "random", as many as the set has.
    """
    pairs = []
    for name in distilled_plain(results):
        row = results.rows[name]
        beside = (row.dataset, kind, row.ipc if kind == "random" else None)
        pairs += [(name, other) for other, real in results.rows.items() if kind_of_images(real) == beside]
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
    return Case(row, beside, *paired(values, _numbers(results, row, beside, number)))
