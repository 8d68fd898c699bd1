"""Calibration without the pipeline: what the READMEs show, on a plain network of PyTorch."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.numpy import save_file
from torch import nn

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import optimum
from stages.runtime.errors import UserError
from stages.settings.calibrate import CalibrateSettings
from stages.settings.project import read_yaml
from stages.settings.section import parse
from stages.tools.standalone import (
    PAPER,
    calibrated,
    diagram,
    fit_mts,
    fit_shipped,
    fit_temperatures,
    judge,
    main,
    predict,
    read_logits,
)


def indented_block(readme: str, words: str) -> str:
    """The block of code in a README that has these words."""
    text = (ROOT / readme).read_text()
    blocks = re.findall(r"\n\n((?:    .*\n|\n)+)", text)
    (block,) = [block for block in blocks if words in block]
    return textwrap.dedent(block)


def network_by_heart(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """A network that has learned some images by heart."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def mine() -> dict:
    """A network that has learned 40 noisy images of 4 classes, and further images, under the READMEs' names.

    `others` are three more networks on the same images.
    """
    torch.manual_seed(0)
    centres = 0.3 * torch.randn(4, 3, 8, 8)
    labels = torch.arange(40) % 4
    real_labels = torch.arange(200) % 4
    test_labels = torch.arange(400) % 4
    images = centres[labels] + 2 * torch.randn(40, 3, 8, 8)
    test_images = centres[test_labels] + 2 * torch.randn(400, 3, 8, 8)
    return {
        "model": network_by_heart(images, labels),
        "others": [network_by_heart(images, labels) for _ in range(3)],
        "images": images,
        "labels": labels,
        "real_images": centres[real_labels] + 2 * torch.randn(200, 3, 8, 8),
        "real_labels": real_labels,
        "test_images": test_images,
        "test_labels": test_labels.numpy(),
    }


@pytest.mark.parametrize("readme", ["README.md", "stages/tools/README.md"])
def test_the_lines_of_a_readme_run(readme, mine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = dict(mine)
    exec(indented_block(readme, "from stages.tools.standalone import"), names)
    raw, scaled, *_ = capsys.readouterr().out.split()
    assert float(raw) == judge(names["logits"], mine["test_labels"])["ece"]
    assert float(scaled) == judge(names["logits"], mine["test_labels"], names["T"])["ece"]
    assert np.array_equal(names["logits"], predict(mine["model"], mine["test_images"]))
    if "diagram" in names:
        assert (tmp_path / "reliability.png").stat().st_size > 5000


def test_probabilities_are_the_softmax_at_a_temperature(mine):
    with torch.no_grad():
        logits = mine["model"](mine["test_images"])
    expected = torch.softmax(logits / 1.7, 1).numpy()
    assert np.allclose(calibrated(logits.numpy(), 1.7), expected, atol=1e-5)
    assert calibrated(logits.numpy(), 2.0).max() < calibrated(logits.numpy(), 1.0).max()


def test_the_fit_is_the_pipelines(mine):
    """At ratio 0 and with all images, MTS is temperature scaling of the logits on them."""
    everything = PAPER.model_copy(update={"share": 1.0})
    fit = fit_mts(mine["model"], mine["images"], mine["labels"], 0.0, settings=everything)
    logits = predict(mine["model"], mine["images"])
    expected = early_stopped(logits, mine["labels"].numpy(), PAPER)
    assert fit.early_stopped.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert fit.converged.bound_hit, "all images are right, so the optimum is at T -> 0"


def test_the_shipped_temperature_is_the_optimum_of_all_networks(mine):
    images, labels = mine["real_images"], mine["real_labels"]
    fit = fit_shipped(mine["others"], images, labels)
    logits = np.concatenate([predict(model, images) for model in mine["others"]])
    assert fit == optimum(logits, np.tile(labels.numpy(), 3), PAPER.bounds)
    functions = [lambda batch, model=model: model(batch) for model in mine["others"]]
    assert fit_shipped(functions, images, labels) == fit


def test_a_network_alone_is_no_list_of_layers(mine):
    images, labels = mine["real_images"], mine["real_labels"]
    assert fit_shipped(mine["model"], images, labels) == fit_shipped([mine["model"]], images, labels)


def test_the_shipped_temperature_suits_a_network_that_it_was_not_fitted_to(mine):
    """From three networks and 200 real images it is nearly as good as one fitted on the test labels."""
    fit = fit_shipped(mine["others"], mine["real_images"], mine["real_labels"])
    logits, labels = predict(mine["model"], mine["test_images"]), mine["test_labels"]
    oracle = optimum(logits, labels, PAPER.bounds)
    raw, shipped, best = (judge(logits, labels, t)["nll"] for t in (1.0, fit.temperature, oracle.temperature))
    assert best <= shipped < best + 0.1 * (raw - best)


def test_another_seed_masks_other_elements(mine):
    fits = [fit_mts(mine["model"], mine["images"], mine["labels"], 0.5, seed) for seed in (1, 2)]
    assert fits[0] != fits[1]


def test_the_settings_are_the_pipelines():
    values = read_yaml(ROOT / "params.yaml")["calibrate"]
    assert parse(CalibrateSettings, values, "params.yaml") == PAPER


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("has_real", [True, False])
def test_the_command_of_the_readme_runs(ending, has_real, tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("fitting", 30), ("test", 200), ("real", 100)):
        logits = rng.normal(size=(count, 4)).astype(np.float32) * 3
        values = {"logits": logits, "labels": rng.integers(0, 4, count)}
        np.savez(tmp_path / f"{name}.npz", **values)
        save_file(values, tmp_path / f"{name}.safetensors")
    command = indented_block("stages/tools/README.md", "python -m stages.tools.standalone")
    _, *options, fitting, test, folder, real = command.replace("npz", ending).split()
    files = (fitting, test, folder, real) if has_real else (fitting, test, folder)
    paths = [str(tmp_path / name) for name in files]
    run = subprocess.run([sys.executable, *options, *paths], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "results" / "result.json").read_text())
    shipped = ["Shipped T"] if has_real else []
    assert list(result) == ["Raw", *shipped, "MTS", "T = 1.5", "MTS conv."]
    for name in result:
        assert f"{name} " in run.stdout
    fit = fit_temperatures(*read_logits(tmp_path / f"fitting.{ending}"))
    logits, labels = read_logits(tmp_path / f"test.{ending}")
    assert result["MTS conv."] == judge(logits, labels, fit.converged.temperature)
    if has_real:
        best = optimum(*read_logits(tmp_path / f"real.{ending}"), PAPER.bounds)
        assert result["Shipped T"] == judge(logits, labels, best.temperature)
    assert (tmp_path / "results" / "reliability.png").exists()


def test_the_command_names_its_words():
    command = [sys.executable, "-m", "stages.tools.standalone", "fitting.npz"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: standalone: 1 words; expected: python -m stages.tools.standalone <")


@pytest.mark.parametrize(
    "logits, labels, expected",
    [
        (np.zeros((3, 2)), None, "'labels' is missing|labels is missing"),
        (np.zeros((3, 2)), np.zeros(4, int), r"logits \(3, 2\), labels \(4,\)"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "not finite"),
        (np.zeros((3, 2)), np.full(3, 2), "labels from 2 to 2; expected whole numbers from 0 to 1"),
        (np.array([None, 3]), np.zeros(2, int), "not an .npz"),
    ],
)
def test_logits_that_cannot_be_used_are_refused(logits, labels, expected, tmp_path):
    values = {"logits": logits} if labels is None else {"logits": logits, "labels": labels}
    np.savez(tmp_path / "x.npz", **values)
    with pytest.raises(UserError, match=expected):
        read_logits(tmp_path / "x.npz")


LOGITS = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.5]])


@pytest.mark.parametrize("use", [fit_temperatures, judge, lambda *both: diagram(*both, {"Raw": 1.0})])
@pytest.mark.parametrize(
    "logits, labels, expected",
    [
        (np.where(LOGITS == 3, np.nan, LOGITS), [0, 1, 0], "not finite"),
        (LOGITS, [[0], [1], [0]], r"labels \(3, 1\); expected \(N, K\) and \(N,\)"),
        (LOGITS, np.eye(2)[[0, 1, 0]], r"labels \(3, 2\)"),
        (LOGITS, [0.0, 1.0, 0.0], "labels of type float64; expected whole numbers"),
        (LOGITS, [0, 1, -1], "labels from -1 to 1; expected whole numbers from 0 to 1"),
    ],
)
def test_no_temperature_comes_of_logits_or_labels_that_cannot_be_used(use, logits, labels, expected):
    with pytest.raises(UserError, match=expected):
        use(logits, np.array(labels))


@pytest.mark.parametrize("labels", [np.eye(4)[np.arange(40) % 4], np.arange(40)[:, None] % 4])
def test_networks_are_not_calibrated_on_labels_that_are_no_classes(labels, mine):
    for fit in (fit_mts, fit_shipped):
        with pytest.raises(UserError, match="labels"):
            fit(mine["model"], mine["images"], torch.tensor(labels))


def test_a_network_in_training_mode_is_refused(mine):
    mine["model"].train()
    with pytest.raises(UserError, match="in training mode; call its eval"):
        predict(mine["model"], mine["images"])
    mine["model"].eval()


@pytest.mark.parametrize("mask_ratio", [30, 1.0, -0.1, float("nan")])
def test_a_mask_ratio_that_is_no_share_is_refused(mask_ratio, mine):
    with pytest.raises(UserError, match=f"mask_ratio: {mask_ratio}; allowed: a share from 0 to below 1"):
        fit_mts(mine["model"], mine["images"], mine["labels"], mask_ratio)


def test_whole_numbers_are_logits_too():
    assert fit_temperatures(LOGITS.astype(int), np.array([0, 1, 0])).converged.temperature > 0


def test_logits_of_other_classes_are_named(tmp_path):
    for name, classes in (("fitting", 3), ("test", 2)):
        np.savez(tmp_path / f"{name}.npz", logits=np.zeros((4, classes)), labels=np.array([0, 1, 0, 1]))
    files = [str(tmp_path / name) for name in ("fitting.npz", "test.npz", "out")]
    with pytest.raises(UserError, match="fitting.npz: logits of 3 classes, but .*test.npz has 2"):
        main(*files)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UserError, match="x.npz: not an .npz or .safetensors file: .*No such file"):
        read_logits(Path("x.npz"))
