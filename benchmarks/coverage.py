"""How often the 95 % intervals of ECE contain the truth, on networks and test images that are made up.

    python -m benchmarks.coverage [--trials 1000] [--resamples 400]

A made-up network has a confidence for each image that is off by a slope of its own, so its true ECE is known
to any precision. In each trial, five networks are drawn and shown one test set. Two intervals are counted:
that of the mean ECE, and that of its difference to the ECE of the same networks at a temperature.

Writes reports/benchmarks/coverage.json. It takes about five minutes on one core.
"""

import argparse
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import FOLDER, machine
from benchmarks.table import markdown
from stages.metrics.bootstrap import Estimate, ece_resampled, estimate, weights
from stages.metrics.ece import bin_of
from stages.runtime.errors import run_stage
from stages.runtime.files import write_json

__all__ = ["World", "coverage", "main", "true_ece"]

NETWORKS = 5
BINS = 10
SHARED = 1.3  # standard deviation of what all networks think of an image
OWN = 0.7  # and of what a network thinks of it besides
LUCK = 0.5  # share of the images that all networks get right or wrong together, as far as they agree on them
COOLER = 0.3  # a temperature takes this off every slope
GRID = np.linspace(-8, 8, 8001) * np.hypot(SHARED, OWN)


class World(NamedTuple):
    """What networks and test sets are drawn from."""

    images: int  # of a test set
    slope: float  # mean over networks; 0 is calibrated, above is over-confident
    spread: float  # standard deviation of the slope over networks


def accuracy(thought: np.ndarray) -> np.ndarray:
    """The chance that a network is right about an image that it thinks this of."""
    return 1 / (1 + np.exp(-np.abs(thought) - 0.2))


def confidence(thought: np.ndarray, slope: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.abs(thought) + 0.2) * np.exp(slope)))


def true_ece(slope: float) -> float:
    """The ECE of a network with this slope on infinitely many images."""
    density = np.exp(-((GRID / np.hypot(SHARED, OWN)) ** 2) / 2)
    shown = confidence(GRID, slope)
    gaps = density / density.sum() * (accuracy(GRID) - shown)
    return float(np.abs(np.bincount(bin_of(shown, BINS), gaps, BINS)).sum())


def truth(world: World, change: float = 0.0) -> float:
    """The mean of `true_ece` over all networks of a world, whose slopes are changed."""
    normal = np.random.default_rng(0).standard_normal(2000)
    mirrored = np.concatenate([normal, -normal])  # so that their mean is 0
    return float(np.mean([true_ece(world.slope + world.spread * x + change) for x in mirrored]))


class Drawn(NamedTuple):
    """Networks on a test set, `(NETWORKS, images)` each."""

    thought: np.ndarray
    right: np.ndarray
    slope: np.ndarray  # (NETWORKS, 1)


def draw(world: World, rng: np.random.Generator) -> Drawn:
    size = (NETWORKS, world.images)
    thought = SHARED * rng.standard_normal(world.images) + OWN * rng.standard_normal(size)
    is_shared = rng.random(world.images) < LUCK
    luck = np.where(is_shared, rng.random(world.images), rng.random(size))
    slope = world.slope + world.spread * rng.standard_normal((NETWORKS, 1))
    return Drawn(thought, luck < accuracy(thought), slope)


def errors(shown: np.ndarray, right: np.ndarray, resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ECE of each network, on the test set and on its resamples."""
    once = np.ones((1, right.shape[1]))
    own = [ece_resampled(*network, once, BINS)[0] for network in zip(shown, right)]
    resampled = [ece_resampled(*network, resamples, BINS) for network in zip(shown, right)]
    return np.array(own), np.stack(resampled)


def coverage(world: World, trials: int, resamples: int, seed: int = 0) -> dict[str, Any]:
    """The shares of intervals that contain the true ECE and the true difference, and their mean widths."""
    drawn_weights = weights(world.images, resamples, seed)
    ece, cooler_ece = truth(world), truth(world, -COOLER)
    intervals: dict[str, list[Estimate]] = {"ece": [], "difference": []}
    for trial in range(trials):
        drawn = draw(world, np.random.default_rng([seed, trial]))
        own, resampled = errors(confidence(drawn.thought, drawn.slope), drawn.right, drawn_weights)
        cooler = errors(confidence(drawn.thought, drawn.slope - COOLER), drawn.right, drawn_weights)
        intervals["ece"].append(estimate(own, resampled))
        intervals["difference"].append(estimate(cooler[0] - own, cooler[1] - resampled))
    result: dict[str, Any] = world._asdict()
    for name, true in {"ece": ece, "difference": cooler_ece - ece}.items():
        contains = [one.low <= true <= one.high for one in intervals[name]]
        widths = [one.high - one.low for one in intervals[name]]
        result[name] = {"true": true, "coverage": float(np.mean(contains)), "width": float(np.mean(widths))}
    return result


def table(worlds: list[dict[str, Any]]) -> str:
    """The shares of intervals that contain the truth, in percent."""
    lines = []
    for world in worlds:
        line = [f"{world['images']:,}", f"{world['spread']:g}"]
        for name in ("ece", "difference"):
            numbers = world[name]
            line += [f"{100 * numbers['true']:.1f}", f"{100 * numbers['coverage']:.1f}"]
        lines.append(line)
    head = ["test images", "spread of networks", "true ECE", "covered", "true difference", "covered"]
    return markdown(head, lines)


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400)
    given = parser.parse_args(words)
    worlds = []
    for values in product((450, 2000), (0.0, 0.2, 0.6), (0.03, 0.2)):
        worlds.append(coverage(World(*values), given.trials, given.resamples))
    about = {"trials": given.trials, "resamples": given.resamples, "networks": NETWORKS}
    write_json(FOLDER / "coverage.json", about | machine() | {"worlds": worlds})
    print(table(worlds))


if __name__ == "__main__":
    run_stage(main)
