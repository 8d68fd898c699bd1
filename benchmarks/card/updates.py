"""Lines of distillation: updates of MTT and RTP, without and with CUDA graphs, and of matching, both ways."""

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import counted, distill
from benchmarks.card.lines import SMALL, LeftOut, Line, Options, close, measured, precisions
from benchmarks.card.steps import CLASSES, forget_compiled, subject_of, uncompiled_if_small
from benchmarks.counted import Load
from benchmarks.distill import MATCHING, MTT, RTP, Case
from benchmarks.measure import distance
from stages.backbones import dc, dsa, mtt, rtp
from stages.distillation import gradient_matching
from stages.machine.precision import tf32_if_asked

__all__ = ["lines"]

UNROLLED = ("eager", "compiled", "compiled, CUDA graphs")
MATCHED = ("double backward", "products")
UPDATES: dict[str, tuple[str, int, dict[str, Any], tuple[str, ...]]] = {
    "MTT, 10 a class, 30 steps": ("mtt", 10, MTT, UNROLLED),
    "RTP, 1 a class, 150 steps": ("rtp", 1, RTP, UNROLLED),
    "DSA, 10 a class": ("dsa", 10, MATCHING, MATCHED),
    "DC, 1 a class": ("dc", 1, MATCHING, MATCHED),
    "DC, 10 a class": ("dc", 10, MATCHING, MATCHED),
    "MTT, 50 a class, 30 steps": ("mtt", 50, MTT, UNROLLED),
}
IN_SMALL = 3  # of these updates, the first ones
SMALL_STEPS = 2
APART = {"float32": 0.05, "tf32": 0.5}  # at most, of gradients; rounding grows over many steps


def lines(options: Options) -> list[Line]:
    made = []
    for name in list(UPDATES)[: IN_SMALL if options.small else None]:
        for precision in precisions(options, "float32", "tf32"):
            for way in UPDATES[name][-1]:
                work = partial(update_line, name, way, precision, options)
                made.append(Line(f"update of {name}, {way}, {precision}", work))
    return made


def update_line(name: str, way: str, precision: str, options: Options) -> dict[str, Any]:
    """An update on random images, and how far its gradient is from the eager one in float32.

    Over many steps, rounding grows in either way.
    """
    with ExitStack() as stack:
        for context in (chosen(way, options), uncompiled_if_small(options), tf32_if_asked(precision)):
            stack.enter_context(context)
        update = update_of(name, way != "eager", options)
        numbers = measured(update, load_of(name, options), precision, options)
        ours = update().cpu()
    if way == "compiled, CUDA graphs":
        numbers |= {"graph_skips": graph_skips()}
    forget_compiled()
    return close(numbers, distance(ours, reference(name, options)), APART[precision])


def graph_skips() -> int:
    """How many functions PyTorch has run without a CUDA graph, although it was asked for one."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def update_of(name: str, compiled: bool, options: Options) -> distill.Update:
    case = case_of(name, compiled, options)
    with tempfile.TemporaryDirectory() as folder:
        return distill.ours(case, distill.problem(case, Path(folder), options.device))


def case_of(name: str, compiled: bool, options: Options) -> Case:
    backbone, ipc, settings, _ = UPDATES[name]
    if not options.small:
        return Case(backbone, ipc, settings, distill.CIFAR, compiled, 0, CLASSES)
    if "syn_steps" in settings:
        settings = settings | {"syn_steps": SMALL_STEPS}
    return Case(backbone, min(ipc, 2), settings, SMALL, compiled, 0, CLASSES)


references: dict[str, torch.Tensor] = {}  # gradients of updates, on the CPU


def reference(name: str, options: Options) -> torch.Tensor:
    """The gradient of the eager update in float32."""
    if name not in references:
        with tf32_if_asked("float32"):
            references[name] = update_of(name, False, options)().cpu()
    return references[name]


def load_of(name: str, options: Options) -> Load:
    """What an update takes, as `counted` counts it for eager code."""
    case = case_of(name, False, options)
    subject = subject_of(case.shape)
    if case.backbone == "mtt":
        return counted.mtt_load(subject, mtt.Settings(**case.settings), CLASSES * case.ipc)
    if case.backbone == "rtp":
        return counted.rtp_load(subject, rtp.Settings(**case.settings), case.ipc)
    siamese = case.backbone == "dsa"
    settings = dsa.Settings(**case.settings) if siamese else dc.Settings(**case.settings)
    return counted.matching(subject, settings, case.ipc, siamese)


# The ways that the project chooses from by itself


def chosen(way: str, options: Options) -> AbstractContextManager:
    """Have the project take a way.

    Raises:
        LeftOut: there is no such way on this device.
    """
    if way in MATCHED:
        return matching_way(way, options)
    with_graphs = way == "compiled, CUDA graphs"
    if with_graphs and options.device.type != "cuda":
        raise LeftOut("CUDA graphs are for CUDA alone")
    return mock.patch.dict(os.environ, {"CUDA_GRAPHS": str(int(with_graphs))})


def matching_way(way: str, options: Options) -> AbstractContextManager:
    """By itself, a GPU takes products and a CPU double backward."""
    by_products, by_double_backward = gradient_matching.ByProducts, gradient_matching.by_double_backward
    on_gpu = options.device.type == "cuda"
    if way == "products" and not on_gpu:
        return mock.patch.object(
            gradient_matching, "by_double_backward", lambda loss, *rest: by_products(loss, True)(*rest)
        )
    if way == "double backward" and on_gpu:
        return mock.patch.object(
            gradient_matching, "ByProducts", lambda loss, _: partial(by_double_backward, loss)
        )
    return nullcontext()
