"""Memory and time of the exact MTT gradient: step-by-step adjoint against the graph of all steps.

    python -m benchmarks.unroll [images] [runs]

The plain way is how the public code does it: all inner steps in one graph, one backward pass. Each measurement is a
process of its own (peak resident memory is a process's), on the 128-wide CIFAR ConvNet; the two ways take turns, and
have to give the same gradient before anything is timed. Writes reports/benchmarks/unroll.json.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from stages.distillers.mtt import matching_loss
from stages.shared.convnet import ConvNet
from stages.shared.files import write_json
from stages.shared.flat import FlatNetwork
from stages.shared.randomness import generator
from stages.shared.unroll import InnerLoss, unrolled_gradient

STEPS = (10, 30, 100)
GRAPH_STEPS = (10, 30)  # at 100 the graph of all steps would need about 3 times the memory of 30


def problem(images: int):
    draws = generator("benchmark")
    network = FlatNetwork(ConvNet(channels=3, size=32, classes=10, width=128, depth=3))
    start = network.initial(draws)
    target = start + 0.01 * torch.randn(start.shape, generator=draws)
    return network, torch.randn(images, 3, 32, 32, generator=draws), torch.arange(images) % 10, start, target


def ours(steps: int, images: int) -> torch.Tensor:
    network, x, y, start, target = problem(images)
    leaf = x.requires_grad_()
    result = unrolled_gradient(
        InnerLoss(network), start, lambda step: (leaf * 1.0, y), steps, [leaf], torch.tensor(0.01), lambda theta: matching_loss(theta, start, target)
    )  # fmt: skip
    return result.gradients[0]


def graph(steps: int, images: int) -> torch.Tensor:
    network, x, y, start, target = problem(images)
    leaf, theta = x.requires_grad_(), start.clone().requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(theta, leaf * 1.0), y), theta, create_graph=True)
        theta = theta - 0.01 * gradient
    (gradient,) = torch.autograd.grad(matching_loss(theta, start, target), leaf)
    return gradient


def measure(way: str, steps: int, images: int) -> None:
    """Print seconds of the second run (the first warms up on 2 steps) and the peak resident MiB."""
    run = {"ours": ours, "graph": graph}[way]
    run(2, images)
    begin = time.perf_counter()
    run(steps, images)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main(images: int = 20, runs: int = 5) -> None:
    difference = float((ours(5, images) - graph(5, images)).norm() / graph(5, images).norm())
    assert difference < 1e-3, f"the two ways differ by {difference}"
    cases = [("ours", n) for n in STEPS] + [("graph", n) for n in GRAPH_STEPS]
    found = {case: [] for case in cases}
    for _ in range(runs):
        for way, steps in cases:
            command = [sys.executable, "-m", "benchmarks.unroll", "--measure", way, str(steps), str(images)]
            found[way, steps].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    rows = []
    for (way, steps), results in found.items():
        seconds = [result["seconds"] for result in results]
        peak = statistics.median(result["peak_mib"] for result in results)
        rows.append({"way": way, "steps": steps, "seconds_median": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds), "peak_mib": peak})
        print(f"{way:6} {steps:4} steps  {rows[-1]['seconds_median']:7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  {peak:7.0f} MiB")
    about = {"network": "ConvNet 128 wide, 3 deep, 32x32", "images": images, "runs": runs, "relative_difference_of_gradients": difference}
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}
    write_json(Path("reports/benchmarks/unroll.json"), {"settings": about, "machine": machine, "results": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*(int(word) for word in sys.argv[1:]))
