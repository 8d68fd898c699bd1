"""The backbones: gradients against finite differences in float64, single updates, masks, and references."""

import dataclasses
import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import sklearn.cluster
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from torch import Tensor

from stages.backbones import dc, dsa, full, kmeans, mtt, random, rtp
from stages.distillation import gradient_matching, trajectory_matching, unroll
from stages.distillation.back_propagation_through_time import AddressableMemory, clipped
from stages.distillation.backbone import Backbone, Problem
from stages.distillation.gradient_distance import ByProducts, class_gradients, matching_distance
from stages.distillation.gradient_matching import GradientMatching
from stages.distillation.learn import learn
from stages.distillation.trajectory_matching import TrajectoryMatching
from stages.distillation.unroll import InnerLoss
from stages.images.augment import Draw
from stages.images.prepared import LabelledImages
from stages.images.sampling import class_rows
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.files import write_tensors
from stages.runtime.randomness import generator
from stages.training.flat import FlatNetwork

CLASSES = 5
LOOPS = {"iterations": 2, "outer_loops": 2, "inner_loops": 1, "batch_real": 6}
MTT = {
    "iterations": 2,
    "syn_steps": 12,
    "expert_epochs": 1,
    "max_start_epoch": 1,
    "lr_img": 1.0,
    "lr_lr": 1e-6,
    "lr_teacher": 0.1,
    "batch_syn": 4,
}
RTP = {"iterations": 2, "syn_steps": 3, "batch_syn": 1, "batch_real": 4, "lr_net": 0.1, "clip": 1e9}


class Case(NamedTuple):
    """A backbone with its settings."""

    module: ModuleType
    settings: dict

    def start(self, problem: Problem, **changes) -> Backbone:
        settings = self.module.Settings(**self.settings | changes)
        return self.module.start(problem, settings)


CASES = {
    "dc": Case(dc, LOOPS),
    "dsa": Case(dsa, LOOPS),
    "dsa with masks after the augmentation": Case(dsa, LOOPS | {"mask_after_augmentation": True}),
    "rtp": Case(rtp, RTP),
    "rtp with drawn classes": Case(rtp, RTP | {"classes": 2}),
    "rtp with memory addressing": Case(rtp, RTP | {"n_basis": 20}),
}


def five_classes(device, ipc=2, mdt=0.1) -> Problem:
    """8x8 images of five classes in float64, and a smooth network: kinks would spoil finite differences."""
    labels = torch.arange(40) % CLASSES
    noise = torch.randn(40, 2, 8, 8, generator=generator("real"), dtype=torch.float64)
    means = torch.randn(CLASSES, 2, 8, 8, generator=generator("classes"), dtype=torch.float64)
    images = noise + means[labels]
    real = LabelledImages(images.to(device), labels.to(device), CLASSES)
    module = ConvNet(channels=2, size=8, classes=CLASSES, width=4, depth=1).double().to(device)
    module.features[2] = torch.nn.Softplus()
    return Problem(real, FlatNetwork(module), ipc, mdt, Path("data/nothing"), seed=0)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """To the bit on a CPU. On CUDA, gradients of resized or rotated images sum in no fixed order."""
    if ours.is_cuda:
        return torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    return torch.equal(ours, theirs)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mdt", [0, 0.1, [0.0, 0.1]])
def test_the_gradient_equals_finite_differences(name, mdt, device):
    def first_update(shift):
        backbone = CASES[name].start(five_classes(device, mdt=mdt))
        for key, difference in shift.items():
            variable = backbone.variables[key]
            variable.value = variable.value + difference
        return next(backbone.updates(1))

    h = 1e-5
    _, gradients = first_update({})
    for key, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator(key), dtype=torch.float64).to(device)
        loss_ahead, _ = first_update({key: h * direction})
        loss_behind, _ = first_update({key: -h * direction})
        slope = float(loss_ahead - loss_behind) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5), key


@pytest.mark.parametrize("name", ["dc", "dsa", "dsa with masks after the augmentation"])
@pytest.mark.parametrize("mdt", [0, 0.1])
@pytest.mark.parametrize("stacked", [True, False])
def test_products_match_as_double_backward_does(name, mdt, stacked, device, monkeypatch):
    def update(shift=0.0):
        backbone = CASES[name].start(five_classes(device, mdt=mdt))
        images = backbone.variables["images"]
        images.value = images.value + shift
        loss, gradients = next(backbone.updates(1))
        return loss, gradients["images"]

    def by_products(loss, *arguments):
        return ByProducts(loss, stacked)(*arguments)

    loss, gradient = update()
    monkeypatch.setattr(gradient_matching, "ByProducts", lambda loss, _: partial(by_products, loss))
    monkeypatch.setattr(gradient_matching, "by_double_backward", by_products)
    product_loss, product_gradient = update()
    assert torch.allclose(product_loss, loss, rtol=1e-12)
    assert torch.allclose(product_gradient, gradient, rtol=1e-8, atol=1e-12)

    h = 1e-5
    draws = generator("direction")
    direction = torch.randn(gradient.shape, generator=draws, dtype=torch.float64).to(device)
    slope = float(update(h * direction)[0] - update(-h * direction)[0]) / (2 * h)
    assert float((product_gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("name", ["dc", "dsa"])
@pytest.mark.parametrize("room, groups", [(1000, [5]), (13, [2, 2, 1]), (11, [1] * 5), (4, [1] * 5)])
def test_a_gpu_matches_as_many_classes_at_a_time_as_it_has_room_for(name, room, groups, pretend, monkeypatch):
    """A class has six real images. Where not even one fits, its images go through the network in parts."""
    loss, gradients = next(CASES[name].start(five_classes("cpu")).updates(1))
    for module in (gradient_matching, unroll):
        monkeypatch.setattr(module, "part_size", lambda count, image_bytes, device: min(count, room))
    images_at_once = []
    sizes = []

    def note(layer, inputs):
        images_at_once.append(pretend.innermost(inputs[0]).numel() // (2 * 8 * 8))

    with pretend.pretend_cuda():
        problem = five_classes("cuda")
        backbone = CASES[name].start(problem)
        matching = backbone.updates.__self__
        match = matching.match
        matching.match = lambda theta, images, *more: sizes.append(len(images)) or match(theta, images, *more)
        hook = problem.network.module.features[0].register_forward_pre_hook(note)
        own_loss, own_gradients = next(backbone.updates(1))
        hook.remove()
        assert torch.allclose(own_loss.cpu(), loss, rtol=1e-10)
        assert torch.allclose(own_gradients["images"].cpu(), gradients["images"], rtol=1e-8, atol=1e-12)
    assert sizes == groups
    assert max(images_at_once) <= room
    assert room // 2 < max(images_at_once) or room == 1000


@pytest.mark.parametrize("name", ["dc", "dsa"])
@pytest.mark.parametrize("mdt", [0, 0.1])
def test_classes_matched_together_or_one_by_one_give_the_same_update(name, mdt, device, monkeypatch):
    def first_update(together):
        monkeypatch.setattr(gradient_matching, "how_many_together", lambda *_: together)
        loss, gradients = next(CASES[name].start(five_classes(device, mdt=mdt)).updates(1))
        return loss, gradients["images"]

    loss, gradient = first_update(1)
    for together in (2, CLASSES):
        other_loss, other_gradient = first_update(together)
        assert torch.allclose(other_loss, loss, rtol=1e-10)
        assert torch.allclose(other_gradient, gradient, rtol=1e-8)


def test_stacked_class_gradients_equal_those_one_by_one(device):
    problem = five_classes(device)
    loss = InnerLoss(problem.network)
    theta = problem.network.initial(generator(0)).double().to(device)
    images = list(problem.real.images.split(8))
    labels = list(problem.real.labels.split(8))
    one_by_one = class_gradients(loss, theta, images, labels, stacked=False)
    stacked = class_gradients(loss, theta, images, labels, stacked=True)
    assert one_by_one.shape == (5, problem.network.size)
    assert torch.allclose(stacked, one_by_one, rtol=1e-8, atol=1e-12)


def test_stacked_class_gradients_are_compiled_where_that_pays(monkeypatch):
    compiled = []

    def compile_and_note(function, **_):
        def noted(*arguments):
            compiled.append(function)
            return function(*arguments)

        return noted

    monkeypatch.setattr(torch, "compile", compile_and_note)
    problem = five_classes(torch.device("cpu"))
    theta = problem.network.initial(generator(0)).double()
    images = list(problem.real.images.split(8))
    labels = list(problem.real.labels.split(8))
    class_gradients(InnerLoss(problem.network, compiled=False), theta, images, labels, stacked=True)
    assert not compiled
    class_gradients(InnerLoss(problem.network, compiled=True), theta, images, labels, stacked=True)
    assert len(compiled) == 1


def test_class_gradients_take_batches_of_different_sizes(device):
    problem = five_classes(device)
    loss = InnerLoss(problem.network)
    theta = problem.network.initial(generator(0)).double().to(device)
    images = problem.real.images
    labels = problem.real.labels
    gradients = class_gradients(loss, theta, [images[:8], images[8:11]], [labels[:8], labels[8:11]], True)
    assert torch.allclose(gradients[0], loss.gradient(theta, images[:8], labels[:8]))
    assert torch.allclose(gradients[1], loss.gradient(theta, images[8:11], labels[8:11]))


def test_bfloat16_products_change_the_gradient_a_little(device):
    problem = five_classes(device)
    theta = problem.network.initial(generator(0)).to(device)
    images = problem.real.images.float()
    network = FlatNetwork(problem.network.module.float())
    exact = InnerLoss(network).gradient(theta, images, problem.real.labels)
    rounded = InnerLoss(network, precision="bfloat16").gradient(theta, images, problem.real.labels)
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - exact).norm() / exact.norm()) < 0.05


def test_bfloat16_products_are_alike_forward_and_backward(device):
    """What is compiled differentiates forward, which PyTorch cannot do through a norm of mixed precision."""
    problem = five_classes(device)
    theta = problem.network.initial(generator(0)).to(device)
    point = (theta, problem.real.images.float(), problem.real.labels, torch.randn_like(theta))
    network = FlatNetwork(problem.network.module.float())
    rounded = InnerLoss(network, precision="bfloat16")
    exact = InnerLoss(network)._backward_over_reverse(*point)
    for products in (rounded._forward_over_reverse(*point), rounded._backward_over_reverse(*point)):
        for product, expected in zip(products, exact):
            assert product.dtype == torch.float32
            assert 1e-5 < float((product - expected).norm() / expected.norm()) < 0.2


@pytest.mark.parametrize("name", CASES)
def test_images_that_are_not_numbers_end_in_a_reason_and_not_in_a_bad_set(name, device):
    problem = five_classes(device)
    problem.real.images.fill_(torch.nan)
    backbone = CASES[name].start(problem, iterations=40)
    with pytest.raises(UserError, match="10 times in a row. Lower the learning rates"):
        learn(backbone, None, name)


@pytest.mark.parametrize("name", CASES)
def test_a_learning_rate_that_explodes_ends_in_a_reason_and_not_in_a_bad_set(name, device):
    backbone = CASES[name].start(five_classes(device), iterations=40)
    for variable in backbone.variables.values():
        variable.lr = 1e300  # more than a suite may say
    with pytest.raises(UserError, match="10 times in a row. Lower the learning rates"):
        learn(backbone, None, name)


@pytest.mark.parametrize("name", CASES)
def test_learning_lowers_the_loss(name, device):
    changes = {"iterations": 40, "lr_img": 0.5}
    if CASES[name].module is rtp:
        changes |= {"batch_real": 40, "batch_syn": None, "syn_steps": 8, "lr_img": 5.0}
    backbone = CASES[name].start(five_classes(device, mdt=0), **changes)
    count = 6 if "memory" in name else 2
    assert backbone.labels.bincount().tolist() == [count] * CLASSES
    assert backbone.images().shape == (CLASSES * count, 2, 8, 8)
    curve, skipped = learn(backbone, None, name)
    assert skipped == 0
    assert backbone.images().isfinite().all()
    assert sum(curve["loss"][-8:]) < sum(curve["loss"][:8])


def test_memory_addressing_stores_no_more_than_plain_images(device):
    backbone = CASES["rtp"].start(five_classes(device), n_basis=20)
    stored = sum(variable.value.numel() for variable in backbone.variables.values())
    plain = 2 * CLASSES * 2 * 8 * 8
    another_image_of_each_class = CLASSES * 20
    assert plain - another_image_of_each_class < stored <= plain


def test_memory_addressing_with_too_many_basis_images_is_refused(device):
    expected = "n_basis: 40 basis images .* take more room than 2 images a class"
    with pytest.raises(UserError, match=expected):
        CASES["rtp"].start(five_classes(device), n_basis=40)


@pytest.mark.parametrize("ipc, n_basis", [(1, 16), (50, 800)])
def test_memory_addressing_on_cifar10_makes_115_images_of_each_class(ipc, n_basis):
    """As in the public code at one image a class; at 50, basis images have the same share of the room."""
    real = LabelledImages(torch.zeros(10, 3, 32, 32), torch.arange(10), 10)
    problem = Problem(real, five_classes("cpu").network, ipc, mdt=0, reads=Path(), seed=0)
    settings = rtp.Settings(iterations=1, syn_steps=1, batch_syn=32, n_basis=n_basis)
    memory = AddressableMemory(problem, settings, n_basis, generator("noise"))
    assert memory.images_per_class == 115
    assert memory.variables["basis"].value.numel() == 0.4 * ipc * 10 * 3072


def test_coefficients_decay_only_where_a_row_says_so(device):
    """The public code's L2 term has no effect, so by default there is none."""

    def first_gradients(**changes):
        backbone = CASES["rtp with memory addressing"].start(five_classes(device), **changes)
        _, gradients = next(backbone.updates(0))
        return backbone.variables["coefficients"].value, gradients

    coefficients, default = first_gradients()
    _, without = first_gradients(l2=0.0)
    _, decayed = first_gradients(l2=0.3)
    assert same(default["coefficients"], without["coefficients"])
    assert torch.allclose(decayed["coefficients"], without["coefficients"] + 0.3 * coefficients)
    assert same(decayed["basis"], without["basis"])


def updated_classes(backbone: Backbone, iteration: int) -> set[int]:
    """The classes whose synthetic images get a gradient."""
    _, gradients = next(backbone.updates(iteration))
    moved = gradients["images"].abs().amax((1, 2, 3)) > 0
    return set(backbone.labels[moved].tolist())


def test_an_iteration_of_rtp_works_on_the_classes_that_it_draws(device):
    case = CASES["rtp with drawn classes"]
    backbone = case.start(five_classes(device))
    drawn = [updated_classes(backbone, iteration) for iteration in range(8)]
    assert [len(classes) for classes in drawn] == [2] * 8
    assert len({tuple(sorted(classes)) for classes in drawn}) > 2, "every iteration draws anew"
    resumed = case.start(five_classes(device))
    assert updated_classes(resumed, 3) == drawn[3], "the draw depends on the iteration alone"


def test_the_real_images_of_an_iteration_are_of_the_drawn_classes(device):
    """Images of the other classes may be anything: the loss stays as it is."""
    problem = five_classes(device)
    backbone = CASES["rtp with drawn classes"].start(problem)
    loss, _ = next(backbone.updates(0))
    others = set(range(CLASSES)) - updated_classes(backbone, 0)
    for label in others:
        problem.real.images[problem.real.labels == label] = torch.nan
    loss_without_others, _ = next(backbone.updates(0))
    assert same(loss_without_others, loss)


@pytest.mark.parametrize("classes", [CLASSES, 100])
def test_as_many_drawn_classes_as_there_are_make_no_difference(classes, device):
    case = CASES["rtp"]
    loss, gradients = next(case.start(five_classes(device)).updates(0))
    loss_of_drawn, gradients_of_drawn = next(case.start(five_classes(device), classes=classes).updates(0))
    assert same(loss_of_drawn, loss)
    assert same(gradients_of_drawn["images"], gradients["images"])


# RTP's rows against its public code


@pytest.fixture(scope="module")
def cifar_suites() -> dict[str, dict]:
    suites = {}
    for name in ("cifar10", "cifar100"):
        suites[name] = yaml.safe_load((ROOT / "suites" / f"{name}.yaml").read_text())
    return suites


@pytest.fixture(scope="module")
def rtp_rows(cifar_suites) -> dict[str, dict]:
    """The keys of every row whose set RTP makes, by its name."""
    rows: dict[str, dict] = {}
    for suite in cifar_suites.values():
        rows |= {name: row for name, row in suite["runs"].items() if row["backbone"] == "rtp"}
    return rows


def test_rtps_rows_have_its_public_settings(rtp_rows):
    for name, row in rtp_rows.items():
        settings = rtp.Settings(**row["distill"])
        assert (settings.syn_steps, settings.batch_real) == (150, 64), name
        assert settings.batch_syn == (10 if settings.n_basis is None else 32), name
        assert (settings.lr_net, settings.momentum_net) == (0.01, 0.9), name
        assert (settings.lr_img, settings.momentum, settings.clip, settings.l2) == (0.1, 0.5, 2, 0), name
        if row["suite"] == "cifar10":
            assert (settings.iterations, settings.classes, row["budget"]) == (500_000, 10, "published"), name


def test_rtps_rows_are_trained_by_its_own_protocol(rtp_rows, cifar_suites):
    for name, row in rtp_rows.items():
        images = cifar_suites[row["suite"]]["datasets"][row["dataset"]]["images"]
        memory = "n_basis" in row["distill"]
        assert images["whitening"] == ("none" if memory else "gcn-zca"), name
        assert (row["epochs"], row["lr"], row["augment"]) == (300, 0.01, False), name
        own = {"batch": 640, "momentum": 0.9, "weight_decay": 0, "drop": False, "precision": "tf32"}
        assert row["train"] == own, name


@pytest.mark.parametrize("suite", ["cifar10", "cifar100"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_a_second_row_of_rtp_trains_on_the_same_set_as_rows_of_dsa_do(suite, ipc, cifar_suites):
    rows = cifar_suites[suite]["runs"]
    own = rows[f"{suite}-rtp-ipc{ipc}"]
    second = rows[f"{suite}-rtp-ipc{ipc}-as-others"]
    assert second["reads"] == f"distill/{suite}-rtp-ipc{ipc}"
    for key in ("dataset", "ipc", "mdt", "mask_ratio", "budget"):
        assert second[key] == own[key]
    of_dsa = rows[f"{suite}-dsa-ipc1"]
    for key in ("epochs", "lr", "augment", "train"):
        assert second[key] == of_dsa[key]


def test_rows_of_rtp_on_cifar100_take_the_operations_that_their_suite_says(rtp_rows):
    """An image of an inner step takes 11 forward passes of the ConvNet."""
    forward = 2 * 128 * (27 * 1024 + 1152 * 256 + 1152 * 64) + 2 * 2048 * 100
    for name, row in rtp_rows.items():
        settings = rtp.Settings(**row["distill"])
        if row["suite"] == "cifar100":
            images = row["ipc"] if settings.n_basis is None else 115
            batch = 100 * min(images, settings.batch_syn)
            operations = 11 * forward * batch * settings.syn_steps * settings.iterations
            assert operations == pytest.approx(8.4e17, rel=0.05), name


def test_images_are_updated_once_in_each_outer_loop(device):
    backbone = CASES["dc"].start(five_classes(device))
    assert len(list(backbone.updates(0))) == 2


def test_a_gradient_has_no_distance_to_itself():
    network = five_classes("cpu").network
    gradient = torch.randn(network.size, generator=generator(0), dtype=torch.float64)
    assert float(matching_distance(network, gradient, gradient)) == pytest.approx(0, abs=1e-4)


def test_the_opposite_gradient_has_a_distance_of_two_for_each_output_row():
    network = five_classes("cpu").network
    gradient = torch.randn(network.size, generator=generator(0), dtype=torch.float64)
    rows = sum(shape[0] for shape in network.shapes if len(shape) > 1)
    assert float(matching_distance(network, gradient, -gradient)) == pytest.approx(2 * rows, abs=1e-4)


def test_a_clipped_gradient_keeps_its_direction():
    gradients = {"a": torch.full((3,), 4.0), "b": torch.full((4,), -4.0)}
    short = clipped(gradients, 2.0)
    assert float(torch.cat([*short.values()]).norm()) == pytest.approx(2.0, rel=1e-4)
    assert torch.allclose(short["a"][0], -short["b"][0])


def test_a_gradient_below_the_limit_is_not_clipped():
    gradients = {"a": torch.full((3,), 4.0), "b": torch.full((4,), -4.0)}
    assert torch.allclose(clipped(gradients, 100.0)["a"], gradients["a"])


@pytest.mark.parametrize("module", [random, kmeans])
def test_references_are_different_real_images_of_their_classes(module):
    real = five_classes("cpu").real
    backbone = module.start(five_classes("cpu", ipc=3), module.Settings(sets=1))
    images = backbone.images()
    assert backbone.number is None
    assert backbone.labels.tolist() == [k for k in range(CLASSES) for _ in range(3)]
    rows = []
    for image in images:
        (row,) = (real.images == image).all((1, 2, 3)).nonzero().flatten()
        rows.append(int(row))
    assert real.labels[rows].tolist() == backbone.labels.tolist()
    assert len(set(rows)) == 15


def test_an_image_stands_for_no_two_clusters():
    """Whitened images have a large norm: one with a small norm is nearer to every centre than any other."""
    problem = five_classes("cpu", ipc=3)
    images = problem.real.images
    images += 10 * torch.randn(images.shape, generator=generator("far apart"), dtype=torch.float64)
    first = torch.stack([rows[0] for rows in class_rows(problem.real.labels, CLASSES)])
    images[first] *= 0
    chosen = kmeans.nearest_images(problem, 0)
    assert len(set(chosen.tolist())) == 3 * CLASSES


@pytest.mark.parametrize("module", [random, kmeans])
def test_every_set_of_a_reference_has_images_of_its_own(module, monkeypatch):
    """A single start for each cluster: the best of ten would be the same for so few images."""
    monkeypatch.setattr(kmeans, "STARTS", 1)
    problem = five_classes("cpu", ipc=3)
    backbone = module.start(problem, module.Settings(sets=4))
    assert backbone.number.bincount().tolist() == [15] * 4
    images = backbone.images()
    sets = [images[backbone.number == number] for number in range(4)]
    for number, own in enumerate(sets):
        assert backbone.labels[backbone.number == number].tolist() == [
            k for k in range(CLASSES) for _ in range(3)
        ]
        assert not any(torch.equal(own, other) for other in sets[:number])
    alone = module.start(problem, module.Settings(sets=1))
    assert torch.equal(alone.images(), sets[0])


def test_references_have_a_set_for_each_repeat_of_the_paper():
    assert random.Settings().sets == kmeans.Settings().sets == 5


def test_kmeans_starts_every_class_of_every_set_from_a_seed_of_its_own(monkeypatch):
    seeds = []

    def noted(*words, random_state, **keys):
        seeds.append(random_state)
        return KMeans(*words, random_state=random_state, **keys)

    monkeypatch.setattr(sklearn.cluster, "KMeans", noted)
    kmeans.start(five_classes("cpu"), kmeans.Settings(sets=3))
    assert len(set(seeds)) == len(seeds) == 3 * CLASSES


def test_mtt_and_dsa_start_from_the_first_set_of_random_images(tmp_path):
    problem = mtt_problem(tmp_path, "cpu")
    first = random.start(problem, random.Settings(sets=3)).images()[: 2 * CLASSES]
    assert torch.equal(mtt.start(problem, mtt.Settings(**MTT)).images(), first)
    assert torch.equal(CASES["dsa"].start(problem).images(), first)


def test_kmeans_takes_the_image_in_the_middle_of_a_cluster():
    brightness = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 5.2] * 2)
    images = brightness.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    real = LabelledImages(images, torch.tensor([0] * 6 + [1] * 6), 2)
    problem = Problem(real, five_classes("cpu").network, ipc=2, mdt=0, reads=Path(), seed=0)
    backbone = kmeans.start(problem, kmeans.Settings())
    for of_class in backbone.images().split(2):
        means = of_class.mean((1, 2, 3))
        assert sorted(means.tolist()) == pytest.approx([0.1, 5.1])


def test_full_copies_no_image():
    backbone = full.start(five_classes("cpu"), full.Settings())
    assert backbone.images is None


# The mask of MDT and the augmentation


def mtt_problem(folder: Path, device, mdt: float = 0.5) -> Problem:
    """The five classes, and two experts of one epoch whose weights are noise."""
    problem = five_classes(device, mdt=mdt)
    shape = (2, 2, problem.network.size)
    snapshots = 0.3 * torch.randn(shape, generator=generator("experts"), dtype=torch.float64)
    write_tensors(folder / "trajectories.safetensors", {"snapshots": snapshots})
    return dataclasses.replace(problem, reads=folder)


def mtt_batches(problem: Problem, mask_after: bool) -> list[tuple[Tensor, Tensor]]:
    """The images of all inner steps of an iteration, and their masks, which are 1 or 0."""
    settings = mtt.Settings(**MTT, mask_after_augmentation=mask_after)
    matching = TrajectoryMatching(problem, settings)
    batch = matching._batches(matching.images.value, 0, generator("draws"))
    mask = problem.mask(0)
    batches = []
    for step in range(settings.syn_steps):
        images, _ = batch(step)
        batches.append((images, mask(torch.ones_like(images), step)))
    return batches


def dsa_batches(problem: Problem, mask_after: bool) -> list[tuple[Tensor, Tensor]]:
    """The same of each class in the first updates of an iteration."""
    settings = dsa.Settings(**LOOPS, mask_after_augmentation=mask_after)
    rows = problem.real_rows()
    images, labels = problem.real.images[rows], problem.real.labels[rows]
    matching = GradientMatching(problem, settings, images, labels, siamese=True, mask_after=mask_after)
    mask = problem.mask(0)
    batches = []
    for outer_loop in range(3):
        stacked = images[matching.synthetic_rows]
        synthetic = matching._batches(stacked, 0, matching._draws(0, outer_loop)).synthetic
        for k, own in enumerate(synthetic):
            batches.append((own, mask(torch.ones_like(own), outer_loop * CLASSES + k)))
    return batches


BATCHES = {"mtt": mtt_batches, "dsa": dsa_batches}


@pytest.mark.parametrize("name", BATCHES)
def test_what_is_masked_after_the_augmentation_stays_zero(name, device, tmp_path):
    """What is masked before it may get another colour, or be moved, or be mixed with its neighbours."""
    problem = mtt_problem(tmp_path, device)
    for images, mask in BATCHES[name](problem, mask_after=True):
        assert 0.3 < float(mask.mean()) < 0.7
        assert not images[mask == 0].any()
    before = BATCHES[name](problem, mask_after=False)
    assert any(bool(images[mask == 0].any()) for images, mask in before)


@pytest.mark.parametrize("name", BATCHES)
def test_both_orders_have_the_same_masks(name, device, tmp_path, monkeypatch):
    """Mirrored images have a mirrored mask if they are masked first, and the mask itself if last."""

    def always_flip(draws, count):
        return Draw("flip", torch.zeros(count, 3))

    for module in (trajectory_matching, gradient_matching):
        monkeypatch.setattr(module, "draw", always_flip)
    unmasked = BATCHES[name](mtt_problem(tmp_path, device, mdt=0), mask_after=False)
    problem = mtt_problem(tmp_path, device)
    before = BATCHES[name](problem, mask_after=False)
    after = BATCHES[name](problem, mask_after=True)
    for (mirrored, _), (masked_first, mask), (masked_last, _) in zip(unmasked, before, after):
        assert torch.equal(masked_first, mirrored * mask.flip(3))
        assert torch.equal(masked_last, mirrored * mask)


@pytest.mark.parametrize("module, settings", [(mtt, MTT), (dsa, LOOPS)])
def test_the_order_says_nothing_without_a_mask(module, settings, device, tmp_path):
    def first_update(mdt, mask_after):
        problem = mtt_problem(tmp_path, device, mdt)
        backbone = module.start(problem, module.Settings(**settings, mask_after_augmentation=mask_after))
        loss, gradients = next(backbone.updates(0))
        return loss, gradients["images"]

    loss, gradient = first_update(0, mask_after=False)
    same_loss, same_gradient = first_update(0, mask_after=True)
    assert same(same_loss, loss)
    assert same(same_gradient, gradient)
    masked_before, _ = first_update(0.5, mask_after=False)
    masked_after, _ = first_update(0.5, mask_after=True)
    assert not same(masked_before, masked_after)


@pytest.mark.parametrize("mask_after", [False, True])
def test_mtts_gradient_equals_finite_differences_in_both_orders(mask_after, device, tmp_path):
    settings = mtt.Settings(**MTT | {"syn_steps": 4}, mask_after_augmentation=mask_after)

    def first_update(shift):
        backbone = mtt.start(mtt_problem(tmp_path, device), settings)
        images = backbone.variables["images"]
        images.value = images.value + shift
        loss, gradients = next(backbone.updates(0))
        return float(loss), gradients["images"]

    h = 1e-5
    _, gradient = first_update(0)
    direction = torch.randn(gradient.shape, generator=generator("images"), dtype=torch.float64).to(device)
    slope = (first_update(h * direction)[0] - first_update(-h * direction)[0]) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_mtts_gradient_for_the_step_size_equals_finite_differences(device, tmp_path):
    settings = mtt.Settings(**MTT | {"syn_steps": 4})

    def first_update(shift):
        backbone = mtt.start(mtt_problem(tmp_path, device), settings)
        step_size = backbone.variables["step_size"]
        step_size.value = step_size.value.double() + shift
        loss, gradients = next(backbone.updates(0))
        return float(loss), float(gradients["step_size"])

    h = 1e-5
    slope = (first_update(h)[0] - first_update(-h)[0]) / (2 * h)
    assert slope != 0
    assert first_update(0)[1] == pytest.approx(slope, rel=1e-5)


def test_mtt_matches_every_expert(device, tmp_path):
    """With another first expert, the loss of some iterations changes, and that of others stays."""
    problem = mtt_problem(tmp_path, device)
    file = tmp_path / "trajectories.safetensors"
    snapshots = load_file(file)["snapshots"]
    losses = []
    for values in (snapshots, torch.cat([2 * snapshots[:1], snapshots[1:]])):
        write_tensors(file, {"snapshots": values})
        backbone = mtt.start(problem, mtt.Settings(**MTT))
        losses.append([float(next(backbone.updates(iteration))[0]) for iteration in range(12)])
    same_loss = [first == second for first, second in zip(*losses)]
    assert 0 < sum(same_loss) < 12


@pytest.mark.parametrize("module", [dc, dsa])
def test_between_two_updates_the_network_is_trained_on_the_synthetic_images(module, device):
    """The loss of its weights on these images is lower after inner loops than before."""
    settings = module.Settings(**LOOPS | {"inner_loops": 8, "lr_net": 0.05})
    matching = GradientMatching(five_classes(device), settings, *start_of(module, device), siamese=False)
    theta = matching.problem.network.initial(generator("theta")).to(matching.images.value)
    images, labels = matching.images.value, matching.labels
    before = torch.nn.functional.cross_entropy(matching.problem.network(theta, images), labels)
    trained = matching._train(theta, generator("draws"))
    after = torch.nn.functional.cross_entropy(matching.problem.network(trained, images), labels)
    assert float(after) < 0.9 * float(before)


def test_a_second_update_is_on_the_network_after_the_inner_loops(device, monkeypatch):
    """DC's inner loops augment nothing."""
    seen: list[Tensor] = []
    class_gradients = gradient_matching.class_gradients

    def noted(loss, theta, *more):
        if not seen or theta is not seen[-1]:
            seen.append(theta)
        return class_gradients(loss, theta, *more)

    monkeypatch.setattr(gradient_matching, "class_gradients", noted)
    problem = five_classes(device)
    backbone = dc.start(problem, dc.Settings(**LOOPS | {"outer_loops": 3, "inner_loops": 2, "lr_net": 0.3}))
    images, labels = backbone.images(), backbone.labels
    for _ in backbone.updates(0):
        pass
    assert len(seen) == 3
    for before, after in itertools.pairwise(seen):
        theta = before
        for _ in range(2):
            theta = theta.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(problem.network(theta, images), labels)
            theta = theta - 0.3 * torch.autograd.grad(loss, theta)[0]
        assert torch.allclose(after, theta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_learned_images_have_the_settings_learning_rate_and_momentum(name):
    module, settings = CASES[name].module, CASES[name].settings | {"lr_img": 0.37, "momentum": 0.21}
    backbone = module.start(five_classes("cpu"), module.Settings(**settings))
    found = {(variable.lr, variable.momentum) for variable in backbone.variables.values()}
    assert found == {(0.37, 0.21)}


def test_mtt_learns_images_and_step_size_at_rates_of_their_own(tmp_path):
    settings = mtt.Settings(**MTT | {"lr_img": 3.0, "lr_lr": 0.02, "momentum": 0.21})
    variables = mtt.start(mtt_problem(tmp_path, torch.device("cpu")), settings).variables
    assert {name: (one.lr, one.momentum) for name, one in variables.items()} == {
        "images": (3.0, 0.21),
        "step_size": (0.02, 0.21),
    }


@pytest.mark.parametrize("module, expected", [(dc, []), (dsa, [2 * CLASSES])])
def test_dsa_alone_augments_the_inner_loops_each_image_by_its_own_draw(module, expected, monkeypatch):
    noted: list[int] = []
    matching = module.start(five_classes("cpu"), module.Settings(**LOOPS)).updates.__self__
    monkeypatch.setattr(gradient_matching, "augment", lambda x, drawn: noted.append(len(drawn.u)) or x)
    theta = matching.problem.network.initial(generator("theta")).to(matching.images.value)
    matching._train(theta, generator("draws"))
    assert noted == expected


def start_of(module, device) -> tuple[Tensor, Tensor]:
    """The images and labels that a backbone of DC or DSA starts from."""
    backbone = module.start(five_classes(device), module.Settings(**LOOPS))
    return backbone.images(), backbone.labels


def test_rtp_clips_its_gradients(device):
    backbone = rtp.start(five_classes(device), rtp.Settings(**RTP | {"clip": 1e-3}))
    _, gradients = next(backbone.updates(0))
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_mdt_masks_before_the_augmentation_by_default():
    assert not mtt.Settings(**MTT).mask_after_augmentation
    assert not dsa.Settings(**LOOPS).mask_after_augmentation


@pytest.mark.parametrize("module, settings", [(dc, LOOPS), (rtp, RTP)])
def test_a_backbone_that_does_not_augment_has_no_order(module, settings):
    with pytest.raises(ValueError, match="mask_after_augmentation"):
        module.Settings(**settings, mask_after_augmentation=True)


def test_the_published_loops_of_dc_are_no_defaults():
    for missing in ("outer_loops", "inner_loops"):
        others = {key: value for key, value in LOOPS.items() if key != missing}
        with pytest.raises(ValueError, match=missing):
            dc.Settings(**others)


def test_the_settings_of_all_backbones_are_read_without_torch():
    code = """
import importlib, pathlib, sys
for file in pathlib.Path("stages/backbones").glob("[!_]*.py"):
    importlib.import_module(f"stages.backbones.{file.stem}").Settings
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
