"""Calibration of networks of your own that were trained on a distilled set, without the pipeline.

- `fit_shipped` is for whoever has real images, above all for whoever distils a set: one exact temperature for
  several networks, to be handed on with the set.
- `fit_mts` is for whoever has the set alone: masked temperature scaling, as in the paper.
- `predict`, `calibrated`, `judge` and `diagram` are for both.

All raise a `UserError` for a network in training mode, for a mask ratio that is no share, and for logits or
labels that do not fit each other or are not finite.

From the command line, on saved logits:

    python -m stages.tools.standalone <fitting logits> <test logits> <folder> [<real logits>]

The files are `.npz` or `.safetensors` with `logits` (N, K) and `labels` (N,): of the network on masked images
of the set that it was trained on, of the network on the test images, and of one or more networks on real
images that they have not seen, one network after the other. The command writes `result.json` and
`reliability.png` to the folder.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from stages.calibrators import mts
from stages.calibrators.early_stopped import early_stopped
from stages.calibrators.optimum import Fit, optimum
from stages.images.prepared import LabelledImages
from stages.metrics.ece import reliability
from stages.metrics.scores import log_softmax, scores
from stages.reporting.reliability import figure1
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import replacing, write_json
from stages.settings.calibrate import CalibrateSettings

__all__ = [
    "PAPER",
    "Temperatures",
    "calibrated",
    "diagram",
    "fit_mts",
    "fit_shipped",
    "fit_temperatures",
    "judge",
    "predict",
    "read_logits",
]

LARGEST = 1e30  # size of a logit; divided by a temperature it still fits float32

# The defaults of params.yaml.
PAPER = CalibrateSettings(start=1.5, lr=0.02, max_iter=50, share=0.1, bounds=[0.05, 20.0])


class Temperatures(NamedTuple):
    early_stopped: Fit  # by the paper's short run of LBFGS
    converged: Fit  # the exact minimiser on the same images


def fit_shipped(
    models: Callable | Sequence[Callable],
    real_images: torch.Tensor,
    labels: torch.Tensor,
    settings: CalibrateSettings = PAPER,
) -> Fit:
    """One temperature for all networks of a distilled set: the exact optimum on real images.

    It also suits other networks that are trained on the set in the same way, so it can be handed on with the
    set. A few networks and some hundreds of images are enough.

    Args:
        models: a network as in `fit_mts`, or several that were trained on the set from different initial
            weights.
        real_images: `(N, C, H, W)`, as the networks see them, on their device. The networks have not been
            trained on them, and they are no test images.
        labels: `(N,)` int64.
        settings: only its `bounds` are used.
    """
    networks = [models] if callable(models) else models  # a Sequential would be taken for a list of layers
    logits = [predict(network, real_images) for network in networks]
    for of_network in logits:
        _checked(of_network, labels.cpu())
    labels_of_all = np.tile(labels.cpu().numpy(), len(logits))
    return optimum(np.concatenate(logits), labels_of_all, settings.bounds)


def fit_mts(
    model: Callable,
    images: torch.Tensor,
    labels: torch.Tensor,
    mask_ratio: float = 0.3,
    seed: int = 0,
    settings: CalibrateSettings = PAPER,
) -> Temperatures:
    """MTS of any network, on the distilled images that it was trained on.

    Args:
        model: a `torch.nn.Module` in `eval()`, or any function from `(M, C, H, W)` images to `(M, K)` logits.
        images: `(N, C, H, W)`, as the network sees them, on its device. A share of each class is used.
        labels: `(N,)` int64.
        mask_ratio: share of zeros. Section 5.1 of the paper: 0.3 with MTT on CIFAR; 0.8 with RTP, DC, DSA.
    """
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio: {mask_ratio}; allowed: a share from 0 to below 1")
    _checked(predict(model, images), labels.cpu())
    classes = int(labels.max()) + 1
    data = LabelledImages(images, labels, classes)
    masked, own_labels = mts.fitting_images(data, settings.share, mask_ratio, seed, repeat=0)
    return fit_temperatures(predict(model, masked), own_labels.cpu().numpy(), settings)


def fit_temperatures(
    logits: np.ndarray, labels: np.ndarray, settings: CalibrateSettings = PAPER
) -> Temperatures:
    """Both temperatures, from the `(N, K)` logits and `(N,)` labels of the fitting images."""
    logits, labels = _checked(logits, labels)
    return Temperatures(
        early_stopped(logits, labels, settings),
        optimum(logits, labels, settings.bounds),
    )


@torch.no_grad()
def predict(model: Callable, images: torch.Tensor, batch: int = 500) -> np.ndarray:
    """`(N, K)` logits of `(N, C, H, W)` images.

    Raises:
        UserError: the network is in training mode, where a batch changes its own logits.
    """
    if isinstance(model, torch.nn.Module) and model.training:
        raise UserError("the network is in training mode; call its eval() first")
    logits = [model(part).float().cpu() for part in images.split(batch)]
    return torch.cat(logits).numpy()


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """`(N, K)` probabilities at a temperature."""
    scaled = np.asarray(logits) / temperature
    return np.exp(log_softmax(scaled))


def judge(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = 10) -> dict:
    """Accuracy, ECE, NLL, Brier score and confidence gap at a temperature: shares in [0, 1], NLL in nats."""
    logits, labels = _checked(logits, labels)
    result = scores(log_softmax(logits / temperature), labels, bins)
    return result | {"temperature": temperature}


def diagram(logits: np.ndarray, labels: np.ndarray, temperatures: dict[str, float], bins: int = 10) -> Figure:
    """Reliability diagrams side by side, one for each name and temperature."""
    panels = {}
    for name, temperature in temperatures.items():
        probabilities = calibrated(logits, temperature)
        ece = judge(logits, labels, temperature, bins)["ece"]
        table = reliability(probabilities, np.asarray(labels), bins)
        panels[name] = {"ece": [ece], "reliability": table}
    titles = {name: name for name in panels}
    return figure1(panels, titles).figure


def read_logits(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Finite `(N, K)` logits, and `(N,)` labels from 0 to K - 1.

    Raises:
        UserError: the file cannot be read, lacks one of the two, or they do not fit each other.
    """
    try:
        values = load_file(file) if file.suffix == ".safetensors" else dict(np.load(file, allow_pickle=False))
        logits = values["logits"]
        labels = values["labels"]
    except KeyError as missing:
        raise UserError(f"{file}: {missing} is missing; expected logits (N, K) and labels (N,)") from None
    except Exception as problem:  # of numpy's, zip's, zlib's and safetensors' own kinds
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise UserError(f"{file}: not an .npz or .safetensors file: {reason}") from None
    return _checked(logits, labels, str(file))


def _checked(logits: Any, labels: Any, source: str = "logits and labels") -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels as arrays that a temperature can be fitted on.

    Raises:
        UserError: they do not fit each other, are not finite, or are no logits `(N, K)` and classes `(N,)`.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.dtype.kind not in "fiu":
        raise UserError(f"{source}: logits of type {logits.dtype}; expected real numbers")
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        shapes = f"logits {logits.shape}, labels {labels.shape}"
        raise UserError(f"{source}: {shapes}; expected (N, K) and (N,)")
    if not np.isfinite(logits).all():
        raise UserError(f"{source}: logits that are not finite")
    largest = float(np.abs(logits, dtype=np.float64).max(initial=0))
    if largest > LARGEST:
        raise UserError(f"{source}: logits up to {largest:.3g}; expected numbers up to {LARGEST:g}")
    _, classes = logits.shape
    if labels.dtype.kind not in "iu":
        raise UserError(f"{source}: labels of type {labels.dtype}; expected whole numbers")
    if labels.min() < 0 or labels.max() >= classes:
        range_of_labels = f"labels from {labels.min()} to {labels.max()}"
        raise UserError(f"{source}: {range_of_labels}; expected whole numbers from 0 to {classes - 1}")
    if logits.dtype not in (np.float32, np.float64):
        logits = logits.astype(np.float64)  # 16 bits are too few, and whole numbers cannot be fitted
    return logits, labels


def main(*words: str) -> None:
    if len(words) not in (3, 4):
        files = "<fitting logits> <test logits> <folder> [<real logits>]"
        expected = f"python -m stages.tools.standalone {files}"
        raise UserError(f"standalone: {len(words)} words; expected: {expected}")
    fitting_file, test_file, folder, *real_files = words
    fitting = read_logits(Path(fitting_file))
    logits, labels = read_logits(Path(test_file))
    real = [read_logits(Path(file)) for file in real_files]
    for file, (others, _) in zip((fitting_file, *real_files), (fitting, *real)):
        if others.shape[1] != logits.shape[1]:
            classes = f"logits of {others.shape[1]} classes, but {test_file} has {logits.shape[1]}"
            raise UserError(f"{file}: {classes}")
    fits = fit_temperatures(*fitting)
    temperatures = {"Raw": 1.0}
    bound_hits = [fits.early_stopped.bound_hit, fits.converged.bound_hit]
    for of_real in real:
        shipped = optimum(*of_real, PAPER.bounds)
        temperatures["Shipped T"] = shipped.temperature
        bound_hits.append(shipped.bound_hit)
    temperatures["MTS"] = fits.early_stopped.temperature
    temperatures[f"T = {PAPER.start}"] = PAPER.start
    temperatures["MTS conv."] = fits.converged.temperature
    result = {name: judge(logits, labels, temperature) for name, temperature in temperatures.items()}
    for name, numbers in result.items():
        print(_line(name, numbers))
    if any(bound_hits):
        print(f"a fit ended on a bound of {PAPER.bounds}", file=sys.stderr)
    write_json(Path(folder) / "result.json", result)
    with replacing(Path(folder) / "reliability.png") as temporary:
        diagram(logits, labels, temperatures).savefig(temporary, dpi=130)


def _line(name: str, numbers: dict[str, float]) -> str:
    temperature = f"T {numbers['temperature']:6.3f}"
    shares = f"accuracy {numbers['accuracy']:.2%}  ECE {numbers['ece']:.2%}"
    return f"{name:10} {temperature}  {shares}  NLL {numbers['nll']:.3f}"


if __name__ == "__main__":
    run_stage(main)
