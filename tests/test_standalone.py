"""MTS without the pipeline: what the README shows, on a plain network of PyTorch."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.settings import CalibrateSettings
from stages.shared.errors import UserError
from stages.shared.settings import parse, read_yaml
from stages.standalone import PAPER, calibrated, fit_mts, fit_temperatures, judge, read_logits

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text().split("## Without the pipeline")[1].split("\n## ")[0]
CODE, COMMAND = (textwrap.dedent(block) for block in re.findall(r"\n\n((?:    .*\n|\n)+)", SECTION))


@pytest.fixture(scope="module")
def mine():
    """A small network that has learned 40 noisy images of 4 classes by heart."""
    torch.manual_seed(0)
    centres = torch.randn(4, 3, 8, 8)

    def some(count):
        labels = torch.arange(count) % 4
        return centres[labels] + 2 * torch.randn(count, 3, 8, 8), labels

    (images, labels), (test_images, test_labels) = some(40), some(400)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return {"model": model, "images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels.numpy()}


def test_the_readmes_lines_run(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = dict(mine)
    exec(CODE, names)
    raw, ours = capsys.readouterr().out.split()[:2]
    assert float(raw) == pytest.approx(judge(names["logits"], mine["test_labels"])["ece"]) and 0 <= float(ours) <= 1
    assert (tmp_path / "reliability.png").stat().st_size > 5000
    assert names["probabilities"].shape == (400, 4) and np.allclose(names["probabilities"].sum(1), 1)
    expected = torch.softmax(mine["model"](mine["test_images"]) / names["T"], 1).detach().numpy()
    assert np.allclose(names["probabilities"], expected, atol=1e-5)


def test_it_is_the_pipelines_fit(mine):
    """At ratio 0 and with all images, MTS is temperature scaling of the logits on them."""
    everything = PAPER.model_copy(update={"share": 1.0})
    model = mine["model"].eval()
    fit = fit_mts(model, mine["images"], mine["labels"], 0.0, settings=everything)
    with torch.no_grad():
        logits = model(mine["images"])
    assert fit.early_stopped.temperature == pytest.approx(early_stopped(logits.numpy(), mine["labels"].numpy(), PAPER).temperature, rel=1e-4)
    assert fit.converged.bound_hit, "all images are right: the optimum is T -> 0"
    assert fit_mts(model, mine["images"], mine["labels"], 0.5, seed=1) != fit_mts(model, mine["images"], mine["labels"], 0.5, seed=2)


def test_its_settings_are_the_pipelines():
    assert PAPER == parse(CalibrateSettings, read_yaml(ROOT / "params.yaml")["calibrate"], "params.yaml")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_the_readmes_command_runs(mine, ending, tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("fitting", 30), ("test", 200)):
        values = {"logits": rng.normal(size=(count, 4)).astype(np.float32) * 3, "labels": rng.integers(0, 4, count)}
        np.savez(tmp_path / f"{name}.npz", **values)
        save_file(values, tmp_path / f"{name}.safetensors")
    words = COMMAND.replace("npz", ending).split()
    run = subprocess.run([sys.executable, *words[1:3], *(str(tmp_path / word) for word in words[3:])], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "results" / "result.json").read_text())
    logits, labels = read_logits(tmp_path / f"test.{ending}")
    fit = fit_temperatures(*read_logits(tmp_path / f"fitting.{ending}"))
    assert result["MTS conv."] == judge(logits, labels, fit.converged.temperature) and "MTS" in run.stdout
    assert calibrated(logits, 2.0).max() < calibrated(logits, 1.0).max()
    assert (tmp_path / "results" / "reliability.png").exists()


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"logits": np.zeros((3, 2))}, "'labels' is missing|labels is missing"),
        ({"logits": np.zeros((3, 2)), "labels": np.zeros(4, int)}, r"logits \(3, 2\), labels \(4,\)"),
        ({"logits": np.full((3, 2), np.nan), "labels": np.zeros(3, int)}, "not finite"),
        ({"logits": np.zeros((3, 2)), "labels": np.full(3, 2)}, "labels from 2 to 2; expected whole numbers from 0 to 1"),
        ({"logits": np.array([None, 3]), "labels": np.zeros(2, int)}, "not an .npz"),
    ],
)
def test_logits_that_cannot_be_used_are_refused(values, expected, tmp_path):
    np.savez(tmp_path / "x.npz", **values)
    with pytest.raises(UserError, match=expected):
        read_logits(tmp_path / "x.npz")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="x.npz: not an .npz or .safetensors file: .*No such file"):
        read_logits(tmp_path / "x.npz")
