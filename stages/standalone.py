"""Masked temperature scaling for a network and a distilled set of your own, without the pipeline.

From Python: `fit_mts`, `predict`, `calibrated`, `judge`, `diagram`. From the command line, on saved logits:

    python -m stages.standalone <fitting logits> <test logits> <folder>

Both files are `.npz` or `.safetensors` with `logits` (N, K) and `labels` (N,): the network's on masked images of the set that
it was trained on, and on the test images. Writes `result.json` and `reliability.png`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stages.calibrators import mts
from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import Fit, optimum
from stages.calibrators.settings import CalibrateSettings
from stages.figures import figure1
from stages.metrics.ece import reliability
from stages.metrics.scores import log_softmax, scores
from stages.shared.errors import UserError, run_stage
from stages.shared.files import replacing, write_json
from stages.shared.images import LabelledImages

__all__ = ["PAPER", "Temperatures", "calibrated", "diagram", "fit_mts", "fit_temperatures", "judge", "predict"]

PAPER = CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=[0.05, 20.0])  # params.yaml's defaults


class Temperatures(NamedTuple):
    early_stopped: Fit  # the paper's short LBFGS run
    converged: Fit  # the exact minimiser on the same images


def fit_mts(
    model: Callable, images: torch.Tensor, labels: torch.Tensor, mask_ratio: float = 0.3, seed: int = 0, settings: CalibrateSettings = PAPER
) -> Temperatures:
    """MTS of any network on the distilled images that it was trained on.

    Args:
        model: a `torch.nn.Module` in `eval()`, or any function of `(M, C, H, W)` images to `(M, K)` logits.
        images: `(N, C, H, W)`, as the network saw them, on its device; `settings.share` of each class is used.
        labels: `(N,)` int64.
        mask_ratio: share of zeros. Section 5.1 of the paper: 0.3 for MTT on CIFAR, 0.8 on RTP, DC and DSA.
    """
    data = LabelledImages(images, labels, int(labels.max()) + 1)
    masked, chosen = mts.fitting_images(data, settings.share, mask_ratio, seed, 0)
    return fit_temperatures(predict(model, masked), chosen.cpu().numpy(), settings)


def fit_temperatures(logits: np.ndarray, labels: np.ndarray, settings: CalibrateSettings = PAPER) -> Temperatures:
    """Both temperatures from `(N, K)` logits on fitting images and `(N,)` labels."""
    return Temperatures(early_stopped(logits, labels, settings), optimum(logits, labels, settings.bounds))


@torch.no_grad()
def predict(model: Callable, images: torch.Tensor, batch: int = 500) -> np.ndarray:
    """`(N, K)` logits of `(N, C, H, W)` images."""
    return torch.cat([model(part).float().cpu() for part in images.split(batch)]).numpy()


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """`(N, K)` probabilities at a temperature."""
    return np.exp(log_softmax(np.asarray(logits) / temperature))


def judge(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = 10) -> dict:
    """Accuracy, ECE, NLL, Brier score and confidence gap at a temperature, as shares in [0, 1] (NLL in nats)."""
    return scores(log_softmax(np.asarray(logits) / temperature), np.asarray(labels), bins) | {"temperature": temperature}


def diagram(logits: np.ndarray, labels: np.ndarray, temperatures: dict[str, float], bins: int = 10) -> Figure:
    """Reliability diagrams side by side, one for each name and temperature."""
    panels = {
        name: {"ece": [judge(logits, labels, t, bins)["ece"]], "reliability": reliability(calibrated(logits, t), np.asarray(labels), bins)}
        for name, t in temperatures.items()
    }
    return figure1(panels, {name: name for name in panels}).figure


def read_logits(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Finite `(N, K)` logits and `(N,)` labels within them.

    Raises:
        UserError: no such file, another kind, keys that are missing, shapes that do not fit.
    """
    try:
        values = load_file(file) if file.suffix == ".safetensors" else dict(np.load(file, allow_pickle=False))
        logits, labels = values["logits"], values["labels"]
    except (OSError, ValueError, SafetensorError) as problem:
        raise UserError(f"{file}: not an .npz or .safetensors file: {problem}") from None
    except KeyError as missing:
        raise UserError(f"{file}: {missing} is missing; expected logits (N, K) and labels (N,)") from None
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise UserError(f"{file}: logits {logits.shape}, labels {labels.shape}; expected (N, K) and (N,)")
    if not np.isfinite(logits).all():
        raise UserError(f"{file}: logits that are not finite")
    if not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise UserError(f"{file}: labels from {labels.min()} to {labels.max()}; expected whole numbers from 0 to {logits.shape[1] - 1}")
    return logits, labels


def main(*words: str) -> None:
    if len(words) != 3:
        raise UserError(f"standalone: {len(words)} words; expected: python -m stages.standalone <fitting logits> <test logits> <folder>")
    fitting, test, folder = (Path(word) for word in words)
    fits, (logits, labels) = fit_temperatures(*read_logits(fitting)), read_logits(test)
    temperatures = {"Raw": 1.0, "MTS": fits.early_stopped.temperature, f"T = {PAPER.start}": PAPER.start, "MTS conv.": fits.converged.temperature}
    result = {name: judge(logits, labels, t) for name, t in temperatures.items()}
    for name, numbers in result.items():
        print(f"{name:10} T {numbers['temperature']:6.3f}  accuracy {numbers['accuracy']:.2%}  ECE {numbers['ece']:.2%}  NLL {numbers['nll']:.3f}")
    if fits.converged.bound_hit or fits.early_stopped.bound_hit:
        print(f"a fit ended on a bound of {PAPER.bounds}", file=sys.stderr)
    write_json(folder / "result.json", result)
    with replacing(folder / "reliability.png") as temporary:
        diagram(logits, labels, temperatures).savefig(temporary, dpi=130)


if __name__ == "__main__":
    run_stage(main)
