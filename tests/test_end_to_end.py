"""A miniature of the whole pipeline: the stages, by name, on a small project, from pictures to the page."""

import json
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from by_hand import ece_of_tops
from project import (
    CLASSES,
    MTT,
    PARAMS,
    copy_of,
    kill_at_the_second_training,
    make_project,
    row,
    run,
    run_all,
    suite,
    write_yaml,
)
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from stages.calibrators.early_stopped import lbfgs_path, within
from stages.calibrators.fitting import Fitting
from stages.calibrators.optimum import optimum
from stages.evaluate import Method, errors_of, measured, methods_of
from stages.evaluate import TestImages as Judged
from stages.features import block_outputs
from stages.images.distilled import load_set
from stages.images.masking import mask_images
from stages.images.prepared import load_split, load_transform
from stages.images.sampling import held_out
from stages.metrics.adaptive_ece import adaptive_ece
from stages.metrics.bootstrap import estimate, weights
from stages.metrics.classwise_ece import classwise_ece
from stages.runtime.errors import UserError
from stages.runtime.files import read_about, read_result, write_result, write_tensors
from stages.runtime.randomness import generator
from stages.settings.rows import Row
from stages.svd import dropped
from stages.tools.lent_results import write_arrays
from stages.training.flat import flat_convnet
from stages.training.groups import train_groups

ROWS = list(suite()["runs"])
NAME = "shapes-mtt-ipc2"
FOUR = ("masked", "calibrate", "evaluate", "ablate")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The project with every stage run once."""
    folder = make_project(tmp_path_factory.mktemp("built"))
    with chdir(folder):
        run_all(suite())
    return folder


@pytest.fixture(autouse=True)
def here(built, monkeypatch):
    monkeypatch.chdir(built)


@pytest.fixture
def copy(built, tmp_path, monkeypatch) -> Path:
    """A copy of the built project to change, as the working directory."""
    return copy_of(built, tmp_path, monkeypatch)


def methods(name: str) -> dict:
    return json.loads(Row(name).results.read_text())["methods"]


def change_params(**changes) -> None:
    write_yaml(Path("params.yaml"), PARAMS | changes)


def change_suite(**changes) -> None:
    write_yaml(Path("suites/shapes.yaml"), suite() | changes)


# Tables, figures, metrics


def test_every_row_gets_to_the_tables():
    tables = ("table1", "table5", "table7", "scores")
    text = "".join(Path(f"reports/tables/{name}.md").read_text() for name in tables)
    for name in ROWS:
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
        assert "missing" not in line
    one_a_class = next(line for line in text.splitlines() if line.startswith("| shapes-random-ipc1 "))
    assert one_a_class.split("|")[5].strip() == "-", "TS does not exist at one image a class"


def test_checkpoints_are_gone_when_the_work_is_done():
    assert not [path for path in Path("scratch").glob("*/*") if path.parent.name != "decoded"]


def test_every_figure_is_drawn():
    names = {path.name for path in Path("reports/figures").glob("*/*")}
    for number in ("2a", "2b", "3", "4", "5", "6", "7", "8", "9", "12b", "13"):
        assert {f"figure{number}-shapes.svg", f"figure{number}-shapes.csv"} <= names
    assert f"figure1-{NAME}.svg" in names
    assert Path("reports/index.html").stat().st_size > 100_000


def test_metrics_are_flat_numbers_in_percent():
    metrics = json.loads(Row(NAME).metrics.read_text())
    assert {
        "accuracy",
        "ece_raw",
        "ece_ts",
        "ece_mts",
        "ece_focal",
        "ece_fixed",
        "ece_oracle",
    } <= metrics.keys()
    assert all(isinstance(value, float) and 0 <= value <= 100 for value in metrics.values())


def test_rows_that_ran_elsewhere_are_in_the_tables(copy):
    """Rows of suites that are not listed are shown where a report's folder has their results."""
    name = "shapes-random-ipc1"
    results = json.loads(Row(name).results.read_text())
    without_intervals = json.loads(json.dumps(results))
    del without_intervals["methods"]["raw"]["interval"]
    kinds = {"evaluate": results, "ablate": json.loads(Row(name).ablation.read_text())}
    rows = {"made": kinds, "older": {"evaluate": without_intervals}, "unknown": kinds}
    rows["large"] = {"evaluate": "left out: 2000000 bytes"}
    Path("reports/far").mkdir()
    Path("reports/far/metrics.json").write_text(json.dumps({"rows": rows}))
    settings = row(backbone="random", ipc=1, reads="nothing", distill={}, lr=0.05)
    names = ("made", "older", "large", "to-do")
    empty = dict.fromkeys(("datasets", "buffers", "architectures", "svd", "features"), {})
    write_yaml(Path("suites/far.yaml"), empty | {"runs": dict.fromkeys(names, settings)})
    run("report")
    text = Path("reports/README.md").read_text()
    page = Path("reports/index.html").read_text()
    table5 = Path("reports/tables/table5.md").read_text()
    ours = next(line for line in table5.splitlines() if line.startswith(f"| {name} "))
    assert ours.replace(name, "made") in table5
    assert "| made § | 0.05 | 1.5 | 50 |" in text
    assert "row by row with `python -m stages.tools.lent`: `made`." in text and "`far/README.md`" in text
    assert 'id="row-made"' in page and "far/README.md" in page
    for other in ("older", "unknown", "large", "to-do"):
        assert f"| {other} " not in text


def test_a_listed_row_is_shown_by_its_results_from_elsewhere_until_it_has_its_own(copy):
    name = "shapes-random-ipc1"
    own = json.loads(Row(name).results.read_text())
    others = json.loads(json.dumps(own))
    others["methods"]["raw"]["ece"] = [0.4321] * len(others["methods"]["raw"]["ece"])
    kinds = {"evaluate": others, "ablate": json.loads(Row(name).ablation.read_text())}
    Path("reports/far").mkdir()
    Path("reports/far/metrics.json").write_text(json.dumps({"rows": {name: kinds}}))

    def ece_in_table5() -> str:
        run("report")
        table5 = Path("reports/tables/table5.md").read_text()
        return next(line for line in table5.splitlines() if line.startswith(f"| {name} "))

    assert "43.21" not in ece_in_table5()
    Row(name).results.unlink()
    assert "43.21" in ece_in_table5()
    assert Path("reports/far/metrics.json").as_posix() in Path("reports/index.html").read_text()
    run("evaluate", name)
    assert "43.21" not in ece_in_table5()


def test_figures_of_rows_that_ran_elsewhere_are_those_that_analyses_draws(copy):
    """But for what 16 bits leave of the features, which may put an image into another bar of a histogram."""
    values = suite()
    names = [name for name in values["runs"] if name in values["features"]]
    numbers = {}
    for name in names:
        own = {"evaluate": Row(name).results, "svd": Row(name).singular_values}
        numbers[f"far-{name}"] = {kind: json.loads(file.read_text()) for kind, file in own.items()}
    Path("reports/far").mkdir()
    Path("reports/far/metrics.json").write_text(json.dumps({"rows": numbers}))
    features = {f"far-{name}": Row(name).features for name in names}
    write_arrays(Path("reports/far/features.safetensors"), features, list(features))
    far = {kind: {} for kind in ("datasets", "buffers", "architectures")}
    for kind in ("runs", "features", "svd"):
        far[kind] = {f"far-{name}": values[kind][name] | {"suite": "far"} for name in names}
    write_yaml(Path("suites/far.yaml"), far)
    run("report")
    for number in ("2a", "2b", "3", "4", "5", "6", "7", "12b", "13"):
        drawn = pd.read_csv(f"reports/figures/calibration/figure{number}-far.csv")
        own = pd.read_csv(f"reports/figures/analyses/figure{number}-shapes.csv")
        compared = [column for column in own if column != "density"]
        pd.testing.assert_frame_equal(drawn[compared], own[compared], rtol=0.01, atol=0.01)
    assert "far-shapes-mtt-ipc2" in Path("reports/tables/outside.md").read_text()


@pytest.mark.parametrize(
    "content, expected",
    [("{}", "rows: expected the results of rows"), ('{"rows": 5}', "rows: expected"), ("[1]", "got list")],
)
def test_results_from_elsewhere_without_rows_are_refused(content, expected, copy):
    Path("reports/far").mkdir()
    Path("reports/far/metrics.json").write_text(content)
    with pytest.raises(UserError, match=f"reports/far/metrics.json: .*{expected}"):
        run("report")


def test_a_row_with_results_from_two_places_is_refused(copy):
    name = "shapes-random-ipc1"
    kinds = {"evaluate": json.loads(Row(name).results.read_text())}
    for folder in ("far", "further"):
        Path("reports", folder).mkdir()
        Path("reports", folder, "metrics.json").write_text(json.dumps({"rows": {name: kinds}}))
    run("report")  # its own results are shown
    Row(name).results.unlink()
    with pytest.raises(UserError, match=f"further/metrics.json: rows.{name}: reports/far/metrics.json has"):
        run("report")


def test_a_suite_of_one_row_without_analyses_builds_every_report(tmp_path, monkeypatch):
    values = suite()
    one = {"shapes-random-ipc1": values["runs"]["shapes-random-ipc1"]}
    values = {"datasets": values["datasets"], "buffers": {}, "runs": one}
    monkeypatch.chdir(make_project(tmp_path, suites={"shapes": values}))
    run_all(values)
    assert "shapes-random-ipc1" in Path("reports/tables/table5.md").read_text()
    assert Path("reports/index.html").exists() and Path("reports/README.md").exists()


# Networks and temperatures


def test_the_convnet_among_the_architectures_is_raw():
    tried = json.loads(Row(NAME).architectures.read_text())
    raw = methods(NAME)["raw"]
    assert all(tried["convnet"][key] == raw[key] for key in ("accuracy", "ece", "nll", "brier"))
    assert tried["mlp"]["nll"] != raw["nll"]


def test_a_temperature_leaves_the_accuracy_as_it_is():
    for name in ROWS:
        scores = methods(name)
        for key in ("mts", "mts_converged", "fixed", "oracle"):
            assert scores[key]["accuracy"] == scores["raw"]["accuracy"]
            assert all(t > 0 for t in scores[key]["temperature"])


def test_the_oracle_is_the_best_temperature():
    scores = methods(NAME)
    for key in ("raw", "mts", "mts_converged", "fixed"):
        for best, other in zip(scores["oracle"]["nll"], scores[key]["nll"]):
            assert best <= other + 1e-9


def test_the_same_seed_gives_the_same_numbers(built, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    run_all(suite())
    for name in ROWS:
        ours, theirs = Row(name).logits, built / Row(name).logits
        assert ours.read_bytes() == theirs.read_bytes()
        assert Row(name).results.read_text() == (built / Row(name).results).read_text()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same_numbers(built, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path, PARAMS | {"device": "cuda"}))
    run_all(suite())
    for name in ROWS:
        ours, theirs = load_file(Row(name).logits), load_file(built / Row(name).logits)
        assert all(
            torch.allclose(ours[key].float(), theirs[key].float(), rtol=1e-2, atol=1e-2) for key in theirs
        )


def test_test_labels_reach_no_network_and_no_temperature(built, copy):
    """With all test labels wrong, weights, fitting logits and temperatures stay, and accuracy changes."""
    one = Row(NAME)
    former = methods(NAME)
    test_file = one.prepared / "test.safetensors"
    test = load_file(test_file)
    write_tensors(test_file, test | {"labels": (test["labels"] + 1) % 3})
    for file in (one.weights, one.logits, one.fitting_logits, one.temperatures, one.results):
        file.unlink()
    run("train", NAME)
    for stage in ("masked", "calibrate", "evaluate"):
        run(stage, NAME)
    for file in (one.weights, one.fitting_logits):
        ours, theirs = load_arrays(file), load_arrays(built / file)
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    ours, theirs = (json.loads((folder / one.temperatures).read_text()) for folder in (copy, built))
    assert ours["methods"] == theirs["methods"]
    scores = methods(NAME)
    assert scores["mts"]["temperature"] == former["mts"]["temperature"]
    assert scores["raw"]["accuracy"] != former["raw"]["accuracy"]
    assert scores["oracle"]["temperature"] != former["oracle"]["temperature"]


# What is computed again


def test_another_mask_ratio_changes_mts_and_nothing_else(copy):
    former = {name: methods(name) for name in ROWS}
    before = json.loads(Row(NAME).temperatures.read_text())["methods"]
    change_params(mask_ratio=0.8)
    for stage in ("masked", "calibrate", "evaluate"):
        run(stage)
    after = json.loads(Row(NAME).temperatures.read_text())
    assert after["mask_ratio"] == 0.8
    assert after["methods"]["ts"] == before["ts"] and after["methods"]["mts"] != before["mts"]
    for name in ROWS:
        for method, scores in methods(name).items():
            if not method.startswith("mts"):
                assert scores == former[name][method]


def test_a_swept_mask_ratio_runs_no_network(copy, monkeypatch):
    monkeypatch.setattr(
        "stages.calibrators.fitting_logits.fitting_logits", lambda *arguments: pytest.fail("ran")
    )
    change_params(mask_ratio=0.8)
    run("masked")


def test_one_more_mask_ratio_costs_that_ratio(copy, monkeypatch):
    """Former logits are kept, and thrown away with the networks that they are of."""
    from stages.calibrators import fitting_logits as module

    asked = []
    real = module.fitting_logits

    def recorded(row, wanted):
        asked.append({fitting.ratio for fitting in wanted})
        return real(row, wanted)

    monkeypatch.setattr(module, "fitting_logits", recorded)
    before = load_arrays(Row(NAME).fitting_logits)
    change_params(mask_ratio=0.5)
    run("masked", NAME)
    after = load_arrays(Row(NAME).fitting_logits)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert after.keys() - before.keys() == {
        "mts/0.5/0.1",
        "mts/0.5/0.1.labels",
        "mts_holdout/0.5/0.1",
        "mts_holdout/0.5/0.1.labels",
    }
    write_tensors(Row(NAME).weights, load_file(Row("shapes-mtt-ipc2-mdt").weights))
    run("masked", NAME)
    assert asked == [{0.5}, {0, 0.3, 0.5, 0.8}]


def test_a_mask_ratio_for_all_rows_is_what_it_would_be_among_the_ablations(copy):
    swept = load_arrays(Row(NAME).fitting_logits)[Fitting("mts", 0.8, 0.1).key]
    change_params(mask_ratio=0.8, ablate=PARAMS["ablate"] | {"ratios": [0.0]})
    Row(NAME).fitting_logits.unlink()
    run("masked", NAME)
    assert np.array_equal(load_arrays(Row(NAME).fitting_logits)[Fitting("mts", 0.8, 0.1).key], swept)


@pytest.mark.parametrize("stage", ["calibrate", "evaluate", "ablate"])
def test_what_has_not_changed_is_not_computed_again(copy, stage):
    """A result whose inputs are the same is kept, even where a mark was put into it by hand.

    Its file is not written anew: it would be recorded as made by a run that has computed nothing.
    """
    property_of = {"calibrate": "temperatures", "evaluate": "results", "ablate": "ablation"}[stage]
    files = {name: getattr(Row(name), property_of) for name in ROWS}
    for file in files.values():
        values = read_result(file)
        entry = values["methods"]["mts"] if stage != "ablate" else values
        entry["mark"] = 1
        write_result(file, values)
    stamps = {name: file.stat().st_mtime_ns for name, file in files.items()}
    changed = Row("shapes-random-ipc1")
    for file in (changed.logits, changed.fitting_logits):
        tensors = load_file(file)
        changed_tensors = {}
        for key, value in tensors.items():
            changed_tensors[key] = value * 2 if value.is_floating_point() else value
        write_tensors(file, changed_tensors)
    run(stage)
    kept = {name for name, file in files.items() if '"mark"' in file.read_text()}
    untouched = {name for name, file in files.items() if file.stat().st_mtime_ns == stamps[name]}
    assert kept == untouched == set(ROWS) - {changed.name}


def test_files_of_rows_that_are_not_listed_any_more_go(copy):
    runs = suite()["runs"]
    del runs["shapes-mtt-ipc2-mdtds"]
    change_suite(runs=runs)
    for stage in FOUR:
        run(stage)
        assert {path.stem for path in Path("data", stage).iterdir()} == set(runs)


def test_one_row_alone_leaves_the_others_as_they_are(copy):
    other = Row("shapes-full")
    stamp = other.results.stat().st_mtime_ns
    Row(NAME).results.unlink()
    run("evaluate", NAME)
    assert Row(NAME).results.exists() and other.results.stat().st_mtime_ns == stamp


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def ece_by_hand(p: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The expected calibration error of `(N, K)` probabilities."""
    return ece_of_tops(p.max(1).astype(float), p.argmax(1) == labels, bins)


@pytest.mark.parametrize("name", ROWS)
def test_scores_are_those_of_the_networks_and_temperatures_that_a_method_names(name):
    one = Row(name)
    logits = {key: values.astype(float) for key, values in load_arrays(one.logits).items()}
    labels = logits.pop("labels").astype(int)
    fits = read_result(one.temperatures)["methods"]
    raw = [1.0] * len(logits["cross_entropy"])
    shipped = [read_result(one.shipped)["temperature"]] * len(raw)
    expected = {"raw": ("cross_entropy", raw), "shipped": ("cross_entropy", shipped)}
    expected |= {loss: (loss, raw) for loss in ("mixup", "label_smoothing", "focal")}
    expected["mts"] = ("cross_entropy", fits["mts"]["early_stopped"]["temperature"])
    expected["mts_converged"] = ("cross_entropy", fits["mts"]["converged"]["temperature"])
    if "ts" in fits:
        expected["ts"] = ("holdout", fits["ts"]["early_stopped"]["temperature"])
        expected["mts_holdout"] = ("holdout", fits["mts_holdout"]["early_stopped"]["temperature"])
    for method, (group, temperatures) in expected.items():
        numbers = methods(name)[method]
        p = [softmax(z / temperature) for z, temperature in zip(logits[group], temperatures)]
        right = np.array([of_network.argmax(1) == labels for of_network in p])
        confidence = np.array([of_network.max(1) for of_network in p])
        assert numbers["temperature"] == temperatures
        assert numbers["accuracy"] == pytest.approx(right.mean(1))
        assert numbers["confidence_gap"] == pytest.approx((confidence - right).mean(1), abs=1e-6)
        for key, bins in (("ece", 10), ("ece_15", 15)):
            by_hand = [ece_by_hand(of_network, labels, bins) for of_network in p]
            assert numbers[key] == pytest.approx(by_hand, abs=1e-5), (method, key)
        assert numbers["adaptive_ece"] == pytest.approx([adaptive_ece(q, labels) for q in p], abs=1e-5)
        assert numbers["classwise_ece"] == pytest.approx([classwise_ece(q, labels) for q in p], abs=1e-5)
        diagram = {key: np.array(values) for key, values in numbers["reliability"].items()}
        assert diagram["count"].sum() == right.size
        assert np.sum(diagram["count"] * diagram["accuracy"]) == pytest.approx(right.sum())


def test_every_method_has_the_marks_of_its_own_fit():
    def fit(temperature: float, hits: list[bool]) -> dict:
        return {"temperature": [temperature] * 2, "bound_hit": hits}

    early, exact = fit(1.2, [True, False]), fit(0.05, [False, True])
    fitted = {
        "start": 1.5,
        "methods": {"mts": {"networks": "cross_entropy", "early_stopped": early, "converged": exact}},
    }
    logits = {"cross_entropy": np.random.default_rng(0).normal(size=(2, 30, 3))}
    shipped = {"temperature": 20.0, "bound_hit": True}
    labels = logits["cross_entropy"][0].argmax(1)  # so the oracle of the first network is on a bound
    found = methods_of(logits, fitted, shipped, labels, [0.05, 20.0])
    assert {name: method.bound_hits for name, method in found.items()} == {
        "raw": [False, False],
        "mts": [True, False],
        "mts_converged": [False, True],
        "shipped": [True, True],
        "fixed": [False, False],
        "oracle": [True, False],
    }


def test_intervals_are_of_each_networks_errors_on_the_same_resamples():
    one = Row(NAME)
    logits = {key: values.astype(float) for key, values in load_arrays(one.logits).items()}
    labels = logits.pop("labels").astype(int)
    counts = weights(len(labels), PARAMS["evaluate"]["resamples"], 0).astype(int)
    assert len(logits["cross_entropy"]) > 1

    def errors(method: str) -> tuple[np.ndarray, np.ndarray]:
        networks = method if method in logits else "cross_entropy"
        p = [softmax(z / t) for z, t in zip(logits[networks], methods(NAME)[method]["temperature"])]
        drawn = [[ece_by_hand(q.repeat(n, 0), labels.repeat(n), 10) for n in counts] for q in p]
        return np.array([ece_by_hand(q, labels, 10) for q in p]), np.array(drawn)

    raw = errors("raw")
    for method in ("raw", "mixup", "mts", "shipped", "oracle"):
        numbers, of_method = methods(NAME)[method], errors(method)
        value, *interval = estimate(*of_method)
        assert numbers["interval"]["ece"] == pytest.approx(interval, abs=1e-4), method
        assert numbers["corrected"]["ece"] == pytest.approx(value, abs=1e-4)
        value, *interval = estimate(*(ours - of_raw for ours, of_raw in zip(of_method, raw)))
        assert numbers["difference_to_raw"] == pytest.approx(interval, abs=1e-4), method
        assert numbers["corrected"]["difference_to_raw"] == pytest.approx(value, abs=1e-4)
        low, high = numbers["interval"]["smooth_ece"]
        assert low <= numbers["corrected"]["smooth_ece"] <= high
        assert [low, high] != numbers["interval"]["ece"]
    assert methods(NAME)["raw"]["difference_to_raw"] == [0, 0]


def test_a_method_with_a_lower_ece_than_raw_has_a_negative_difference_to_it():
    draws = np.random.default_rng(0)
    calibrated = draws.normal(0, 1.5, (2, 2000, 3))
    labels = np.array([draws.choice(3, p=p) for p in softmax(calibrated[0])])
    logits = {"cross_entropy": 4 * calibrated[:1]}
    images = Judged(labels, weights(len(labels), 50, 0), bins=10)
    raw, better = (Method("cross_entropy", [t], [False]) for t in (1.0, 4.0))
    errors = errors_of(raw, logits, images)
    result = measured(better, logits, images, errors)
    low, high = result["difference_to_raw"]
    difference = result["ece"][0] - errors.own[0]
    assert low < high < 0
    assert difference == pytest.approx(result["corrected"]["difference_to_raw"], abs=0.02)
    assert low - 0.02 < difference < high + 0.02


def test_the_sweep_is_of_the_logits_at_each_of_its_temperatures():
    logits = load_arrays(Row(NAME).logits)
    swept = json.loads(Row(NAME).results.read_text())["sweep"]
    for place in (0, 8, -1):
        temperature = swept["temperatures"][place]
        p = [softmax(z.astype(float) / temperature) for z in logits["cross_entropy"]]
        by_hand = np.mean([ece_by_hand(of_network, logits["labels"], 10) for of_network in p])
        assert swept["groups"]["cross_entropy"]["ece"][place] == pytest.approx(by_hand, abs=1e-3)


def test_the_images_that_ts_is_fitted_on_are_in_no_training_of_its_networks(copy):
    """Noise in their place changes the networks on all images, and not those that TS calibrates."""
    one = Row(NAME)
    before = load_file(one.weights)
    tensors = load_file(one.distilled)
    rows = held_out(tensors["labels"], len(CLASSES), PARAMS["train"]["holdout"], 0, 0)
    tensors["images"][rows] = 9 * torch.randn_like(tensors["images"][rows])
    write_tensors(one.distilled, tensors, read_about(one.distilled))
    one.weights.unlink()
    run("train", NAME)
    after = load_file(one.weights)
    assert torch.equal(after["holdout"][0], before["holdout"][0])
    assert not torch.allclose(after["cross_entropy"][0], before["cross_entropy"][0], atol=1e-3)
    assert not torch.allclose(after["holdout"][1], before["holdout"][1], atol=1e-3), "it holds out others"


def test_ts_is_fitted_on_what_its_own_networks_make_of_the_images_that_they_have_not_seen():
    one = Row(NAME)
    distilled = load_set(one.distilled, one.prepared)
    network = flat_convnet(one.network, distilled.data, torch.device("cpu"))
    weights = load_file(one.weights)["holdout"]
    fitted = load_file(one.fitting_logits)
    key = Fitting("ts", 0.0, PARAMS["train"]["holdout"]).key
    for repeat, theta in enumerate(weights):
        rows = held_out(distilled.data.labels, len(CLASSES), PARAMS["train"]["holdout"], 0, repeat)
        expected = network(theta, distilled.data.images[rows]).detach()
        assert torch.allclose(fitted[key][repeat], expected, atol=1e-5)
        assert torch.equal(fitted[f"{key}.labels"][repeat], distilled.data.labels[rows])


def test_the_sweep_at_temperature_1_is_raw_and_the_other_losses():
    for name in ROWS:
        swept = json.loads(Row(name).results.read_text())["sweep"]
        at_1 = swept["temperatures"].index(1)
        for method, numbers in methods(name).items():
            group = swept["groups"].get("cross_entropy" if method == "raw" else method)
            if group:
                assert group["ece"][at_1] == pytest.approx(np.mean(numbers["ece"]), abs=1e-5)
                assert group["count"][at_1] == numbers["reliability"]["count"]


def test_dvcs_plots_have_every_bin_with_a_prediction():
    for name in ROWS:
        bins = pd.read_csv(Row(name).reliability)
        for method, numbers in methods(name).items():
            of_method = bins[bins["method"] == method]
            diagram = {key: np.array(values) for key, values in numbers["reliability"].items()}
            filled = diagram["count"] > 0
            assert of_method["accuracy"].to_numpy() == pytest.approx(diagram["accuracy"][filled], abs=1e-4)
            assert of_method["share"].sum() == pytest.approx(1, abs=1e-3)


def test_the_ablation_at_the_papers_settings_is_the_rows_own_mts():
    for name in ROWS:
        ablation = json.loads(Row(name).ablation.read_text())
        scores = methods(name)
        own = [fit for fit in ablation["fits"] if (fit["ratio"], fit["share"]) == (0.3, 0.1)]
        for start, steps, method in ((1.5, 50, "mts"), (None, None, "mts_converged")):
            (fit,) = [fit for fit in own if (fit["start"], fit["steps"]) == (start, steps)]
            assert fit["temperature"] == scores[method]["temperature"]
            assert fit["ece"] == scores[method]["ece"]
        for name in ("raw", "fixed", "shipped"):
            assert ablation[name] == scores[name]["ece"]


def test_every_fit_of_the_ablation_is_of_its_own_images_start_and_steps():
    one = Row(NAME)
    logits = load_arrays(one.fitting_logits)
    test = load_arrays(one.logits)
    bounds = PARAMS["calibrate"]["bounds"]
    fits = json.loads(one.ablation.read_text())["fits"]
    assert {fit["ratio"] for fit in fits} == {0, 0.3, 0.8} and {fit["share"] for fit in fits} == {0.1, 0.5}
    assert {fit["steps"] for fit in fits} == {None, 1, 20, 50, 60}
    for fit in fits:
        key = Fitting("mts", fit["ratio"], fit["share"]).key
        images = list(zip(logits[key], logits[f"{key}.labels"]))
        if fit["steps"] is None:
            expected = [optimum(z, labels, bounds).temperature for z, labels in images]
        else:
            paths = [lbfgs_path(z, labels, fit["start"], 0.02, fit["steps"]) for z, labels in images]
            expected = [within(path[-1], bounds).temperature for path in paths]
        assert fit["temperature"] == pytest.approx(expected, rel=1e-6), fit
        p = [softmax(z.astype(float) / t) for z, t in zip(test["cross_entropy"], fit["temperature"])]
        by_hand = [ece_by_hand(of_network, test["labels"], 10) for of_network in p]
        assert fit["ece"] == pytest.approx(by_hand, abs=1e-5)


RESULTS = {"calibrate": "temperatures", "evaluate": "results", "ablate": "ablation"}
RESULTS |= {"svd": "singular_values", "reach": "reach", "temperature": "shipped"}
CHANGED = {
    "calibrate": {"calibrate": PARAMS["calibrate"] | {"lr": 0.03}},
    "evaluate": {"evaluate": PARAMS["evaluate"] | {"bins": 7}},
    "ablate": {"calibrate": PARAMS["calibrate"] | {"start": 1.7}},
    "svd": {"train": PARAMS["train"] | {"momentum": 0.8}},
    "reach": {"evaluate": PARAMS["evaluate"] | {"bins": 7}},
    "temperature": {"calibrate": PARAMS["calibrate"] | {"bounds": [0.1, 10.0]}},
}


@pytest.mark.parametrize("what", ["code", "settings"])
@pytest.mark.parametrize("stage", RESULTS)
def test_a_result_of_other_code_or_settings_is_made_anew(stage, what, copy):
    """A mark that was put into it by hand is gone."""
    file = getattr(Row(NAME), RESULTS[stage])
    values = read_result(file)
    entries = values["methods"].values() if stage == "evaluate" else [values]
    for entry in entries:
        entry["mark"] = 1
    write_result(file, values)
    run(stage, NAME)
    assert '"mark"' in file.read_text(), "nothing has changed yet"
    if what == "code":
        write_result(Path(f"data/code/{stage}.json"), {"stages/no_such_module.py": "0"})
    else:
        change_params(**CHANGED[stage])
    run(stage, NAME)
    assert '"mark"' not in file.read_text()


def test_networks_without_singular_values_are_trained_on_images_without_them(copy, monkeypatch):
    seen = []

    def note(groups, setup, folder):
        seen.append(setup.data.images[:].clone())
        return train_groups(groups, setup, folder)

    one = Row(NAME)
    one.singular_values.unlink()
    monkeypatch.setattr("stages.svd.train_groups", note)
    run("svd", NAME)
    whole, reduced = (images[:6].flatten(1).double() for images in seen)
    assert torch.equal(whole.float(), load_file(one.distilled)["images"][:6].flatten(1))
    assert not torch.allclose(whole, reduced, atol=1e-2)


def test_analyses_of_unchanged_rows_are_kept(copy, monkeypatch):
    """Nothing is trained or mapped again where sets, networks, settings and code are the same."""
    for name in (
        "stages.svd.train_groups",
        "stages.architectures.train_groups",
        "stages.features.on_all_cores",
    ):
        monkeypatch.setattr(name, lambda *arguments: pytest.fail("computed again"))
    for stage in ("svd", "features", "architectures"):
        run(stage)
    change_params(train=PARAMS["train"] | {"weight_decay": 0.0})
    with pytest.raises(pytest.fail.Exception):
        run("svd")


# Singular values and features


def test_dropping_singular_values_is_numpys():
    images = load_split(Row(NAME).prepared, "train").images[:12]
    u, s, v = np.linalg.svd(images.flatten(1).double().numpy(), full_matrices=False)
    for count in (0, 1, 5, 12):
        rest = s * (np.arange(12) >= count)
        assert np.allclose(dropped(images, count).flatten(1).numpy(), u * rest @ v, atol=1e-5)


def test_singular_values_are_numpys_of_the_distilled_images_as_standardised_pixels():
    one = Row(NAME)
    result = json.loads(one.singular_values.read_text())
    images = torch.from_numpy(load_arrays(one.distilled)["images"])
    pixels = load_transform(one.prepared).backward(images).numpy()
    real = load_arrays(one.prepared / "train.safetensors")["images"] / 255
    standardised = (pixels - real.mean((0, 2, 3))[:, None, None]) / real.std((0, 2, 3))[:, None, None]
    values = np.linalg.svd(standardised.reshape(6, -1), compute_uv=False)
    assert np.allclose(result["singular_values"], values, rtol=1e-4)
    points = [(point["share"], point["count"], len(point["accuracy"])) for point in result["dropped"]]
    assert points == [(0, 0, 2), (0.2, 1, 2)]


def test_nothing_dropped_is_the_rows_own_training():
    result = json.loads(Row(NAME).singular_values.read_text())
    assert result["dropped"][0]["accuracy"] == methods(NAME)["raw"]["accuracy"]


def test_features_are_of_the_networks_and_images_that_they_name():
    one = Row(NAME)
    features, logits = load_arrays(one.features), load_arrays(one.logits)
    assert np.allclose(features["inside.max_logit"], logits["cross_entropy"].max(2))
    assert features["outside.max_probability"].shape == (2, 30)
    network = flat_convnet(one.network, load_split(one.prepared, "test"), torch.device("cpu"))
    own = load_set(one.distilled, one.prepared).data.images
    weights = load_file(one.weights)["cross_entropy"]
    largest = torch.stack([network(theta, own).detach().amax(1) for theta in weights])
    assert np.allclose(features["own.max_logit"], largest, atol=1e-5)
    assert features["masked.0.3.max_logit"].shape == (2, 6)
    for repeat, theta in enumerate(weights):
        masked = mask_images(own[:], 0.3, generator(0, "features", 0.3, repeat))
        of_masked = network(theta, masked).detach().amax(1)
        assert np.allclose(features["masked.0.3.max_logit"][repeat], of_masked, atol=1e-5)
    maps_of_two = [features[f"tsne.{loss}.block 1"] for loss in ("cross_entropy", "mixup")]
    assert not np.allclose(*maps_of_two, atol=1e-3), "they are of other networks"
    assert load_arrays(Row("shapes-full").features)["own.max_logit"].shape == (2, 60)
    maps = {f"tsne.{loss}.block {k}" for loss in ("cross_entropy", "mixup") for k in (1, 2)}
    assert {key for key in features if key.startswith("tsne")} == {"tsne.labels", *maps}
    assert features["tsne.mixup.block 2"].shape == (24, 2)
    assert np.bincount(features["tsne.labels"]).tolist() == [8, 8, 8]


def test_images_from_outside_are_turned_and_whitened_as_the_rows_own():
    one = Row(NAME)
    turned = load_arrays(Path("data/prepare/shapes-turned/test.safetensors"))["images"]
    pixels = load_arrays(one.prepared / "test.safetensors")["images"]
    assert np.array_equal(turned, np.rot90(pixels, axes=(2, 3))) and not np.array_equal(turned, pixels)
    outside = load_transform(one.prepared).forward(torch.from_numpy(turned) / 255)
    network = flat_convnet(one.network, load_split(one.prepared, "test"), torch.device("cpu"))
    weights = load_file(one.weights)["cross_entropy"]
    logits = torch.stack([network(theta, outside).detach() for theta in weights])
    features = load_arrays(one.features)
    assert np.allclose(features["outside.max_probability"], logits.softmax(2).amax(2), atol=1e-5)


# Experts and sets


def test_experts_do_not_depend_on_how_many_there_are(built, copy):
    buffers = suite()["buffers"]
    buffers["shapes"]["experts"] = 3
    change_suite(buffers=buffers)
    run("buffer", "shapes")
    file = "data/buffer/shapes/trajectories.safetensors"
    two, three = load_file(built / file)["snapshots"], load_file(file)["snapshots"]
    assert two.shape[:2] == (2, 4) and three.shape[:2] == (3, 4)
    assert torch.allclose(two, three[:2], atol=1e-6) and not torch.allclose(three[2], three[1])
    lines = Path("data/buffer/shapes/curve.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy" and len(lines) == 4


def test_a_killed_buffer_keeps_its_finished_experts(built, copy, monkeypatch):
    from stages import buffer as stage

    trained = kill_at_the_second_training(monkeypatch, stage)
    file = Path("data/buffer/shapes/trajectories.safetensors")
    file.unlink()
    with pytest.raises(KeyboardInterrupt):
        run("buffer", "shapes")
    assert not file.exists()
    run("buffer", "shapes")
    assert len(trained) == 3, "one expert was left to train"
    ours, theirs = load_file(file)["snapshots"], load_file(built / file)["snapshots"]
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"ipc": 21}, r"ipc: 21 is above the smallest class of shapes; allowed: 1 to 20"),
        ({"distill": MTT | {"max_start_epoch": 5}}, r"max_start_epoch - 1 \+ distill.expert_epochs = 6, but"),
        ({"distill": MTT | {"lr_lr": 1e12, "iterations": 40}}, r"would leave|is not finite|the loss is"),
    ],
)
def test_a_row_that_cannot_be_distilled_leaves_no_set(copy, changes, expected):
    change_suite(runs=suite()["runs"] | {"bad": row(**changes)})
    with pytest.raises(UserError, match=expected):
        run("distill", "bad")
    assert not Row("bad").distilled.exists()


def test_trajectories_of_another_network_are_refused(copy):
    datasets = suite()["datasets"]
    datasets["shapes"]["network"] = {"width": 8, "depth": 2}
    change_suite(datasets=datasets)
    with pytest.raises(UserError, match="trajectories of networks with .* weights, but this one has"):
        run("distill", NAME)


def test_a_learned_step_size_has_to_be_there(copy):
    runs = suite()["runs"]
    runs["shapes-random-ipc1"]["lr"] = "learned"
    change_suite(runs=runs)
    with pytest.raises(
        UserError, match="lr: 'learned', but the distilled set has no such step size of its own"
    ):
        run("train", "shapes-random-ipc1")


def test_a_set_says_what_it_was_made_with():
    one, full = Row(NAME), Row("shapes-full")
    distilled = load_set(one.distilled, one.prepared)
    assert distilled.data.images.shape == (6, 3, 8, 8)
    assert distilled.data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert distilled.step_size > 0 and distilled.sets == 1
    assert distilled.teacher_step_size == pytest.approx(MTT["lr_teacher"])
    assert len(load_set(full.distilled, full.prepared).data.images) == 20 * len(CLASSES)


# What each stage reads

OF_A_SET = {
    "temperature": "shipped",
    "svd": "singular_values",
    "features": "features",
    "architectures": "architectures",
    "reach": "reach",
    "choices": "choices",
}  # the file of a row that the stage makes


@pytest.mark.parametrize("stage", OF_A_SET)
def test_a_result_of_another_set_is_made_anew(stage, copy):
    row = Row(NAME)
    file = getattr(row, OF_A_SET[stage])
    before = file.read_bytes()  # has the hash of what it was made from
    tensors = load_file(row.distilled)
    turned = tensors | {"images": tensors["images"].flip(3)}
    write_tensors(row.distilled, turned, read_about(row.distilled))
    run(stage, NAME)
    assert file.read_bytes() != before


def test_features_of_other_networks_are_made_anew(copy):
    row = Row(NAME)
    before = row.features.read_bytes()
    weights = {name: 2 * values for name, values in load_file(row.weights).items()}
    write_tensors(row.weights, weights, read_about(row.weights))
    run("features", NAME)
    assert row.features.read_bytes() != before


def test_the_points_of_the_maps_are_of_the_images_of_their_labels(copy, monkeypatch):
    given: list[np.ndarray] = []

    def first_two_columns(_, points: list[np.ndarray]) -> list[np.ndarray]:
        given.extend(points)
        return [of_block[:, :2].copy() for of_block in points]

    monkeypatch.setattr("stages.features.on_all_cores", first_two_columns)
    row = Row(NAME)
    row.features.unlink()
    run("features", NAME)
    test = load_split(row.prepared, "test")
    network = flat_convnet(row.network, test, torch.device("cpu"))
    theta = load_file(row.weights)["cross_entropy"][0]
    outputs = block_outputs(network, theta, test.images[:])["block 1"]
    found = [int((outputs - point).abs().amax(1).argmin()) for point in torch.from_numpy(given[0])]
    assert test.labels[found].tolist() == load_arrays(row.features)["tsne.labels"].tolist()


def test_experts_are_trained_in_the_precision_of_their_buffer(built, copy):
    buffers = suite()["buffers"]
    buffers["shapes"]["precision"] = "bfloat16"
    change_suite(buffers=buffers)
    run("buffer", "shapes")
    file = "data/buffer/shapes/trajectories.safetensors"
    exact, rounded = load_file(built / file)["snapshots"], load_file(file)["snapshots"]
    assert torch.equal(exact[:, 0], rounded[:, 0]) and not torch.equal(exact, rounded)
