"""The converged temperature from the logits of 100,000 images of 1000 classes.

    python -m benchmarks.calibrate [runs]

The plain way is torch.optim.LBFGS on all logits until it stands still, as the public code of temperature
scaling would do if it were left to run. Ours has to agree with a bisection in float64, to 1e-10, on the same
logits; how far either way is off is written. Each way runs in a process of its own.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Prepared, compared, each_way, main_or_measure, measured, rates, report
from stages.calibrators.optimum import optimum

__all__ = ["exact", "made", "temperature"]

IMAGES = 100_000
CLASSES = 1000
BOUNDS = [0.05, 20.0]


def made(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(images, classes)` in float32 and labels, right for some images and wrong for others."""
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 3, (images, classes)).astype(np.float32)
    labels = draws.integers(0, classes, images)
    logits[np.arange(images), labels] += 6 * draws.random(images, np.float32)
    return logits, labels


def temperature(way: str, images: int, classes: int) -> Prepared:
    """The fit, and its temperature."""
    logits, labels = made(images, classes)
    if way == "ours":
        work = partial(our_fit, logits, labels)
    else:
        work = partial(plain_fit, torch.from_numpy(logits), torch.from_numpy(labels))
    return Prepared(work, work())


def our_fit(logits: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    return torch.tensor(optimum(logits, labels, BOUNDS).temperature, dtype=torch.float64)


def plain_fit(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    temperature = torch.tensor(1.5, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-7
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    optimiser.step(closure)
    return temperature.detach().double()


def exact(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature by halving the range of 1/T until the slope of the loss vanishes, in float64."""
    low = 1 / BOUNDS[1]
    high = 1 / BOUNDS[0]
    while high / low - 1 > 1e-10:
        middle = (low * high) ** 0.5
        if slope(logits, labels, middle) < 0:
            low = middle
        else:
            high = middle
    return 1 / (low * high) ** 0.5


def slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> float:
    """The derivative of the summed loss by 1/T."""
    total = 0.0
    for z, y in zip(np.array_split(logits, 100), np.array_split(labels, 100)):
        z = z.astype(np.float64)
        p = np.exp(inverse * (z - z.max(1, keepdims=True)))
        mean = (p * z).sum(1) / p.sum(1)
        total += float((mean - z[np.arange(len(y)), y]).sum())
    return total


def measure(way: str, runs: str, file: str) -> None:
    measured(temperature(way, IMAGES, CLASSES), int(runs), file)


def main(runs: str = "5") -> None:
    ways, results_of_ways = each_way("benchmarks.calibrate", ("plain", "ours"), runs)
    temperatures = {way: float(result) for way, result in results_of_ways.items()}
    best = exact(*made(IMAGES, CLASSES))
    assert abs(temperatures["ours"] / best - 1) < 1e-4, f"T is {temperatures['ours']}, the best is {best}"
    limit = rates()
    bytes_of_logits = IMAGES * CLASSES * 4
    floor = bytes_of_logits / (limit["copied_bytes"] / 2)  # to read them once
    results = []
    for way, numbers in compared(ways).items():
        off_by = temperatures[way] / best - 1
        result = {"floor": floor, "temperature": temperatures[way], "off_by": off_by}
        results.append({"way": way, **numbers, **result})
    settings = {
        "runs": int(runs),
        "unit": "seconds, MiB",
        "images": IMAGES,
        "classes": CLASSES,
        "best": best,
        "rates": limit,
    }
    report("calibrate", settings, results)


if __name__ == "__main__":
    main_or_measure(main, measure)
