"""The key `precision`: what it may be, and where CUDA is allowed to round to TF32."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from stages.backbones import dc, dsa, mtt, rtp
from stages.distillation.backbone import Problem
from stages.distillation.learn import learn
from stages.images.prepared import LabelledImages
from stages.losses import cross_entropy
from stages.machine import precision as module
from stages.machine.precision import say_what_is_used, tf32_if_asked
from stages.networks.convnet import ConvNet
from stages.runtime.files import write_tensors
from stages.runtime.randomness import generator
from stages.settings.buffer import BufferSettings
from stages.settings.train import OwnTraining
from stages.training.flat import FlatNetwork
from stages.training.loop import Schedule, examples, train
from stages.training.objective import Loss

CPU = torch.device("cpu")
ALLOWED = ["float32", "tf32", "bfloat16"]
LOOPS = {"iterations": 1, "outer_loops": 2, "inner_loops": 1, "batch_real": 4, "lr_img": 1.0}
SECTIONS = {
    "buffer": (BufferSettings, {"dataset": "shapes", "experts": 1, "epochs": 1, "lr": 0.1, "batch": 4}),
    "train": (OwnTraining, {}),
    "dc": (dc.Settings, LOOPS),
    "dsa": (dsa.Settings, LOOPS),
    "rtp": (
        rtp.Settings,
        {"iterations": 1, "syn_steps": 2, "batch_syn": None, "lr_img": 1.0, "batch_real": 4},
    ),
    "mtt": (
        mtt.Settings,
        {
            "iterations": 1,
            "syn_steps": 2,
            "expert_epochs": 1,
            "max_start_epoch": 1,
            "lr_img": 100.0,
            "lr_lr": 1e-6,
            "lr_teacher": 0.1,
            "batch_syn": None,
        },
    ),
}
BACKBONES = {"mtt": mtt, "rtp": rtp, "dc": dc, "dsa": dsa}


def flags() -> tuple[bool, bool]:
    """Whether CUDA may round to TF32 in convolutions, and in matrix products."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def flags_as_in_a_stage():
    """As `set_up` leaves them, whatever tests before have done."""
    with tf32_if_asked("float32"):
        yield
    module._say_float32.cache_clear()


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_take_three_precisions(name):
    section, keys = SECTIONS[name]
    for allowed in ALLOWED:
        assert section(**keys, precision=allowed).precision == allowed
    for wrong in ("float16", "TF32", "", 32, True):
        with pytest.raises(ValidationError, match="'float32', 'tf32' or 'bfloat16'"):
            section(**keys, precision=wrong)


def test_the_flags_are_set_inside_and_restored_outside():
    with tf32_if_asked("tf32"):
        assert flags() == (True, True)
        with tf32_if_asked("float32"):
            assert flags() == (False, False)
        assert flags() == (True, True)
    assert flags() == (False, False)


@pytest.mark.parametrize("before", [True, False])
def test_the_flags_are_restored_after_an_error(before):
    torch.backends.cudnn.allow_tf32 = before
    with pytest.raises(KeyboardInterrupt), tf32_if_asked("tf32"):
        raise KeyboardInterrupt
    assert flags() == (before, False)


# In the training of networks


@pytest.fixture
def real() -> LabelledImages:
    images = torch.randn(12, 2, 8, 8, generator=generator("real"))
    return LabelledImages(images, torch.arange(12) % 3, 3)


@pytest.fixture
def network() -> FlatNetwork:
    return FlatNetwork(ConvNet(channels=2, size=8, classes=3, width=4, depth=1))


def flags_at_work(network: FlatNetwork) -> set[tuple[bool, bool]]:
    """A set that gets the flags whenever the network does something."""
    seen: set[tuple[bool, bool]] = set()
    network.module.features[0].register_forward_pre_hook(lambda layer, images: seen.add(flags()))
    return seen


def trained(network: FlatNetwork, real: LabelledImages, precision: str, networks: int = 1) -> torch.Tensor:
    schedule = Schedule(epochs=2, lr=0.1, batch=5, precision=precision)
    keys = [(0, number) for number in range(networks)]
    return train(network, Loss(cross_entropy), examples(real, CPU), schedule, keys).theta


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("precision", ALLOWED)
def test_networks_are_trained_with_the_flags_of_the_precision(precision, networks, network, real):
    seen = flags_at_work(network)
    trained(network, real, precision, networks)
    inside = precision == "tf32"
    assert (inside, inside) in seen
    assert ((True, True) in seen) == inside
    assert flags() == (False, False)


def test_a_cpu_trains_in_float32_where_tf32_is_asked_for(network, real):
    float32 = trained(network, real, "float32")
    assert torch.equal(trained(network, real, "tf32"), float32)
    assert not torch.equal(trained(network, real, "bfloat16"), float32)


# In distillation


def learned(name: str, precision: str, problem: Problem) -> torch.Tensor:
    """The images after an iteration."""
    section, keys = SECTIONS[name]
    backbone = BACKBONES[name].start(problem, section(**keys, precision=precision))
    assert learn(backbone, None, "row").skipped == 0
    return backbone.images().clone()


@pytest.fixture
def problem(network, real, tmp_path) -> Problem:
    snapshots = 0.3 * torch.randn(2, 2, network.size, generator=generator("experts"))
    write_tensors(tmp_path / "trajectories.safetensors", {"snapshots": snapshots})
    return Problem(real, network, ipc=2, mdt=0.1, reads=Path(tmp_path), seed=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_cpu_distils_in_float32_where_tf32_is_asked_for(name, problem, capsys):
    float32 = learned(name, "float32", problem)
    assert capsys.readouterr().err.count("tf32") == 0
    assert torch.equal(learned(name, "tf32", problem), float32)
    assert capsys.readouterr().err.count("precision: tf32 is for CUDA alone: float32 is used") == 1
    bfloat16 = learned(name, "bfloat16", problem)
    assert not torch.equal(bfloat16, float32)
    assert bfloat16.isfinite().all()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("precision", ALLOWED)
def test_images_are_learned_with_the_flags_of_the_precision(name, precision, problem):
    section, keys = SECTIONS[name]
    seen = flags_at_work(problem.network)
    backbone = BACKBONES[name].start(problem, section(**keys, precision=precision))
    seen.clear()  # what a start does to count or measure has no precision
    learn(backbone, None, "row")
    inside = precision == "tf32"
    assert seen == {(inside, inside)}
    assert flags() == (False, False)


def test_the_notice_is_given_once_and_not_on_cuda(capsys):
    for device in ("cuda", "cpu", "cpu"):
        say_what_is_used("tf32", torch.device(device))
    for precision in ("float32", "bfloat16"):
        say_what_is_used(precision, CPU)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "float32 is used on this device (cpu)" in lines[0]
