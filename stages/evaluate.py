"""evaluate: test logits and temperatures of a row -> accuracy and calibration of every method, repeat by repeat.

    python -m stages.evaluate <row>
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.calibrators.optimum import optimum
from stages.metrics.adaptive_ece import adaptive_ece
from stages.metrics.bootstrap import ece_resampled, interval, smooth_ece_resampled, weights
from stages.metrics.classwise_ece import classwise_ece
from stages.metrics.ece import ece, reliability
from stages.metrics.scores import log_softmax, scores
from stages.metrics.smooth_ece import smooth_ece
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.settings import Count, Section, find, param, parse

__all__ = ["EvaluateSettings", "evaluate"]


class EvaluateSettings(Section):
    """`evaluate` of params.yaml."""

    bins: Count
    resamples: Count  # of the test images, for the intervals


def methods(logits: dict[str, np.ndarray], labels: np.ndarray, fitted: dict, bounds: tuple[float, float]) -> dict[str, tuple[str, list[float], list[bool]]]:
    """Method -> the group of networks it uses, its temperature and whether that is a bound, repeat by repeat.

    Beyond the paper's columns: `*_converged`, the exact minimiser on the same images; `fixed`, the LBFGS runs' starting
    value and no fit at all; `oracle`, the one method that sees test labels, the best that one temperature can do in NLL.
    """
    repeats = len(logits["cross_entropy"])
    plain = [False] * repeats
    found = {"raw": ("cross_entropy", [1.0] * repeats, plain)}
    for group in logits:
        if group not in ("cross_entropy", "holdout"):
            found[group] = (group, [1.0] * repeats, plain)
    for name, fit in fitted["methods"].items():
        found[name] = (fit["networks"], *fit["early_stopped"].values())
        found[f"{name}_converged"] = (fit["networks"], *fit["converged"].values())
    found["fixed"] = ("cross_entropy", [fitted["start"]] * repeats, plain)
    best = [optimum(z, labels, bounds) for z in logits["cross_entropy"]]
    found["oracle"] = ("cross_entropy", [fit.temperature for fit in best], [fit.bound_hit for fit in best])
    return found


def evaluate(settings: EvaluateSettings, bounds: tuple[float, float], name: str, logits_file: Path, temperatures: Path, file: Path, metrics: Path) -> None:
    """Write all numbers to `file` and their means in percent to `metrics`, which `dvc metrics` reads.

    Of each method: `scores` and `further`, one number a repeat; the pooled networks' reliability diagram; and 95 %
    bootstrap intervals over test images of the mean over repeats, of `ece`, `smooth_ece` and the ECE's difference to Raw's.
    """
    logits = load_file(logits_file)
    labels = logits.pop("labels")
    fitted = json.loads(temperatures.read_text())
    draws = weights(len(labels), settings.resamples, 0)
    result, resampled = {}, {}
    for method, (group, temperature, bound_hit) in methods(logits, labels, fitted, bounds).items():
        log_p = [log_softmax(z / t) for z, t in zip(logits[group], temperature)]
        each = [scores(one, labels, settings.bins) | further(one, labels) | {"temperature": t} for one, t in zip(log_p, temperature)]
        tops = [(np.exp(one.max(1)), one.argmax(1) == labels) for one in log_p]
        resampled[method] = np.mean([ece_resampled(*top, draws, settings.bins) for top in tops], 0)
        pooled = np.exp(np.concatenate(log_p))
        result[method] = {key: [one[key] for one in each] for key in each[0]} | {
            "bound_hit": bound_hit,
            "interval": {"ece": interval(resampled[method]), "smooth_ece": interval(np.mean([smooth_ece_resampled(*top, draws) for top in tops], 0))},
            "difference_to_raw": interval(resampled[method] - resampled["raw"]),
            "reliability": {key: value.tolist() for key, value in reliability(pooled, np.tile(labels, len(each)), settings.bins).items()},
        }
    write_json(file, {"row": name, "mask_ratio": fitted["mask_ratio"], "test_images": len(labels), "methods": result})
    percent = {f"ece_{method}": 100 * float(np.mean(values["ece"])) for method, values in result.items()}
    accuracies = {"accuracy": 100 * float(np.mean(result["raw"]["accuracy"]))}
    write_json(metrics, {key: round(value, 3) for key, value in (accuracies | percent).items()})


def further(log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Calibration errors beside the paper's, of `(N, K)` log-probabilities; shares in [0, 1]."""
    p = np.exp(log_p)
    return {
        "ece_15": ece(p, labels, 15),
        "adaptive_ece": adaptive_ece(p, labels),
        "classwise_ece": classwise_ece(p, labels),
        "smooth_ece": smooth_ece(p.max(1), p.argmax(1) == labels),
    }


def main(name: str) -> None:
    find("runs", name)
    evaluate(
        parse(EvaluateSettings, param("evaluate"), "params.yaml: evaluate"),
        param("calibrate")["bounds"],
        name,
        Path("data/train") / name / "logits.safetensors",
        Path("data/calibrate") / f"{name}.json",
        Path("data/evaluate") / f"{name}.json",
        Path("reports/metrics") / f"{name}.json",
    )


if __name__ == "__main__":
    run_stage(main)
