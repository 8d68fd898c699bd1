"""A miniature of the whole pipeline, by the functions that the stages call: from images to the table."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from stages import buffer as buffer_stage
from stages.architectures import architectures
from stages.buffer import BufferSettings, buffer
from stages.calibrate import calibrate
from stages.calibrators.settings import CalibrateSettings
from stages.check import Row
from stages.distill import distill
from stages.evaluate import evaluate
from stages.pictures import as_pictures, grid
from stages.prepare import prepare
from stages.report import report
from stages.shared.convnet import NetworkSettings
from stages.shared.errors import UserError
from stages.shared.images import load_set, load_split, load_transform
from stages.shared.settings import pick
from stages.shared.sources import ImageSettings
from stages.tables import Row as TableRow
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
CPU = torch.device("cpu")


def row(**changes) -> Row:
    values = {"suite": "shapes", "dataset": "shapes", "backbone": "mtt", "ipc": 2, "reads": "buffer/shapes", "mdt": 0, "distill": MTT, "epochs": 6, "lr": "learned", "augment": True, "mask_ratio": 0.3}
    return Row.model_validate(values | changes)


ROWS = {
    "shapes-mtt-ipc2": row(),
    "shapes-mtt-ipc2-mdt": row(mdt=[0, 0.1]),
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
        calibrate(CALIBRATE, TRAIN.holdout, settings.mask_ratio, NETWORK, prepared, distilled, weights, temperatures, 0, device)
        evaluate(10, CALIBRATE.bounds, name, logits, temperatures, folder / "evaluate" / f"{name}.json", folder / "reports" / "metrics" / f"{name}.json")
    name, tried = "shapes-mtt-ipc2", ["convnet", "mlp"]
    others = folder / "evaluate" / "architectures" / f"{name}.json"
    architectures(tried, ROWS[name], name, TRAIN, NETWORK, 10, prepared, folder / "distill" / name / "set.safetensors", others, 0, device, folder / "scratch")
    rows = {name: pick(TableRow, settings.model_dump(), name) for name, settings in ROWS.items()}
    report(rows, CALIBRATE.start, {name: tried, "shapes-full": ["mlp"]}, folder / "evaluate", folder / "reports")
    return folder


@pytest.fixture(scope="module")
def once(shapes, tmp_path_factory):
    return run(shapes, tmp_path_factory.mktemp("once"), CPU)


def test_every_row_gets_to_the_table(once):
    text = (once / "reports" / "table1.md").read_text() + (once / "reports" / "table7.md").read_text()
    for name in ROWS:
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
        assert "missing" not in line
        assert (once / "reports" / "figures" / f"reliability-{name}.png").stat().st_size > 5000
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


def test_another_mask_ratio_changes_mts_and_nothing_else(shapes, once, tmp_path):
    name = "shapes-mtt-ipc2"
    arguments = (NETWORK, shapes / "prepare", once / "distill" / name / "set.safetensors", once / "train" / name / "weights.safetensors")
    calibrate(CALIBRATE, TRAIN.holdout, 0.8, *arguments, tmp_path / "new.json", 0, CPU)
    old, new = json.loads((once / "calibrate" / f"{name}.json").read_text()), json.loads((tmp_path / "new.json").read_text())
    assert new["mask_ratio"] == 0.8 and old["mask_ratio"] == 0.3
    assert new["methods"]["ts"] == old["methods"]["ts"] and new["methods"]["mts"] != old["methods"]["mts"]


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
