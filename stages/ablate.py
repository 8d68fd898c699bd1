"""ablate: ECE of MTS at every mask ratio, share, starting value and number of steps -> one JSON file.

    python -m stages.ablate <row>

For Figures 8 and 9 and the table of starting values. Nothing here is a row's result: what does best on the test images
was chosen on them, and is shown as that.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.calibrators.early_stopped import lbfgs_path, within
from stages.calibrators.optimum import optimum
from stages.calibrators.settings import CalibrateSettings, SweepSettings, key_of
from stages.metrics.ece import ece
from stages.metrics.scores import log_softmax
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.settings import find, param, parse

__all__ = ["ablate"]


def ablate(settings: CalibrateSettings, sweep: SweepSettings, bins: int, own: float, fitting: dict[str, np.ndarray], test: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Write `{"ratio": own, "raw": [ECE], "fixed": [ECE], "fits": [{"ratio", "share", "start", "steps", "temperature", "bound_hit", "ece"}, ...]}` to `file`.

    Its last three are lists, one entry a repeat, as `raw` (T = 1) and `fixed` (T = `settings.start`) are; `start` and `steps` are null for the exact optimum. Other shares than
    `settings.share` are tried at the row's own ratio, from `settings.start`.

    Args:
        own: the row's mask ratio.
        fitting: `(repeats, M, K)` logits and `(repeats, M)` labels of the fitting images, by `key_of`.
        test: `(repeats, N, K)` logits of the networks on the test images.
        labels: `(N,)`.
    """

    def errors(temperatures: list[float]) -> list[float]:
        return [ece(np.exp(log_softmax(z / temperature)), labels, bins) for z, temperature in zip(test, temperatures)]

    def fits(ratio: float, share: float, starts: list[float], steps: list[int]) -> list[dict]:
        each = list(zip(fitting[key_of("mts", ratio, share)], fitting[key_of("mts", ratio, share) + ".labels"]))
        found = [(None, None, [optimum(*one, settings.bounds) for one in each])]
        for start in starts:
            paths = [lbfgs_path(*one, start, settings.lr, max(steps)) for one in each]
            found += [(start, count, [within(path[min(count, len(path) - 1)], settings.bounds) for path in paths]) for count in steps]
        return [
            {
                "ratio": ratio,
                "share": share,
                "start": start,
                "steps": count,
                "temperature": [fit.temperature for fit in some],
                "bound_hit": [fit.bound_hit for fit in some],
                "ece": errors([fit.temperature for fit in some]),
            }
            for start, count, some in found
        ]

    ratios, shares = sorted({own, *sweep.ratios}), sorted({*sweep.shares} - {settings.share})
    starts, steps = sorted({settings.start, *sweep.starts}), sorted({settings.max_iter, *sweep.steps})
    everything = [fit for ratio in ratios for fit in fits(ratio, settings.share, starts, steps)]
    everything += [fit for share in shares for fit in fits(own, share, [settings.start], [settings.max_iter])]
    unfitted = {"raw": errors([1.0] * len(test)), "fixed": errors([settings.start] * len(test))}
    write_json(file, {"ratio": own, "share": settings.share, "start": settings.start, "steps": settings.max_iter, **unfitted, "fits": everything})


def main(name: str) -> None:
    test = load_file(Path("data/train") / name / "logits.safetensors")
    ablate(
        parse(CalibrateSettings, param("calibrate"), "params.yaml: calibrate"),
        parse(SweepSettings, param("sweep"), "params.yaml: sweep"),
        param("evaluate")["bins"],
        find("runs", name)[0]["mask_ratio"],
        load_file(Path("data/masked") / f"{name}.safetensors"),
        test["cross_entropy"],
        test["labels"],
        Path("data/ablate") / f"{name}.json",
    )


if __name__ == "__main__":
    run_stage(main)
