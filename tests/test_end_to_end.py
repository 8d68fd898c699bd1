"""A miniature of the whole pipeline, by the functions that the stages call: from images to the table."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from stages import buffer as buffer_stage
from stages.ablate import ablate
from stages.analyses import all_figures
from stages.architectures import architectures
from stages.buffer import BufferSettings, buffer
from stages.calibrate import by_method, calibrate, wanted
from stages.calibrators.settings import CalibrateSettings, SweepSettings, key_of
from stages.check import Row
from stages.distill import distill
from stages.evaluate import EvaluateSettings, evaluate
from stages.features import FeaturesRow, FeaturesSettings, features
from stages.figures import write_figures
from stages.masked import fitting_logits, masked
from stages.pictures import as_pictures, grid
from stages.prepare import prepare
from stages.report import report
from stages.shared.convnet import NetworkSettings
from stages.shared.errors import UserError
from stages.shared.flat import flat_convnet
from stages.shared.images import load_set, load_split, load_transform
from stages.shared.sources import ImageSettings
from stages.svd import SvdSettings, dropped, svd
from stages.train import TrainSettings, train_row

NETWORK = NetworkSettings(width=4, depth=2)
BUFFER = BufferSettings(dataset="shapes", experts=2, epochs=3, lr=0.05, batch=16)
MTT = {"iterations": 3, "syn_steps": 3, "expert_epochs": 2, "max_start_epoch": 2, "lr_img": 10, "lr_lr": 1e-6, "lr_teacher": 0.05, "batch_syn": 4}
TRAIN = TrainSettings(
    repeats=2,
    losses=["cross_entropy", "mixup", "label_smoothing", "focal"],
    batch=16,
    momentum=0.9,
    weight_decay=5e-4,
    holdout=0.1,
    mixup_alpha=1.0,
    label_smoothing=0.1,
    focal_gamma=1.0,
)
CALIBRATE = CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=[0.05, 20.0])
EVALUATE = EvaluateSettings(bins=10, resamples=20)
SWEEP = SweepSettings(ratios=[0, 0.3, 0.8], shares=[0.1, 0.5], starts=[1.0, 3.0], steps=[1, 20])
INSPECT = FeaturesSettings(ratios=[0.1, 0.3], per_class=8, perplexity=5)
FEATURES = ("shapes-mtt-ipc2", "shapes-mtt-ipc2-mdt", "shapes-full")
CPU = torch.device("cpu")


def row(**changes) -> Row:
    values = {"suite": "shapes", "dataset": "shapes", "backbone": "mtt", "ipc": 2, "reads": "buffer/shapes", "mdt": 0, "distill": MTT, "epochs": 6, "lr": "learned", "augment": True, "mask_ratio": 0.3}
    return Row.model_validate(values | changes)


ROWS = {
    "shapes-mtt-ipc2": row(),
    "shapes-mtt-ipc2-mdt": row(mdt=0.1),
    "shapes-mtt-ipc2-mdtds": row(mdt=[0, 0.1]),
    "shapes-random-ipc1": row(backbone="random", ipc=1, reads="nothing", distill={}, lr=0.05),
    "shapes-full": row(backbone="full", ipc=None, reads="nothing", distill={}, lr=0.05, epochs=2),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Three classes of 8x8 pictures in color, bright in one third each; prepared."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for k, name in enumerate(("left", "middle", "right")):
            (folder / "raw" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3))
                pixels[:, 3 * k : 3 * k + 2] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "raw" / split / name / f"{i}.png")
    prepare(ImageSettings(source=str(folder / "raw"), whitening="zca"), folder / "prepare")
    prepare(ImageSettings(source=str(folder / "raw"), quarter_turns=1), folder / "turned")
    return folder


def run(shapes, folder, device):
    """All stages on all rows, with folder/<stage>/<name> as in data/."""
    prepared = shapes / "prepare"
    buffer(BUFFER, NETWORK, prepared, folder / "buffer", 0, device, folder / "scratch")
    for name, settings in ROWS.items():
        distill(settings, name, NETWORK, prepared, folder / "buffer", folder / "distill" / name, 0, device, folder / "scratch")
        distilled = folder / "distill" / name / "set.safetensors"
        train_row(settings, name, TRAIN, NETWORK, prepared, distilled, folder / "train" / name, 0, device, folder / "scratch")
        weights, logits, temperatures = folder / "train" / name / "weights.safetensors", folder / "train" / name / "logits.safetensors", folder / "calibrate" / f"{name}.json"
        fitting = folder / "masked" / f"{name}.safetensors"
        masked(SWEEP, TRAIN.holdout, CALIBRATE.share, settings.mask_ratio, NETWORK, prepared, distilled, weights, fitting, 0, device)
        calibrate(CALIBRATE, settings.mask_ratio, by_method(load_arrays(fitting), wanted(CALIBRATE, TRAIN.holdout, settings.mask_ratio)), temperatures)
        test = load_arrays(logits)
        ablate(CALIBRATE, SWEEP, 10, settings.mask_ratio, load_arrays(fitting), test["cross_entropy"], test["labels"], folder / "ablate" / f"{name}.json")
        evaluate(EVALUATE, CALIBRATE.bounds, name, logits, temperatures, folder / "evaluate" / f"{name}.json", folder / "reports" / "metrics" / f"{name}.json")
    name, tried = "shapes-mtt-ipc2", ["convnet", "mlp"]
    others = folder / "evaluate" / "architectures" / f"{name}.json"
    architectures(tried, ROWS[name], name, TRAIN, NETWORK, 10, prepared, folder / "distill" / name / "set.safetensors", others, 0, device, folder / "scratch")
    for name, drop in (("shapes-mtt-ipc2", [0, 0.2]), ("shapes-mtt-ipc2-mdt", [0, 0.2]), ("shapes-mtt-ipc2-mdtds", []), ("shapes-full", [0, 0.2])):
        settings = SvdSettings(dataset="shapes", drop=drop, epochs=2)
        svd(settings, ROWS[name], name, TRAIN, NETWORK, prepared, folder / "distill" / name / "set.safetensors", folder / "svd" / f"{name}.json", 0, device, folder / "scratch")
    for name in FEATURES:
        looked = FeaturesRow(dataset="shapes", outside="turned", losses=["cross_entropy", "mixup"])
        features(looked, INSPECT, NETWORK, prepared, shapes / "turned", folder / "distill" / name / "set.safetensors", folder / "train" / name, folder / "features" / f"{name}.safetensors", 0, device)
    suite = {"runs": {name: settings.model_dump() for name, settings in ROWS.items()}, "features": dict.fromkeys(FEATURES)}
    suite["architectures"] = {"shapes-mtt-ipc2": {"networks": tried}, "shapes-full": {"networks": ["mlp"]}}
    drawn = all_figures({"svd": suite["runs"], **suite}, "shapes", folder, ["left", "middle", "right"])
    write_figures(drawn, folder / "reports" / "figures" / "analyses")
    report({"shapes": suite}, {"calibrate": CALIBRATE.model_dump()}, folder, folder / "reports")
    return folder


@pytest.fixture(scope="module")
def once(shapes, tmp_path_factory):
    return run(shapes, tmp_path_factory.mktemp("once"), CPU)


def test_rows_that_ran_elsewhere_are_in_the_tables(once, tmp_path):
    """Those of unlisted suites with results in a report's folder, in the tables, the introduction and on the page."""
    name, folder = "shapes-random-ipc1", tmp_path / "reports"
    kinds = {kind: json.loads((once / kind / f"{name}.json").read_text()) for kind in ("evaluate", "ablate")}
    old = json.loads(json.dumps(kinds["evaluate"]))
    del old["methods"]["raw"]["interval"]
    rows = {"made": kinds, "older": {"evaluate": old}, "unknown": kinds, "large": {"evaluate": "left out: 2000000 bytes"}}
    (folder / "far").mkdir(parents=True)
    (folder / "far" / "metrics.json").write_text(json.dumps({"rows": rows}))
    settings = {"runs": dict.fromkeys(("made", "older", "large", "to-do"), ROWS[name].model_dump()), "architectures": {}, "features": {}}
    here = {"runs": {"shapes-full": ROWS["shapes-full"].model_dump()}, "architectures": {}, "features": {}}
    report({"shapes": here}, {"calibrate": CALIBRATE.model_dump()}, once, folder, {"far": settings})
    text, page = (folder / "README.md").read_text(), (folder / "index.html").read_text()
    ours = next(line for line in (once / "reports" / "table5.md").read_text().splitlines() if line.startswith(f"| {name} "))
    assert ours.replace(name, "made") in (folder / "table5.md").read_text()
    assert "| made | 1.5 | 50 |" in text and "not by this run: `made`." in text and "`far/README.md`" in text
    assert 'id="row-made"' in page and "far/README.md" in page
    assert not any(f"| {other} " in text for other in ("older", "unknown", "large", "to-do"))


def test_every_row_gets_to_the_table(once):
    text = "".join((once / "reports" / f"table{k}.md").read_text() for k in (1, 5, 7)) + (once / "reports" / "scores.md").read_text()
    for name in ROWS:
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
        assert "missing" not in line
        assert (once / "reports" / "figures" / "calibration" / f"figure1-{name}.png").stat().st_size > 5000
    ipc1 = next(line for line in text.splitlines() if line.startswith("| shapes-random-ipc1 "))
    assert ipc1.split("|")[4].strip() == "-", "no TS at one image a class"
    assert not list((once / "scratch").glob("*/*")), "checkpoints are gone when the work is done"


def test_the_convnet_among_the_architectures_is_raw(once):
    tried = json.loads((once / "evaluate" / "architectures" / "shapes-mtt-ipc2.json").read_text())
    raw = json.loads((once / "evaluate" / "shapes-mtt-ipc2.json").read_text())["methods"]["raw"]
    assert all(tried["convnet"][key] == raw[key] for key in ("accuracy", "ece", "nll", "brier")) and tried["mlp"]["nll"] != raw["nll"]
    lines = [line.split("|")[1:-1] for line in (once / "reports" / "architectures.md").read_text().splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in line[:2]] for line in lines[2:]] == [["shapes-mtt-ipc2", "convnet"], ["shapes-mtt-ipc2", "mlp"], ["shapes-full", "mlp"]]
    assert lines[2][3].strip().startswith(f"{100 * np.mean(raw['accuracy']):.2f} ±") and lines[4][3].strip() == "missing"


def test_metrics_are_flat_numbers_in_percent(once):
    metrics = json.loads((once / "reports" / "metrics" / "shapes-mtt-ipc2.json").read_text())
    assert {"accuracy", "ece_raw", "ece_ts", "ece_mts", "ece_focal", "ece_fixed", "ece_oracle"} <= metrics.keys()
    assert all(isinstance(value, float) and 0 <= value <= 100 for value in metrics.values())


def test_a_temperature_leaves_the_accuracy_as_it_is(once):
    for name in ROWS:
        methods = json.loads((once / "evaluate" / f"{name}.json").read_text())["methods"]
        for key in ("mts", "mts_converged", "fixed", "oracle"):
            assert methods[key]["accuracy"] == methods["raw"]["accuracy"]
            assert all(t > 0 for t in methods[key]["temperature"])


def test_the_oracle_is_the_best_temperature(once):
    methods = json.loads((once / "evaluate" / "shapes-mtt-ipc2.json").read_text())["methods"]
    for key in ("raw", "mts", "mts_converged", "fixed"):
        assert all(best <= other + 1e-9 for best, other in zip(methods["oracle"]["nll"], methods[key]["nll"]))


def test_the_same_seed_gives_the_same_numbers(shapes, once, tmp_path):
    again = run(shapes, tmp_path, CPU)
    for name in ROWS:
        ours, theirs = (load_file(folder / "train" / name / "logits.safetensors") for folder in (again, once))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert (again / "evaluate" / f"{name}.json").read_text() == (once / "evaluate" / f"{name}.json").read_text()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same_numbers(shapes, once, tmp_path):
    on_gpu = run(shapes, tmp_path, torch.device("cuda"))
    for name in ROWS:
        ours, theirs = (load_file(folder / "train" / name / "logits.safetensors") for folder in (on_gpu, once))
        assert all(torch.allclose(ours[key].float(), theirs[key].float(), rtol=1e-2, atol=1e-2) for key in theirs)


def calibrated(once, name: str, ratio: float, there: dict, file) -> dict:
    calibrate(CALIBRATE, ratio, by_method(there, wanted(CALIBRATE, TRAIN.holdout, ratio)), file)
    return json.loads(file.read_text())


def test_test_labels_reach_no_network_and_no_temperature(shapes, once, tmp_path):
    """With every test label wrong: the same weights, test logits, fitting logits and temperatures, another accuracy and oracle."""
    name, prepared = "shapes-mtt-ipc2", tmp_path / "prepare"
    shutil.copytree(shapes / "prepare", prepared)
    test = load_file(prepared / "test.safetensors")
    save_file(test | {"labels": (test["labels"] + 1) % 3}, prepared / "test.safetensors")
    distilled, fitting = once / "distill" / name / "set.safetensors", tmp_path / "masked.safetensors"
    train_row(ROWS[name], name, TRAIN, NETWORK, prepared, distilled, tmp_path / "train", 0, CPU, tmp_path / "scratch")
    masked(SWEEP, TRAIN.holdout, CALIBRATE.share, 0.3, NETWORK, prepared, distilled, tmp_path / "train" / "weights.safetensors", fitting, 0, CPU)
    calibrate(CALIBRATE, 0.3, by_method(load_arrays(fitting), wanted(CALIBRATE, TRAIN.holdout, 0.3)), tmp_path / "calibrate.json")
    evaluate(EVALUATE, CALIBRATE.bounds, name, tmp_path / "train" / "logits.safetensors", tmp_path / "calibrate.json", tmp_path / "evaluate.json", tmp_path / "metrics.json")
    for ours, theirs in ((tmp_path / "train" / "weights.safetensors", once / "train" / name / "weights.safetensors"), (fitting, once / "masked" / f"{name}.safetensors")):
        ours, theirs = load_arrays(ours), load_arrays(theirs)
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert (tmp_path / "calibrate.json").read_text() == (once / "calibrate" / f"{name}.json").read_text()
    ours, theirs = (json.loads(file.read_text())["methods"] for file in (tmp_path / "evaluate.json", once / "evaluate" / f"{name}.json"))
    assert ours["mts"]["temperature"] == theirs["mts"]["temperature"]
    assert ours["raw"]["accuracy"] != theirs["raw"]["accuracy"] and ours["oracle"]["temperature"] != theirs["oracle"]["temperature"]


def test_another_mask_ratio_changes_mts_and_nothing_else(once, tmp_path):
    name = "shapes-mtt-ipc2"
    there = load_arrays(once / "masked" / f"{name}.safetensors")
    old, new = json.loads((once / "calibrate" / f"{name}.json").read_text()), calibrated(once, name, 0.8, there, tmp_path / "new.json")
    assert new["mask_ratio"] == 0.8 and old["mask_ratio"] == 0.3
    assert new["methods"]["ts"] == old["methods"]["ts"] and new["methods"]["mts"] != old["methods"]["mts"]


def test_a_ratio_that_is_not_swept_is_what_it_would_be_in_the_sweep(shapes, once, tmp_path):
    name = "shapes-mtt-ipc2"
    files = (NETWORK, shapes / "prepare", once / "distill" / name / "set.safetensors", once / "train" / name / "weights.safetensors")
    alone, swept = fitting_logits([("mts", 0.8, 0.1)], *files, 0, CPU), load_arrays(once / "masked" / f"{name}.safetensors")
    for end in ("", ".labels"):
        assert np.array_equal(alone[key_of("mts", 0.8, 0.1) + end].numpy(), swept[key_of("mts", 0.8, 0.1) + end])


def test_one_more_ratio_costs_one_more_ratio(shapes, once, tmp_path, monkeypatch):
    """What was computed before is taken over, and thrown away with what it was computed from."""
    name, file, asked = "shapes-mtt-ipc2", tmp_path / "masked.safetensors", []
    monkeypatch.setattr("stages.masked.fitting_logits", lambda some, *more: asked.append([ratio for _, ratio, _ in some]) or fitting_logits(some, *more))

    def again(sweep, train):
        masked(sweep, TRAIN.holdout, CALIBRATE.share, 0.3, NETWORK, shapes / "prepare", once / "distill" / name / "set.safetensors", once / "train" / train / "weights.safetensors", file, 0, CPU)
        return load_arrays(file)

    first, second = again(SWEEP, name), again(SWEEP.model_copy(update={"ratios": [0, 0.5, 0.8]}), name)
    again(SWEEP, "shapes-mtt-ipc2-mdt")
    assert [sorted(set(ratios)) for ratios in asked] == [[0, 0.3, 0.8], [0.5], [0, 0.3, 0.8]]
    assert all(np.array_equal(first[key], second[key]) for key in first.keys() & second.keys()) and key_of("mts", 0.5, 0.1) in second


def test_the_ablation_at_the_papers_settings_is_the_rows_own_mts(once):
    for name in ROWS:
        found, row = json.loads((once / "ablate" / f"{name}.json").read_text()), json.loads((once / "evaluate" / f"{name}.json").read_text())["methods"]
        own = [fit for fit in found["fits"] if (fit["ratio"], fit["share"]) == (0.3, 0.1)]
        for start, steps, method in ((1.5, 50, "mts"), (None, None, "mts_converged")):
            (fit,) = [fit for fit in own if (fit["start"], fit["steps"]) == (start, steps)]
            assert fit["temperature"] == row[method]["temperature"] and fit["ece"] == row[method]["ece"]
        assert found["raw"] == row["raw"]["ece"] and found["fixed"] == row["fixed"]["ece"]


def test_dropping_singular_values_is_numpys(shapes):
    images = load_split(shapes / "prepare", "train").images[:12]
    u, s, v = np.linalg.svd(images.flatten(1).double().numpy(), full_matrices=False)
    for count in (0, 1, 5, 12):
        rest = s * (np.arange(12) >= count)
        assert np.allclose(dropped(images, count).flatten(1).numpy(), u * rest @ v, atol=1e-5)
    assert dropped(images, 0) is images


def test_nothing_dropped_is_the_rows_own_training(once):
    """Singular values are numpy's, of the images that the row is trained on, and less data is no better on average."""
    found = json.loads((once / "svd" / "shapes-mtt-ipc2.json").read_text())
    images = load_arrays(once / "distill" / "shapes-mtt-ipc2" / "set.safetensors")["images"]
    assert np.allclose(found["singular_values"], np.linalg.svd(images.reshape(6, -1), compute_uv=False), rtol=1e-4)
    assert [(point["share"], point["count"], len(point["accuracy"])) for point in found["dropped"]] == [(0, 0, 2), (0.2, 1, 2)]


def test_features_are_of_the_networks_and_images_they_name(shapes, once):
    found, logits = load_arrays(once / "features" / "shapes-mtt-ipc2.safetensors"), load_arrays(once / "train" / "shapes-mtt-ipc2" / "logits.safetensors")
    assert np.allclose(found["inside.max_logit"], logits["cross_entropy"].max(2))
    assert found["outside.max_probability"].shape == (2, 30) and found["masked.0.3.max_logit"].shape == (2, 6)
    assert {key for key in found if key.startswith("tsne")} == {"tsne.labels", *(f"tsne.{loss}.block {k}" for loss in ("cross_entropy", "mixup") for k in (1, 2))}
    assert found["tsne.mixup.block 2"].shape == (24, 2) and np.bincount(found["tsne.labels"]).tolist() == [8, 8, 8]
    pixels, turned = (load_arrays(shapes / folder / "test.safetensors")["images"] for folder in ("prepare", "turned"))
    assert np.array_equal(turned, np.rot90(pixels, axes=(2, 3))) and not np.array_equal(turned, pixels)
    data, theta = load_split(shapes / "prepare", "test"), load_file(once / "train" / "shapes-mtt-ipc2" / "weights.safetensors")["cross_entropy"]
    outside = load_transform(shapes / "prepare").forward(torch.from_numpy(turned) / 255)  # whitened as the row's own images
    logits = torch.stack([flat_convnet(NETWORK, data, CPU)(one, outside).detach() for one in theta])
    assert np.allclose(found["outside.max_probability"], logits.softmax(2).amax(2), atol=1e-5)


def test_every_figure_is_drawn_three_times(once):
    drawn = {path.name for path in (once / "reports" / "figures").glob("*/*")}
    for number in ("2a", "2b", "3", "4", "5", "6", "7", "8", "9", "12b", "13"):
        assert {f"figure{number}-shapes.{ending}" for ending in ("svg", "png", "csv")} <= drawn
    assert {f"figure1-{name}.svg" for name in ROWS} <= drawn and (once / "reports" / "index.html").stat().st_size > 100_000


def test_experts_do_not_depend_on_how_many_there_are(shapes, once, tmp_path):
    more = BUFFER.model_copy(update={"experts": 3})
    buffer(more, NETWORK, shapes / "prepare", tmp_path, 0, CPU, tmp_path / "scratch")
    two, three = (load_file(folder / "trajectories.safetensors")["snapshots"] for folder in (once / "buffer", tmp_path))
    assert two.shape[:2] == (2, 4) and three.shape[:2] == (3, 4)
    assert torch.allclose(two, three[:2], atol=1e-6) and not torch.allclose(three[2], three[1])
    lines = (once / "buffer" / "curve.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy" and len(lines) == 4


def test_a_killed_buffer_keeps_its_finished_experts(shapes, once, tmp_path, monkeypatch):
    trained, train = [], buffer_stage.train

    def counted(*arguments):
        trained.append(0)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(buffer_stage, "train", counted)
    monkeypatch.setattr(buffer_stage, "run_units", lambda run, units, *more: [run([unit]) for unit in units])
    arguments = (BUFFER, NETWORK, shapes / "prepare", tmp_path, 0, CPU, tmp_path / "scratch")
    with pytest.raises(KeyboardInterrupt):
        buffer(*arguments)
    assert not (tmp_path / "trajectories.safetensors").exists()
    buffer(*arguments)
    assert len(trained) == 3, "one expert was left to train"
    ours, theirs = (load_file(folder / "trajectories.safetensors")["snapshots"] for folder in (tmp_path, once / "buffer"))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_zca_decorrelates_and_its_inverse_restores(shapes):
    split, transform = load_split(shapes / "prepare", "train"), load_transform(shapes / "prepare")
    raw = load_file(shapes / "prepare" / "train.safetensors")["images"] / 255
    assert torch.allclose(transform.backward(split.images), raw, atol=1e-4)
    from kornia.enhance import ZCAWhitening

    zca = ZCAWhitening(eps=0.1, compute_inv=True).fit(raw)
    assert torch.allclose(split.images, zca(raw), atol=1e-4)


def test_pictures_show_the_images_as_they_were(shapes):
    pictures = as_pictures(load_split(shapes / "prepare", "train").images.numpy(), load_arrays(shapes / "prepare" / "transform.safetensors"))
    raw = load_arrays(shapes / "prepare" / "train.safetensors")["images"] / 255
    assert np.allclose(pictures, raw.transpose(0, 2, 3, 1), atol=1e-4)


def test_a_grid_has_a_line_for_each_class():
    pictures, labels = np.arange(6).repeat(4).reshape(6, 2, 2, 1) / 10, np.array([0, 1, 2, 0, 1, 2])
    image = grid(pictures, labels)
    assert image.shape == (3 * 3 + 1, 2 * 3 + 1, 1)
    assert [[image[3 * y + 1, 3 * x + 1, 0] for x in range(2)] for y in range(3)] == [[0.0, 0.3], [0.1, 0.4], [0.2, 0.5]]
    assert grid(np.zeros((200, 2, 2, 1)), np.arange(200)).shape == (10 * 3 + 1, 20 * 3 + 1, 1)


def test_without_whitening_images_have_mean_zero_and_deviation_one(shapes, tmp_path):
    prepare(ImageSettings(source=str(shapes / "raw"), whitening="none"), tmp_path)
    images = load_split(tmp_path, "train").images[:]
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(images.std((0, 2, 3)), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"ipc": 21}, r"ipc: 21 is above the smallest class of shapes; allowed: 1 to 20"),
        ({"distill": MTT | {"max_start_epoch": 5}}, r"max_start_epoch - 1 \+ distill.expert_epochs = 6, but .* has 3 epochs"),
        ({"distill": MTT | {"lr_img": 1e30}}, r"would leave|is not finite|the loss is"),
    ],
)
def test_a_row_that_cannot_be_distilled(shapes, once, tmp_path, changes, expected):
    values = {"iterations": 40} if "1e" in str(changes) else {}
    changes = changes | ({"distill": changes["distill"] | values} if values else {})
    with pytest.raises(UserError, match=expected):
        distill(row(**changes), "bad", NETWORK, shapes / "prepare", once / "buffer", tmp_path / "out", 0, CPU, tmp_path / "scratch")
    assert not (tmp_path / "out").exists()


def test_trajectories_of_another_network_are_refused(shapes, once, tmp_path):
    with pytest.raises(UserError, match="trajectories of networks with .* weights, but this one has"):
        distill(row(), "bad", NetworkSettings(width=8, depth=2), shapes / "prepare", once / "buffer", tmp_path / "out", 0, CPU, tmp_path / "scratch")


def test_a_learned_step_size_has_to_be_there(shapes, once, tmp_path):
    distilled = once / "distill" / "shapes-random-ipc1" / "set.safetensors"
    with pytest.raises(UserError, match="lr: 'learned', but the distilled set has no step size of its own"):
        train_row(row(backbone="random"), "bad", TRAIN, NETWORK, shapes / "prepare", distilled, tmp_path, 0, CPU, tmp_path / "scratch")


def test_a_set_says_what_it_was_made_with(once, shapes):
    data, step_size = load_set(once / "distill" / "shapes-mtt-ipc2" / "set.safetensors", shapes / "prepare")
    assert data.images.shape == (6, 3, 8, 8) and data.labels.tolist() == [0, 0, 1, 1, 2, 2] and step_size > 0
    full, _ = load_set(once / "distill" / "shapes-full" / "set.safetensors", shapes / "prepare")
    assert len(full.images) == 60
