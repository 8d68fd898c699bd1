"""The converged temperature from the logits of 100,000 images of 1000 classes.

    python -m benchmarks.calibrate [runs]

The plain way: torch.optim.LBFGS on all logits until it stands still, as the public code of temperature scaling would do if it
were left to run. Both are held against a bisection in float64, to 1e-10, on the same logits. Each way is a process of its own.
"""

import json
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.measure import compared, in_process, measured, rates, report
from stages.calibrators.optimum import optimum

IMAGES, CLASSES, BOUNDS = 100_000, 1000, (0.05, 20.0)


def made(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(images, classes)` in float32 and labels, right for some images and wrong for others."""
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 3, (images, classes)).astype(np.float32)
    labels = draws.integers(0, classes, images)
    logits[np.arange(images), labels] += 6 * draws.random(images, np.float32)
    return logits, labels


def fit(way: str, images: int, classes: int) -> Callable[[], torch.Tensor]:
    """The work: the temperature."""
    logits, labels = made(images, classes)
    if way == "ours":
        return lambda: torch.tensor(optimum(logits, labels, BOUNDS).temperature, dtype=torch.float64)
    logits, labels = torch.from_numpy(logits), torch.from_numpy(labels)

    def plain() -> torch.Tensor:
        temperature = torch.tensor(1.5, requires_grad=True)
        optimiser = torch.optim.LBFGS([temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

        def closure():
            optimiser.zero_grad()
            loss = F.cross_entropy(logits / temperature, labels)
            loss.backward()
            return loss

        optimiser.step(closure)
        return temperature.detach().double()

    return plain


def exact(logits: np.ndarray, labels: np.ndarray) -> float:
    """Halving 1/T until the slope of the loss vanishes, in float64."""
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    while high / low - 1 > 1e-10:
        b, total = (low * high) ** 0.5, 0.0
        for z, y in zip(np.array_split(logits, 100), np.array_split(labels, 100)):
            z = z.astype(np.float64)
            p = np.exp(b * (z - z.max(1, keepdims=True)))
            total += float(((p * z).sum(1) / p.sum(1) - z[np.arange(len(y)), y]).sum())
        low, high = (b, high) if total < 0 else (low, b)
    return 1 / (low * high) ** 0.5


def measure(way: str, runs: int, file: str) -> None:
    """In a process of its own; see `measured`."""
    work = fit(way, IMAGES, CLASSES)
    print(json.dumps(measured(work(), work, runs, file)))


def main(runs: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {way: in_process("benchmarks.calibrate", way, runs, f"{folder}/{way}") for way in ("plain", "ours")}
        temperatures = {way: float(load_file(f"{folder}/{way}")["result"]) for way in found}
    best, limit = exact(*made(IMAGES, CLASSES)), rates()
    assert abs(temperatures["ours"] / best - 1) < 1e-4, f"T is {temperatures['ours']}, the best is {best}"
    floor = IMAGES * CLASSES * 4 / (limit["copied_bytes"] / 2)  # the logits read once
    results = [{"way": way, **values, "floor": floor, "temperature": temperatures[way], "off_by": temperatures[way] / best - 1} for way, values in compared(found).items()]
    report("calibrate", {"runs": runs, "unit": "seconds, MiB", "images": IMAGES, "classes": CLASSES, "best": best, "rates": limit}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main(*(int(word) for word in sys.argv[1:]))
