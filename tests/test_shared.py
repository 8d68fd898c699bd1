"""Masks, randomness, sampling, augmentation, networks, files."""

import math
import platform
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

from stages.shared.augment import OPERATIONS, Draw, augment, draw
from stages.shared.convnet import ConvNet
from stages.shared.files import replacing, write_json
from stages.shared.flat import FlatNetwork
from stages.shared.images import LabelledImages
from stages.shared.masking import mask_images
from stages.shared.method import Problem
from stages.shared.randomness import generator
from stages.shared.sampling import held_out, per_class, share_of


def test_ratio_zero_masks_nothing():
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(mask_images(images, 0, generator(0)), images)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.8])
def test_realised_share_of_zeros(ratio):
    masked = mask_images(torch.ones(50, 3, 32, 32), ratio, generator(0))
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    share = float((masked == 0).double().mean())
    assert abs(share - ratio) < 5 * math.sqrt(ratio * (1 - ratio) / masked.numel())
    assert not torch.equal(masked[0], masked[1]), "every image has its own mask"
    assert not torch.equal(masked[0, 0], masked[0, 1]), "every channel has its own mask"


def test_mdt_ds_draws_a_ratio_for_every_iteration():
    problem = Problem(None, None, 1, [0.0, 0.1], None, seed=0)
    ones = torch.ones(4, 3, 64, 64)
    shares = [float((problem.mask(i)(ones, 0) == 0).float().mean()) for i in range(40)]
    assert min(shares) < 0.02 and max(shares) > 0.08 and max(shares) < 0.11
    assert abs(sum(shares) / len(shares) - 0.05) < 0.02
    fixed = Problem(None, None, 1, 0.1, None, seed=0)
    assert not torch.equal(fixed.mask(0)(ones, 0), fixed.mask(0)(ones, 1)), "every step has its own mask"
    assert torch.equal(fixed.mask(3)(ones, 1), fixed.mask(3)(ones, 1)), "and it is the same on the way back"


def test_generators_depend_on_the_whole_key_and_nothing_else():
    def first(*key):
        return float(torch.rand((), generator=generator(*key)))

    assert first(0, "a", 1) == first(0, "a", 1)
    assert len({first(0, "a", 1), first(0, "a", 2), first(1, "a", 1), first(0, "b", 1), first(0, "a", 1, 0)}) == 5


def test_sampling_takes_its_share_of_every_class():
    labels = torch.tensor([0] * 20 + [1] * 4 + [2])
    rows = per_class(labels, 3, share_of(0.25), generator(0))
    assert labels[rows].tolist() == [0] * 5 + [1] + [2]
    assert len(set(rows.tolist())) == len(rows)


def test_nothing_is_held_out_at_one_image_a_class():
    assert held_out(torch.arange(10), 10, 0.1, 0, 0) is None
    rows = held_out(torch.arange(10).repeat(10), 10, 0.1, 0, 0)
    assert sorted((rows % 10).tolist()) == list(range(10))


def test_real_rows_are_of_the_right_class():
    labels = torch.arange(30) % 3
    rows = Problem(LabelledImages(torch.zeros(30, 1, 8, 8), labels, 3), None, 4, 0, None, 7).real_rows()
    assert labels[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("operation", OPERATIONS)
def test_augmentations_keep_shape_treat_images_alike_and_pass_gradients(operation, device):
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=generator(0)).to(device).requires_grad_()
    own = torch.rand(4, 3, generator=generator(1))
    together = augment(images, Draw(operation, own))
    alone = torch.cat([augment(images[i : i + 1], Draw(operation, own[i : i + 1])) for i in range(4)])
    assert together.shape == images.shape and together.is_contiguous(), "or every layer after it would take another layout, which is slower on a CPU"
    assert torch.allclose(together, alone)
    shared = Draw(operation, own[:1])
    assert torch.allclose(augment(images, shared)[2:3], augment(images[2:3], shared)), "a siamese draw treats all alike"
    (gradient,) = torch.autograd.grad(together.square().sum(), images)
    assert gradient.isfinite().all() and (gradient != 0).any()


def test_draws_use_all_operations():
    names = {draw(generator(i), 1).operation for i in range(200)}
    assert names == set(OPERATIONS)


def test_initial_weights_follow_pytorch():
    """Same range and spread as PyTorch's own layers, and all of them set."""
    torch.manual_seed(0)
    module = ConvNet(3, 32, 10, 32, 3)
    network = FlatNetwork(module)
    ours, parameters = network.split(network.initial(generator(0))), dict(module.named_parameters())
    assert list(ours) == list(parameters)
    for name, parameter in parameters.items():
        theirs = parameter.detach()
        if theirs.numel() > 500:
            assert ours[name].std() == pytest.approx(float(theirs.std()), rel=0.1)
            assert float(ours[name].abs().max()) <= float(theirs.abs().max()) * 1.05
    assert not torch.equal(network.initial(generator(0)), network.initial(generator(1)))


def test_operations_are_counted():
    network = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)))
    assert network.operations(torch.zeros(1, 3, 2, 2)) == 2 * 12 * 5


def test_a_network_deeper_than_its_images_is_refused():
    with pytest.raises(ValueError, match="network.depth: 4"):
        ConvNet(1, 8, 10, 4, 4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})
    with pytest.raises(ValueError):
        write_json(file, {"x": float("nan")})
    with pytest.raises(OSError, match="disk full"), replacing(file) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert file.read_text() == '{\n  "x": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]


def test_memory_that_a_layer_frees_is_there_for_the_next():
    """On a CPU with glibc: a dozen blocks of 8 MiB, freed and taken again, are not fetched from the system each time."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    code = """
import resource, torch
from stages.shared.device import pick_device
pick_device("cpu")
def work():
    for _ in range(10):
        layers = [torch.ones(2**21) for _ in range(12)]
        del layers
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = int(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert faults < 1000  # without it: 245,000, or none where the heap's end happens to be in use
