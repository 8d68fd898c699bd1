"""evaluate: test logits and temperatures of every row -> accuracy and calibration of every method.

    python -m stages.evaluate [<row> ...]

Temperatures were fitted without test images; here they are judged on them.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stages.calibrators.optimum import optimum
from stages.machine.cores import on_all_cores
from stages.metrics.adaptive_ece import adaptive_ece
from stages.metrics.bootstrap import ece_resampled, estimate, smooth_ece_resampled, weights
from stages.metrics.classwise_ece import classwise_ece
from stages.metrics.ece import ece, reliability
from stages.metrics.scores import log_softmax, scores
from stages.metrics.smooth_ece import CURVE, smooth_accuracy, smooth_ece
from stages.runtime.errors import run_stage
from stages.runtime.files import read_about, read_arrays, read_result, write_json, write_result, write_text
from stages.runtime.reuse import code_version, fingerprint, former_result
from stages.settings.evaluate import EvaluateSettings
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.tools.records import recorded

__all__ = ["Method", "evaluate", "methods_of"]

SMOOTH_RESAMPLES = 200  # of the test images, for the interval of the smooth ECE, which takes longer
SWEPT = np.geomspace(0.25, 4, 25)  # temperatures; the one in the middle is 1


class Method(NamedTuple):
    """A way to probabilities: logits of some networks, divided by a temperature each."""

    networks: str  # the group of networks
    temperatures: list[float]  # one a repeat
    bound_hits: list[bool]  # whether the fit ended on a bound


def methods_of(
    logits: dict[str, np.ndarray], fitted: dict, shipped: dict, labels: np.ndarray, bounds: list[float]
) -> dict[str, Method]:
    """The methods of the paper by name, and more.

    `shipped` is the temperature that comes with the set. `mts_holdout` is MTS on images that were held out of
    training. `<method>_converged` is the exact minimiser on the images of a fitted method. `fixed` is the
    first temperature of the LBFGS runs, and fits nothing. `oracle` is the only method that sees test labels:
    the best NLL that one temperature can reach.

    Args:
        logits: `(repeats, N, K)` of each group of networks.
        fitted: what `calibrate` has written.
        shipped: what `temperature` has written; {} without.
        labels: `(N,)`.
    """
    repeats = len(logits["cross_entropy"])
    not_fitted = [False] * repeats
    methods = {"raw": Method("cross_entropy", [1.0] * repeats, not_fitted)}
    for group in logits:
        if group not in ("cross_entropy", "holdout"):
            methods[group] = Method(group, [1.0] * repeats, not_fitted)
    for name, fits in fitted["methods"].items():
        early = fits["early_stopped"]
        exact = fits["converged"]
        methods[name] = Method(fits["networks"], early["temperature"], early["bound_hit"])
        methods[f"{name}_converged"] = Method(fits["networks"], exact["temperature"], exact["bound_hit"])
    if shipped:
        temperatures = [shipped["temperature"]] * repeats
        methods["shipped"] = Method("cross_entropy", temperatures, [shipped["bound_hit"]] * repeats)
    methods["fixed"] = Method("cross_entropy", [fitted["start"]] * repeats, not_fitted)
    best = [optimum(z, labels, bounds) for z in logits["cross_entropy"]]
    methods["oracle"] = Method(
        "cross_entropy", [fit.temperature for fit in best], [fit.bound_hit for fit in best]
    )
    return methods


class TestImages(NamedTuple):
    """What every method of a row is measured on."""

    labels: np.ndarray  # (N,)
    resamples: np.ndarray  # (R, N): how often each image is in each resample
    bins: int


class Confidence(NamedTuple):
    """One network's top class."""

    confidence: np.ndarray  # (N,)
    right: np.ndarray  # (N,) bool


class Errors(NamedTuple):
    """The ECE of the networks of a method."""

    own: np.ndarray  # (S,), on the test images
    resampled: np.ndarray  # (S, R), on each resample of them


def errors_of(method: Method, logits: dict[str, np.ndarray], images: TestImages) -> Errors:
    log_p = log_probabilities(method, logits)
    own = [ece(np.exp(of_network), images.labels, images.bins) for of_network in log_p]
    tops = [top_class(of_network, images.labels) for of_network in log_p]
    return Errors(np.array(own), resampled_ece(tops, images))


def top_class(log_p: np.ndarray, labels: np.ndarray) -> Confidence:
    return Confidence(np.exp(log_p.max(1)), log_p.argmax(1) == labels)


def log_probabilities(method: Method, logits: dict[str, np.ndarray]) -> list[np.ndarray]:
    """`(N, K)` of each repeat."""
    return [log_softmax(z / t) for z, t in zip(logits[method.networks], method.temperatures)]


def resampled_ece(tops: list[Confidence], images: TestImages) -> np.ndarray:
    """The ECE of each network in each resample of the test images: `(S, R)`."""
    return np.stack([ece_resampled(*top, images.resamples, images.bins) for top in tops])


def resampled_smooth_ece(tops: list[Confidence], images: TestImages) -> np.ndarray:
    """The smooth ECE of each network in the first resamples of the test images: `(S, SMOOTH_RESAMPLES)`."""
    few = images.resamples[:SMOOTH_RESAMPLES]
    return np.stack([smooth_ece_resampled(*top, few) for top in tops])


def smoothed(tops: list[Confidence]) -> dict[str, list]:
    """The smooth reliability diagram of each network: `confidence` `(M,)`, and `accuracy` `(S, M)` there.

    None stands where a network has next to no prediction.
    """
    accuracies = []
    for top in tops:
        curve = smooth_accuracy(*top)
        accuracies.append([None if np.isnan(value) else round(value, 4) for value in curve.tolist()])
    return {"confidence": CURVE.tolist(), "accuracy": accuracies}


def further_scores(log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Calibration errors beside the paper's, of `(N, K)` log-probabilities; shares in [0, 1]."""
    p = np.exp(log_p)
    return {
        "ece_15": ece(p, labels, 15),
        "adaptive_ece": adaptive_ece(p, labels),
        "classwise_ece": classwise_ece(p, labels),
        "smooth_ece": smooth_ece(p.max(1), p.argmax(1) == labels),
    }


def measured(method: Method, logits: dict[str, np.ndarray], images: TestImages, raw: Errors) -> dict:
    """Every score of a method by repeat, its reliability diagrams, and 95 % intervals.

    The intervals are of the mean over repeats, over networks and test images together.
    """
    log_p = log_probabilities(method, logits)
    result: dict = {}
    for repeat, of_repeat in enumerate(log_p):
        numbers = scores(of_repeat, images.labels, images.bins)
        numbers |= further_scores(of_repeat, images.labels)
        numbers["temperature"] = method.temperatures[repeat]
        for key, value in numbers.items():
            result.setdefault(key, []).append(value)
    tops = [top_class(of_network, images.labels) for of_network in log_p]
    errors = Errors(np.array(result["ece"]), resampled_ece(tops, images))
    own_smooth = np.array(result["smooth_ece"])
    pooled = np.exp(np.concatenate(log_p))
    diagram = reliability(pooled, np.tile(images.labels, len(log_p)), images.bins)
    estimates = {
        "ece": estimate(*errors),
        "smooth_ece": estimate(own_smooth, resampled_smooth_ece(tops, images)),
        "difference_to_raw": estimate(errors.own - raw.own, errors.resampled - raw.resampled),
    }
    return result | {
        "bound_hit": method.bound_hits,
        "interval": {key: estimates[key][1:] for key in ("ece", "smooth_ece")},
        "difference_to_raw": estimates["difference_to_raw"][1:],
        "corrected": {key: value for key, (value, _, _) in estimates.items()},
        "reliability": {key: values.tolist() for key, values in diagram.items()},
        "smooth": smoothed(tops),
    }


def sweep(logits: dict[str, np.ndarray], labels: np.ndarray, bins: int) -> dict[str, Any]:
    """The ECE and the reliability diagram of every group of networks at each of some temperatures.

    The ECE is the mean over networks; the diagram is of all networks together.
    """
    groups: dict[str, dict[str, list]] = {}
    for group, of_group in logits.items():
        groups[group] = {}
        for temperature in SWEPT:
            p = [np.exp(log_softmax(z / temperature)) for z in of_group]
            eces = [ece(of_network, labels, bins) for of_network in p]
            diagram = reliability(np.concatenate(p), np.tile(labels, len(p)), bins)
            numbers = {"ece": round(float(np.mean(eces)), 5)}
            numbers |= {key: values.round(4).tolist() for key, values in diagram.items()}
            for key, value in numbers.items():
                groups[group].setdefault(key, []).append(value)
    return {"temperatures": SWEPT.round(4).tolist(), "groups": groups}


def evaluate(settings: EvaluateSettings, bounds: list[float], row: Row) -> None:
    """Write all numbers to `row.results`, and means in percent to `row.metrics` for `dvc metrics`.

    A method's former numbers are kept where its logits, temperatures and the code are the same.
    """
    logits = read_arrays(row.logits)
    labels = logits.pop("labels")
    fitted = read_result(row.temperatures)
    methods = methods_of(logits, fitted, read_result(row.shipped, {}), labels, bounds)
    common = fingerprint(labels, settings.model_dump(), code_version("evaluate"))
    hashes = {group: fingerprint(values) for group, values in logits.items()}
    former_results = former_result(row.results)
    former = former_results.get("methods", {})
    made_from = {}
    for name, method in methods.items():
        compared = hashes["cross_entropy"]  # every method's difference to Raw depends on Raw's logits
        made_from[name] = fingerprint(common, compared, hashes[method.networks], method)
    changed = [name for name in methods if former.get(name, {}).get("made_from") != made_from[name]]
    if changed:
        images = TestImages(labels, weights(len(labels), settings.resamples, 0), settings.bins)
        raw = errors_of(methods["raw"], logits, images)
    results = {}
    for name, method in methods.items():
        if name in changed:
            results[name] = measured(method, logits, images, raw) | {"made_from": made_from[name]}
        else:
            results[name] = former[name]
    whole = {"row": row.name, "mask_ratio": fitted["mask_ratio"], "test_images": len(labels)}
    whole |= training_of(row)
    whole["sweep"] = swept(former_results.get("sweep", {}), logits, labels, settings.bins)
    whole["methods"] = results
    if whole != former_results:  # an untouched file keeps the record of the run that made it
        write_result(row.results, whole)
    write_json(row.metrics, metrics_of(results))
    write_text(row.reliability, bins_as_csv(results))


def swept(
    former: dict[str, Any], logits: dict[str, np.ndarray], labels: np.ndarray, bins: int
) -> dict[str, Any]:
    """The `sweep` of a row: the former one where it was made from the same logits by the same code."""
    made_from = fingerprint(labels, bins, code_version("evaluate"), *logits.values())
    if former.get("made_from") == made_from:
        return former
    return sweep(logits, labels, bins) | {"made_from": made_from}


def training_of(row: Row) -> dict[str, float]:
    """`step_size` of the row's networks, and how many `sets` they are trained on, one after the other."""
    about = read_about(row.weights)
    return {key: about[key] for key in ("step_size", "sets")}


def metrics_of(results: dict[str, dict]) -> dict[str, float]:
    """Means in percent: the ECE of every method, and the accuracy of Raw, which no temperature changes."""
    means = {"accuracy": np.mean(results["raw"]["accuracy"])}
    for name, numbers in results.items():
        means[f"ece_{name}"] = np.mean(numbers["ece"])
    return {key: round(100 * float(mean), 3) for key, mean in means.items()}


def bins_as_csv(results: dict[str, dict]) -> str:
    """A line for each bin of each method's reliability diagram that has predictions, for `dvc plots`."""
    lines = ["method,confidence,accuracy,share"]
    for method, numbers in results.items():
        diagram = numbers["reliability"]
        total = sum(diagram["count"])
        for count, confidence, accuracy in zip(diagram["count"], diagram["confidence"], diagram["accuracy"]):
            if count:
                lines.append(f"{method},{confidence:.4f},{accuracy:.4f},{count / total:.4f}")
    return "\n".join(lines) + "\n"


def main(*names: str) -> None:
    settings = parse(EvaluateSettings, param("evaluate"), "params.yaml: evaluate")
    rows = finished_rows("evaluate", names, lambda row: row.temperatures)
    on_all_cores(partial(evaluate, settings, param("calibrate.bounds")), rows)


if __name__ == "__main__":
    run_stage(recorded(main))
