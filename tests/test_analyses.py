"""Figures of analyses: which rows they show, how images are decomposed, and whose images logits are of."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from project import make_project, row, run, suite, write_arrays
from safetensors.torch import load_file

from stages.analyses import suite_figures
from stages.images.distilled import load_set
from stages.images.prepared import load_split
from stages.images.standardised import standardised_pixels
from stages.reporting.decompositions import cumulative_ratio
from stages.reporting.detection import detection
from stages.reporting.feature_figures import feature_figures
from stages.reporting.rows_of_figures import (
    compared_rows,
    distilled_rows,
    largest_sets,
    legend_labels,
    row_of_figure1,
    rows_by_ipc,
    with_and_without_mdt,
)
from stages.reporting.singular_value_figures import singular_value_figures
from stages.runtime.files import write_result
from stages.settings.rows import Row
from stages.settings.tables import TableKeys
from stages.settings.train import TrainKeys
from stages.svd import singular_values_of, without_largest
from stages.training.flat import flat_convnet
from stages.training.groups import Setup, train_settings
from stages.training.repeats import setup_of

WHITENINGS = ("zca", "none", "gcn-zca")


def keys(**changes) -> TableKeys:
    values = {"suite": "s", "dataset": "s", "backbone": "mtt", "ipc": 10, "reads": "nothing", "mdt": 0.0}
    return TableKeys(**values | {"lr": "learned"} | changes)


def reference(backbone: str, **changes) -> TableKeys:
    return keys(backbone=backbone, lr=0.05, **changes)


# Which rows a figure shows


def test_figure1_is_of_the_plain_mtt_row_with_the_most_images_per_class():
    rows = {
        "full": reference("full", ipc=None),
        "mtt-ipc1": keys(ipc=1),
        "mtt-ipc10": keys(),
        "mtt-ipc50-mdt": keys(ipc=50, mdt=0.1),
        "dc-ipc50": keys(backbone="dc", ipc=50),
    }
    assert row_of_figure1(rows) == "mtt-ipc10"
    without = {name: of_row for name, of_row in rows.items() if of_row.backbone != "mtt"}
    assert row_of_figure1(without) == "full"


def test_figure1_takes_published_before_reduced_before_other_rows():
    rows = {
        "quick": keys(ipc=50, budget="quick"),
        "other": keys(ipc=30),
        "reduced": keys(ipc=10, budget="reduced", backbone="file", made_by="mtt"),
        "published": keys(ipc=1, budget="published"),
    }
    assert row_of_figure1(rows) == "published"
    del rows["published"]
    assert row_of_figure1(rows) == "reduced"
    del rows["reduced"]
    assert row_of_figure1(rows) == "other"
    rows["other"] = reference("random")
    assert row_of_figure1(rows) == "other", "a quick row stands in for no other"
    del rows["other"]
    assert row_of_figure1(rows) == "quick"


def test_rows_of_figure10_differ_in_nothing_but_their_images_per_class():
    rows = {
        "a-mtt-ipc1": keys(ipc=1, budget="published"),
        "a-mtt-ipc10": keys(budget="published"),
        "a-mtt-ipc30": keys(ipc=30),
        "a-mtt-ipc1-quick": keys(ipc=1, budget="quick"),
        "a-mtt-ipc50-quick": keys(ipc=50, budget="quick"),
        "a-mtt-ipc1-teacher": keys(ipc=1, lr="teacher", budget="published"),
        "a-mtt-ipc10-teacher": keys(lr="teacher", budget="published"),
        "a-mtt-ipc50-reduced": keys(ipc=50, budget="reduced"),
        "a-mtt-ipc50-mdt": keys(ipc=50, mdt=0.1, budget="published"),
        "a-mtt-ipc50-released": keys(ipc=50, backbone="file", made_by="mtt", budget="published"),
        "b-mtt-ipc30": keys(ipc=30, dataset="b", budget="published"),
        "a-dc-ipc10": keys(backbone="dc", budget="published"),
        "a-rtp-ipc1": keys(backbone="rtp", ipc=1, budget="reduced", budget_note="50,000 iterations"),
        "a-rtp-ipc10": keys(backbone="rtp", budget="reduced", budget_note="5,000 iterations"),
        "a-full": reference("full", ipc=None),
    }
    assert rows_by_ipc(rows) == {
        "a-mtt": {1: "a-mtt-ipc1", 10: "a-mtt-ipc10", 30: "a-mtt-ipc30", 50: "a-mtt-ipc50-released"},
        "a-mtt-teacher": {1: "a-mtt-ipc1-teacher", 10: "a-mtt-ipc10-teacher"},
    }


def test_figure10_does_not_choose_between_rows_of_the_same_images_per_class():
    rows = {"x-ipc1": keys(ipc=1), "x-ipc10": keys(), "x-ipc10-other": keys()}
    assert rows_by_ipc(rows) == {"x": {1: "x-ipc1", 10: "x-ipc10"}}
    unnamed = {"one": keys(ipc=1), "ten": keys(), "ten-again": keys()}
    assert rows_by_ipc(unnamed) == {}


def test_figure5_puts_a_row_with_mdt_beside_the_same_without_and_as_many_random_images():
    rows = {
        "full": reference("full", ipc=None),
        "mtt-ipc1": keys(ipc=1),
        "mtt": keys(),
        "teacher": keys(lr="teacher"),
        "reduced": keys(budget="reduced"),
        "mdt": keys(mdt=0.1),
        "random": reference("random"),
        "random-ipc1": reference("random", ipc=1),
        "elsewhere": reference("random", dataset="other"),
    }
    assert with_and_without_mdt(rows, list(rows)) == ["mtt", "mdt", "random"]
    assert largest_sets(rows, ["full", "mtt-ipc1", "mtt"]) == ["full", "mtt"]


def test_networks_are_compared_with_those_of_the_same_data_set_and_of_as_many_random_images():
    rows = {
        "elsewhere": reference("full", ipc=None, dataset="other"),
        "full": reference("full", ipc=None),
        "random-ipc1": reference("random", ipc=1),
        "random": reference("random"),
        "mdt-ipc1": keys(ipc=1, mdt=0.1),
        "mtt": keys(backbone="file", made_by="mtt"),
        "mdt": keys(backbone="file", made_by="mtt", mdt=0.1),
    }
    names = list(rows)
    assert distilled_rows(rows, names) == ["mtt", "mdt"]
    assert compared_rows(rows, names) == {"FDNN": "full", "DDNN": "mtt", "Random images": "random"}
    assert distilled_rows(rows, ["full", "random", "mdt"]) == ["mdt"]
    assert compared_rows(rows, ["full", "random", "mdt"]) == {}


def labels(*rows: TableKeys) -> list[str]:
    return list(legend_labels({f"row{i}": of_row for i, of_row in enumerate(rows)}).values())


def test_legends_name_the_images_per_class_where_rows_differ_in_them():
    full = reference("full", ipc=None)
    assert labels(full, keys(), keys(mdt=0.1)) == ["Full data", "MTT", "MTT with MDT"]
    assert labels(keys(mdt=[0, 0.1])) == ["MTT with MDT_ds"]
    several = labels(full, keys(), keys(ipc=50), reference("random"))
    assert several == ["Full data", "MTT, 10 per class", "MTT, 50 per class", "Random images, 10 per class"]


def test_no_two_rows_have_the_same_label():
    assert labels(keys(), keys(lr="teacher"), keys(lr=0.01)) == [
        "MTT, learned step size",
        "MTT, teacher's step size",
        "MTT, step size 0.01",
    ]
    assert labels(keys(budget="published"), keys(budget="reduced"), keys(backbone="dc")) == [
        "MTT, published budget",
        "MTT, reduced budget",
        "DC",
    ]
    imported = keys(backbone="file", made_by="mtt")
    assert labels(imported) == ["MTT"]
    assert labels(keys(), imported, keys(backbone="file")) == ["row0", "row1", "Imported"]


# Figures of made-up results


def decomposition(value: float, dropped: bool = True) -> dict:
    """As in `data/svd/<row>.json`."""
    points = [{"share": share, "count": 1, "accuracy": [value]} for share in (0, 0.2)]
    return {"singular_values": [2.0, value], "dropped": points if dropped else []}


def test_figures_3_5_and_13_keep_every_row_apart():
    rows = {
        "published": keys(budget="published"),
        "reduced": keys(budget="reduced"),
        "mdt": keys(mdt=0.1, budget="reduced"),
        "random": reference("random"),
    }
    decomposed = {name: decomposition(0.1 * (i + 1)) for i, name in enumerate(rows)}
    drawn = singular_value_figures(rows, decomposed)
    sets = {name: list(drawn[name].data["set"].unique()) for name in drawn}
    plain = ["MTT, published budget", "MTT, reduced budget", "Random images"]
    assert sets["figure3"] == plain
    assert sets["figure5"] == ["MTT", "MTT with MDT", "Random images"]
    assert sets["figure13"] == [*plain[:2], "MTT with MDT", "Random images"]
    accuracies = drawn["figure5"].data.groupby("set")["accuracy_mean_percent"].first()
    assert accuracies["MTT"] == pytest.approx(20), "the row without MDT is the one of the same budget"


def made_up_features(seed: int) -> dict[str, np.ndarray]:
    """As in `data/features/<row>.safetensors`."""
    draws = np.random.default_rng(seed)
    features = {key: draws.random((2, 6)) for key in ("inside.max_probability", "outside.max_probability")}
    features |= {key: draws.normal(seed, 1, (2, 6)) for key in ("inside.max_logit", "own.max_logit")}
    features["masked.0.1.max_logit"] = draws.normal(0, 1, (2, 6))
    features["tsne.cross_entropy.block 1"] = draws.normal(size=(3, 2))
    return features | {"tsne.labels": np.arange(3)}


def test_random_images_are_the_control_of_figures_2a_and_4_alone():
    rows = {
        "full": reference("full", ipc=None),
        "random": reference("random"),
        "mtt": keys(),
        "mdt": keys(mdt=0.1),
    }
    features = {name: made_up_features(i) for i, name in enumerate(rows)}
    drawn = feature_figures(rows, features, ["a", "b", "c"])
    networks = {name: list(drawn[f"figure{name}"].data["network"].unique()) for name in ("2a", "4", "6", "7")}
    assert networks["2a"] == networks["4"] == ["FDNN", "DDNN", "Random images"]
    assert networks["6"] == ["MTT", "MTT with MDT"]
    assert networks["7"] == ["FDNN", "DDNN", "DDNN, distilled images 10 % masked"]
    assert list(drawn["figure2b"].data["group"].unique()) == ["MTT", "MTT with MDT"]
    means = drawn["figure2a"].data.groupby(["images", "network"])["mean"].first()
    assert means["own training images", "DDNN"] == pytest.approx(features["mtt"]["own.max_logit"].mean())
    assert means["test images", "FDNN"] == pytest.approx(features["full"]["inside.max_logit"].mean())


def test_figure12b_leaves_out_a_set_without_networks_of_one_of_the_losses():
    rows = {"mtt": keys(), "mdt": keys(mdt=0.1)}
    features = {name: made_up_features(i) for i, name in enumerate(rows)}
    drawn = feature_figures(rows, features, ["a", "b", "c"])
    assert list(drawn["figure12b"].data["network"].unique()) == ["MTT\nblock 1", "MTT with MDT\nblock 1"]
    features["mtt"]["tsne.mixup.block 1"] = features["mtt"]["tsne.cross_entropy.block 1"]
    data = feature_figures(rows, features, ["a", "b", "c"])["figure12b"].data
    assert list(data["network"].unique()) == ["MTT\nblock 1"]
    assert list(data["loss"].unique()) == ["cross-entropy", "mixup"]
    features["mdt"]["tsne.focal.block 1"] = features["mdt"]["tsne.cross_entropy.block 1"]
    assert "figure12b" not in feature_figures(rows, features, ["a", "b", "c"]), "no set has all three"


def test_a_quick_row_shows_in_no_figure_but_its_own(tmp_path, monkeypatch):
    values = suite()
    values["runs"]["shapes-mtt-ipc2-quick"] = row(budget="quick")
    for kind in ("svd", "features"):
        values[kind]["shapes-mtt-ipc2-quick"] = copy.deepcopy(values[kind]["shapes-mtt-ipc2"])
    monkeypatch.chdir(make_project(tmp_path, suites={"shapes": values}))
    names = ("shapes-full", "shapes-mtt-ipc2", "shapes-mtt-ipc2-mdt", "shapes-mtt-ipc2-quick")
    for i, name in enumerate(names):
        write_result(Row(name).singular_values, decomposition(0.1 * (i + 1)))
        write_arrays(Row(name).features, made_up_features(i), {"classes": ["a", "b", "c"]})
    drawn = suite_figures(Path("suites/shapes.yaml"))
    own = {name for name in drawn if name.endswith("-shapes-quick")}
    assert own == {f"figure{number}-shapes-quick" for number in ("2b", "3", "6", "12b", "13")}
    shared = drawn["figure3-shapes"].data
    assert list(shared["set"].unique()) == ["MTT", "Full data"]
    assert 40 not in shared["accuracy_mean_percent"].round(3).tolist()
    assert drawn["figure3-shapes-quick"].data["accuracy_mean_percent"].tolist() == pytest.approx([40, 40])


# The space that images are decomposed in


@pytest.fixture(scope="module")
def whitened(tmp_path_factory) -> Path:
    """A project with the same pictures under three whitenings, and random ones of each as five sets."""
    values = suite()
    rows = {}
    for whitening in WHITENINGS:
        values["datasets"][whitening] = copy.deepcopy(values["datasets"]["shapes"])
        values["datasets"][whitening]["images"]["whitening"] = whitening
        real = {"backbone": "random", "reads": "nothing", "distill": {}, "lr": 0.05}
        rows[f"random-{whitening}"] = row(dataset=whitening, ipc=5, epochs=1, **real)
    named = {"suite": "shapes", "drop": [0, 0.2], "epochs": 1}
    values["runs"] = rows
    values["svd"] = {f"random-{whitening}": named | {"dataset": whitening} for whitening in WHITENINGS}
    values |= {"architectures": {}, "features": {}, "choices": {}, "reach": {}}
    folder = make_project(tmp_path_factory.mktemp("whitened"), suites={"shapes": values})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for whitening in WHITENINGS:
            run("prepare", whitening)
            run("distill", f"random-{whitening}")
            run("svd", f"random-{whitening}")
    return folder


@pytest.fixture
def here(whitened, monkeypatch) -> Path:
    monkeypatch.chdir(whitened)
    return whitened


def ratio_of(images: torch.Tensor) -> np.ndarray:
    return cumulative_ratio(torch.linalg.svdvals(images.flatten(1)).numpy())


def test_the_same_images_explain_the_same_whatever_their_whitening(here):
    ratios = {}
    as_seen = {}
    for whitening in ("zca", "none"):
        one = Row(f"random-{whitening}")
        result = json.loads(one.singular_values.read_text())
        ratios[whitening] = cumulative_ratio(np.array(result["singular_values"]))
        as_seen[whitening] = ratio_of(load_set(one.distilled, one.prepared).of_repeat(0).images)
    assert np.allclose(ratios["zca"], ratios["none"], atol=1e-3)
    assert np.abs(as_seen["zca"] - as_seen["none"]).max() > 0.1, "as the networks see them, they differ"


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_standardised_pixels_lead_back(here, whitening):
    prepared = Row(f"random-{whitening}").prepared
    space = standardised_pixels(prepared)
    images = load_split(prepared, "train").images[:]
    assert torch.allclose(space.leave(space.enter(images)), images, atol=1e-3)
    if whitening != "gcn-zca":
        standardised = space.enter(images)
        assert torch.allclose(standardised.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
        assert torch.allclose(standardised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def setup(whitening: str) -> Setup:
    one = Row(f"random-{whitening}")
    return setup_of(one, one.keys(TrainKeys), train_settings())


@pytest.mark.parametrize("whitening", ["zca", "none"])
def test_dropping_nothing_leaves_the_images_untouched(here, whitening):
    before = setup(whitening)
    space = standardised_pixels(Row(f"random-{whitening}").prepared)
    assert without_largest(before, space, 0).data is before.data


@pytest.mark.parametrize("whitening", ["zca", "none"])
def test_dropping_everything_leaves_the_mean_of_each_channel(here, whitening):
    before = setup(whitening)
    space = standardised_pixels(Row(f"random-{whitening}").prepared)
    count = len(singular_values_of(before, space))
    after = without_largest(before, space, count).data.images
    pixels = space.transform.backward(after[before.rows[0]])
    assert torch.allclose(pixels, space.mean[:, None, None].expand_as(pixels), atol=1e-3)


def test_each_repeat_loses_the_largest_component_of_its_own_set(here):
    before = setup("zca")
    space = standardised_pixels(Row("random-zca").prepared)
    after = without_largest(before, space, 1).data.images
    assert not torch.equal(before.rows[0], before.rows[1])
    for rows in before.rows:
        own = space.enter(before.data.images[rows]).flatten(1)
        values = torch.linalg.svdvals(own)
        left = torch.linalg.svdvals(space.enter(after[rows]).flatten(1))
        assert torch.allclose(left[:-1], values[1:], rtol=1e-3, atol=1e-3)
    unused = load_file(Row("random-zca").distilled)["set"] >= len(before.rows)
    assert torch.equal(after[unused], before.data.images[unused])


def test_singular_values_are_of_the_set_of_the_first_repeat(here):
    one = Row("random-none")
    result = json.loads(one.singular_values.read_text())
    images = load_set(one.distilled, one.prepared).of_repeat(0).images
    space = standardised_pixels(one.prepared)
    values = torch.linalg.svdvals(space.enter(images).flatten(1))
    assert result["singular_values"] == pytest.approx(values.tolist(), rel=1e-4)
    assert [len(point["accuracy"]) for point in result["dropped"]] == [2, 2]


# Maximum logits


def test_maximum_logits_are_of_the_images_of_each_repeat(tmp_path, monkeypatch):
    """Of a row with several sets, each network sees the set that it was trained on."""
    values = suite()
    real = {"backbone": "random", "reads": "nothing", "distill": {}, "lr": 0.05}
    values["runs"] = {"random": row(epochs=2, **real)}
    values["features"] = {"random": values["features"]["shapes-mtt-ipc2"] | {"losses": ["cross_entropy"]}}
    values |= {"buffers": {}, "architectures": {}, "svd": {}, "choices": {}, "reach": {}}
    monkeypatch.chdir(make_project(tmp_path, suites={"shapes": values}))
    for name in values["datasets"]:
        run("prepare", name)
    run("distill", "random")
    run("train", "random")
    run("features", "random")
    one = Row("random")
    distilled = load_set(one.distilled, one.prepared)
    network = flat_convnet(one.network, distilled.data, torch.device("cpu"))
    found = load_file(one.features)["own.max_logit"]
    for repeat, theta in enumerate(load_file(one.weights)["cross_entropy"]):
        expected = network(theta, distilled.of_repeat(repeat).images).detach().amax(1)
        assert torch.allclose(found[repeat], expected, atol=1e-5)
    assert not torch.equal(distilled.of_repeat(0).images, distilled.of_repeat(1).images)


def test_networks_that_are_surer_of_images_from_inside_detect_those_from_outside():
    features = {
        "inside.max_probability": np.full((2, 9), 0.9),
        "outside.max_probability": np.full((2, 7), 0.3),
    }
    assert detection(features) == {"auroc": [1.0, 1.0], "fpr95": [0.0, 0.0]}
