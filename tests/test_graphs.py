"""CUDA graphs: what a call has returned stays what it was, though later calls overwrite its memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.card.updates import graph_skips
from stages.backbones import dc, dsa, mtt, rtp
from stages.distillation import gradient_matching, unroll
from stages.distillation.backbone import Problem
from stages.distillation.learn import learn
from stages.distillation.unroll import InnerLoss
from stages.images.prepared import LabelledImages
from stages.machine.compiled import compile_function, uses_graphs
from stages.networks.convnet import ConvNet
from stages.runtime.files import write_tensors
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CLASSES = 3
LOOPS = {"outer_loops": 3, "inner_loops": 2, "lr_img": 0.1, "batch_real": 6, "batch_train": 5}
CASES = {
    "mtt": (
        mtt,
        {
            "syn_steps": 4,
            "expert_epochs": 1,
            "max_start_epoch": 1,
            "lr_img": 1.0,
            "lr_lr": 1e-3,
            "lr_teacher": 0.1,
            "batch_syn": 4,
        },
    ),
    "rtp": (rtp, {"syn_steps": 4, "batch_syn": 1, "batch_real": 4}),
    "rtp with memory addressing": (rtp, {"syn_steps": 4, "batch_syn": 1, "batch_real": 4, "n_basis": 4}),
    "dc": (dc, LOOPS),
    "dsa": (dsa, LOOPS),
    "dsa with masks after the augmentation": (dsa, LOOPS | {"mask_after_augmentation": True}),
}


class Recorder:
    """Takes the compiler's place. As with CUDA graphs, a call overwrites what calls before have returned."""

    def __init__(self) -> None:
        self.in_pool: list[Tensor] = []
        self.calls: dict[str, int] = {}
        self.marks = 0

    def mark(self) -> None:
        self.marks += 1

    def compile(self, function: Callable, *, dynamic: bool, mode: str | None = None) -> Callable:
        assert dynamic is False
        if mode is None:
            return function
        assert mode == "reduce-overhead"

        def replayed(*arguments: Tensor) -> Any:
            assert not torch.is_grad_enabled()
            assert not any(tensor.requires_grad for tensor in arguments)
            assert len({tensor.device for tensor in arguments}) == 1
            outputs = tree_map(torch.clone, function(*arguments))
            for tensor in self.in_pool:
                tensor.fill_(torch.nan)
            self.in_pool = tree_leaves(outputs)
            name = getattr(function, "__qualname__", "")
            self.calls[name] = self.calls.get(name, 0) + 1
            return outputs

        return replayed


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(torch, "compile", recorder.compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", recorder.mark)
    return recorder


def test_what_a_call_has_returned_outlives_the_next_calls(recorder):
    double = compile_function(lambda x: 2 * x, graphs=True)
    both = compile_function(lambda x: (x + 1, x - 1), graphs=True)
    ones = torch.ones(3, requires_grad=True).detach()
    twice = double(ones)
    more, less = both(ones)
    again = double(more)
    assert (twice.tolist(), more.tolist(), less.tolist(), again.tolist()) == (
        [2] * 3,
        [2] * 3,
        [0] * 3,
        [4] * 3,
    )
    assert recorder.marks == 3, "PyTorch is told before each call"


def test_graphs_are_for_cuda_and_can_be_switched_off(monkeypatch, recorder):
    monkeypatch.delenv("CUDA_GRAPHS", raising=False)
    assert uses_graphs(CUDA)
    assert not uses_graphs(CPU)
    monkeypatch.setenv("CUDA_GRAPHS", "0")
    assert not uses_graphs(CUDA)
    function = compile_function(lambda x: 2 * x)
    assert function(torch.ones(1, requires_grad=True)).requires_grad, "without graphs, autograd goes through"


def smooth_network() -> FlatNetwork:
    """In float64 and without kinks, so that rounding does not decide anything."""
    module = ConvNet(channels=2, size=8, classes=CLASSES, width=4, depth=1).double()
    module.features[2] = torch.nn.Softplus()
    return FlatNetwork(module)


@pytest.mark.parametrize("size", [6, 4, 1])
def test_parts_of_a_batch_give_what_eager_ones_do(size, recorder, monkeypatch):
    monkeypatch.setattr(unroll, "part_size", lambda *_: size)
    network = smooth_network()
    draws = generator("point")
    theta = network.initial(draws).double()
    images = torch.randn(6, 2, 8, 8, generator=draws, dtype=torch.float64)
    v = torch.randn(theta.shape, generator=draws, dtype=torch.float64)
    labels = torch.arange(6) % CLASSES
    eager = InnerLoss(network)
    graphs = InnerLoss(network, compiled=True, graphs=True)
    first = graphs.gradient(theta, images, labels)
    ours = graphs.products(theta, images, labels, v)
    second = graphs.gradient(theta + v, images, labels)
    for value, expected in [
        (first, eager.gradient(theta, images, labels)),
        (second, eager.gradient(theta + v, images, labels)),
        *zip(ours, eager.products(theta, images, labels, v)),
    ]:
        assert torch.allclose(value, expected, rtol=1e-9, atol=1e-12)
    assert recorder.marks == 3 * -(-6 // size)


def problem(device: torch.device, reads: Path) -> Problem:
    images = torch.randn(30, 2, 8, 8, generator=generator("real"), dtype=torch.float64)
    labels = torch.arange(30) % CLASSES
    network = smooth_network()
    module = network.module.to(device)
    real = LabelledImages(images.to(device), labels.to(device), CLASSES)
    return Problem(real, FlatNetwork(module), ipc=4, mdt=0.1, reads=reads, seed=0)


@pytest.fixture
def buffer(tmp_path) -> Path:
    """An expert of one epoch."""
    draws = generator("experts")
    snapshots = 0.3 * torch.randn(1, 2, smooth_network().size, generator=draws, dtype=torch.float64)
    write_tensors(tmp_path / "trajectories.safetensors", {"snapshots": snapshots})
    return tmp_path


def learned(name: str, device: torch.device, reads: Path) -> dict[str, Tensor]:
    """The variables after three iterations."""
    module, settings = CASES[name]
    backbone = module.start(problem(device, reads), module.Settings(**settings, iterations=3))
    assert learn(backbone, None, name).skipped == 0
    return {key: variable.value.detach().cpu() for key, variable in backbone.variables.items()}


@pytest.mark.parametrize("together", [1, 2, CLASSES])
@pytest.mark.parametrize("name", CASES)
def test_updates_with_graphs_are_those_without(name, together, pretend, recorder, buffer, monkeypatch):
    if together > 1 and CASES[name][0] not in (dc, dsa):
        pytest.skip("for backbones with groups of classes")
    eager = learned(name, CPU, buffer)
    assert recorder.marks == 0
    for room in (unroll, gradient_matching):
        monkeypatch.setattr(room, "worth_compiling", lambda *_: True)
    monkeypatch.setattr(gradient_matching, "how_many_together", lambda *_: together)
    with pretend.pretend_cuda():
        graphs = learned(name, CUDA, buffer)
    assert recorder.marks == sum(recorder.calls.values()) > 20
    for key, value in eager.items():
        assert torch.allclose(graphs[key], value, rtol=1e-7, atol=1e-10), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_updates_with_real_graphs_are_those_without(name, buffer, monkeypatch):
    """Three iterations, so that a graph is replayed on images that have changed since it was captured."""
    eager = learned(name, CPU, buffer)
    for room in (unroll, gradient_matching):
        monkeypatch.setattr(room, "worth_compiling", lambda *_: True)
    monkeypatch.delenv("CUDA_GRAPHS", raising=False)
    skips = graph_skips()
    graphs = learned(name, CUDA, buffer)
    assert graph_skips() == skips, "PyTorch ran a function without its graph"
    for key, value in eager.items():
        assert torch.allclose(graphs[key], value, rtol=1e-6, atol=1e-9), key
