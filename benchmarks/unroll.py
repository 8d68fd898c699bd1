"""Memory and time of exact gradients through training: step-by-step adjoint against the graph of all steps.

    python -m benchmarks.unroll [images] [runs]

Both problems that unroll: MTT (plain SGD, learned step size, distance to an expert) and RTP (SGD with momentum,
cross-entropy of 64 real images). The plain way is how the public code of MTT does it: all inner steps in one graph, one
backward pass. Each measurement is a process of its own (peak resident memory is a process's; read as Linux counts it), on
the 128-wide CIFAR ConvNet; the ways take turns, and have to give the same gradient before anything is timed. The growth of
memory from 10 to 100 steps is given with and without the weights that are kept on purpose.
Writes reports/benchmarks/unroll.json.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.measure import in_process, peak_mib
from stages.distillers.mtt import matching_loss
from stages.shared.convnet import ConvNet
from stages.shared.files import write_json
from stages.shared.flat import FlatNetwork
from stages.shared.randomness import generator
from stages.shared.unroll import InnerLoss, unrolled_gradient

BACKBONES = ("mtt", "rtp")
STEPS = (10, 30, 100)
GRAPH_STEPS = (10, 30)  # at 100 the graph of all steps would need about 3 times the memory of 30
LR = 0.01


class Case(NamedTuple):
    network: FlatNetwork
    start: torch.Tensor  # (P,)
    images: torch.Tensor
    labels: torch.Tensor
    outer: Callable[[torch.Tensor], torch.Tensor]
    momentum: float
    learn_lr: bool


def case(backbone: str, images: int) -> Case:
    draws = generator("benchmark")
    network = FlatNetwork(ConvNet(channels=3, size=32, classes=10, width=128, depth=3))
    start = network.initial(draws)
    x, y = torch.randn(images, 3, 32, 32, generator=draws).requires_grad_(), torch.arange(images) % 10
    if backbone == "mtt":
        target = start + 0.01 * torch.randn(start.shape, generator=draws)
        return Case(network, start, x, y, lambda theta: matching_loss(theta, start, target), 0.0, True)
    real, labels = torch.randn(64, 3, 32, 32, generator=draws), torch.arange(64) % 10
    return Case(network, start, x, y, lambda theta: F.cross_entropy(network(theta, real), labels), 0.9, False)


def adjoint(steps: int, here: Case) -> torch.Tensor:
    result = unrolled_gradient(
        InnerLoss(here.network), here.start, lambda step: (here.images * 1.0, here.labels), steps, [here.images], torch.tensor(LR), here.outer, here.momentum, here.learn_lr
    )  # fmt: skip
    return result.gradients[0]


def graph(steps: int, here: Case) -> torch.Tensor:
    theta = here.start.clone().requires_grad_()
    velocity = torch.zeros_like(theta)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(F.cross_entropy(here.network(theta, here.images * 1.0), here.labels), theta, create_graph=True)
        velocity = here.momentum * velocity + gradient
        theta = theta - LR * velocity
    (gradient,) = torch.autograd.grad(here.outer(theta), here.images)
    return gradient


WAYS = {"adjoint": adjoint, "graph": graph}


def measure(backbone: str, way: str, steps: int, images: int) -> None:
    """Print seconds of the second run (the first warms up on 2 steps), the peak resident MiB and MiB kept on purpose."""
    here = case(backbone, images)
    WAYS[way](2, here)
    begin = time.perf_counter()
    WAYS[way](steps, here)
    seconds = time.perf_counter() - begin
    kept = 0 if way == "graph" else 4 * here.network.size * steps / 2**20
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "kept_mib": kept}))


def main(images: int = 10, runs: int = 5) -> None:
    cases = [(b, "adjoint", n) for b in BACKBONES for n in STEPS] + [(b, "graph", n) for b in BACKBONES for n in GRAPH_STEPS]
    difference = {}
    for backbone in BACKBONES:
        ours, plain = (run(5, case(backbone, images)) for run in WAYS.values())
        difference[backbone] = float((ours - plain).norm() / plain.norm())
        assert difference[backbone] < 1e-3, f"{backbone}: the two ways differ by {difference[backbone]}"
    found = {key: [] for key in cases}
    for _ in range(runs):
        for key in cases:
            found[key].append(in_process("benchmarks.unroll", *key, images))
    rows = []
    for (backbone, way, steps), results in found.items():
        seconds, peak, kept = ([result[name] for result in results] for name in ("seconds", "peak_mib", "kept_mib"))
        row = {"backbone": backbone, "way": way, "steps": steps, "seconds_median": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds), "peak_mib": statistics.median(peak), "kept_mib": kept[0]}  # fmt: skip
        rows.append(row)
        print(f"{backbone} {way:8} {steps:4} steps  {row['seconds_median']:7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  {row['peak_mib']:7.0f} MiB, of which kept {kept[0]:.0f}")
    growth = {}
    for backbone in BACKBONES:
        first, last = (next(row for row in rows if (row["backbone"], row["way"], row["steps"]) == (backbone, "adjoint", n)) for n in (STEPS[0], STEPS[-1]))
        growth[backbone] = {"in_all": last["peak_mib"] / first["peak_mib"] - 1, "kept_apart": (last["peak_mib"] - last["kept_mib"]) / (first["peak_mib"] - first["kept_mib"]) - 1}
        print(f"{backbone}: {STEPS[0]} to {STEPS[-1]} steps: memory grows by {growth[backbone]['in_all']:.1%}, what is kept on purpose apart by {growth[backbone]['kept_apart']:.1%}")
    about = {"network": "ConvNet 128 wide, 3 deep, 32x32", "images": images, "runs": runs, "relative_difference_of_gradients": difference}
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}
    write_json(Path("reports/benchmarks/unroll.json"), {"settings": about, "machine": machine, "growth_from_10_to_100_steps": growth, "results": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main(*(int(word) for word in sys.argv[1:]))
