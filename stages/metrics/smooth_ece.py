"""Smooth expected calibration error (smECE): it has no bins, and the data choose its bandwidth.

Jarosław Błasiok, Preetum Nakkiran: "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR
2024, https://arxiv.org/abs/2309.12236. Their package relplot (1.0.3) agrees to 0.001, but for two cases in
which this file keeps to the definition: relplot gives confidences within 0.001 of 0 or 1 as little as half
their weight, and it cuts its kernel off at a distance of 0.5. The latter shows in a smECE above about 0.15
if the error changes its sign between confidences.
"""

import numpy as np

__all__ = ["CURVE", "fixed_point", "residuals", "smooth_accuracy", "smooth_ece"]

# Cells of the grid on [0, 1]. They are finer than the bandwidth: about 0.01 for 10,000 samples without error.
CELLS = 512
CURVE = (np.arange(0, CELLS, 16) + 0.5) / CELLS  # where the curve of a diagram is drawn
DENSE = 0.02  # a curve ends where there are fewer predictions than this share of an even spread
STEPS = 14  # each at least halves the interval of the bandwidth


def residuals(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`sum w (right - confidence) / sum w` over the samples of each grid cell, `(R, CELLS)`.

    Args:
        confidence: `(N,)`, of the top class, in [0, 1].
        right: `(N,)`, 1 where the top class is the label.
        weights: `(R, N)`, a row for each resample of the data.
    """
    resamples = len(weights)
    cell = np.minimum((confidence * CELLS).astype(int), CELLS - 1)
    index = np.arange(resamples)[:, None] * CELLS + cell
    weighted_gaps = weights * (right - confidence)
    sums = np.bincount(index.ravel(), weighted_gaps.ravel(), resamples * CELLS)
    return sums.reshape(resamples, CELLS) / weights.sum(1, keepdims=True)


def fixed_point(cells: np.ndarray) -> np.ndarray:
    """The smECE of each row of residuals: smECE_sigma at the bandwidth sigma where smECE_sigma = sigma.

    A Gaussian that is reflected at 0 and 1 is the heat kernel of the interval: it multiplies the k-th
    cosine wave of the residuals by `exp(-(pi k sigma)^2 / 2)`. The waves are those of the residuals and
    their mirror image. smECE_sigma falls with sigma, so the solution is between any sigma and its
    smECE_sigma.

    Args:
        cells: `(R, CELLS)`.

    Returns:
        `(R,)` float32, good to about 1e-6.
    """
    mirrored = np.concatenate([cells, cells[:, ::-1]], 1)
    waves = np.fft.rfft(mirrored.astype(np.float32))
    frequency = np.pi * np.arange(CELLS + 1, dtype=np.float32)
    low = np.zeros(len(cells), np.float32)
    high = np.ones(len(cells), np.float32)
    for _ in range(STEPS):
        sigma = (low + high) / 2
        damping = np.exp(-((frequency * sigma[:, None]) ** 2) / 2)
        smoothed = np.fft.irfft(waves * damping)
        value = np.abs(smoothed[:, :CELLS]).sum(1)
        low = np.maximum(low, np.minimum(sigma, value))
        high = np.minimum(high, np.maximum(sigma, value))
    return value


def smooth_accuracy(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The accuracy at the confidences `CURVE`, smoothed by the kernel of the smECE, whose bandwidth it is.

    It is the curve of the smooth reliability diagram, section 4 of the source. nan where there is next to no
    prediction.

    Args:
        confidence: `(N,)`, of the top class, in [0, 1].
        right: `(N,)`, 1 where the top class is the label.
    """
    sigma = max(smooth_ece(confidence, right), 1 / CELLS)
    cell = np.minimum((confidence * CELLS).astype(int), CELLS - 1)
    counts = np.bincount(cell, minlength=CELLS)
    counts_right = np.bincount(cell, right, CELLS)
    step = CELLS // len(CURVE)
    density = _heated(counts, sigma)[::step]
    is_dense = density * CELLS > DENSE * len(confidence)
    accuracy = _heated(counts_right, sigma)[::step] / np.where(is_dense, density, 1)
    return np.where(is_dense, accuracy, np.nan)


def _heated(cells: np.ndarray, sigma: float) -> np.ndarray:
    """`(CELLS,)` values after the Gaussian with this standard deviation, which is reflected at 0 and 1."""
    waves = np.fft.rfft(np.concatenate([cells, cells[::-1]]))
    frequency = np.pi * np.arange(CELLS + 1)
    return np.fft.irfft(waves * np.exp(-((frequency * sigma) ** 2) / 2))[:CELLS]


def smooth_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """`integral over t of |1/N sum_i (right_i - confidence_i) K_sigma(t, confidence_i)|`, a share in [0, 1].

    K is the Gaussian with standard deviation sigma, reflected at 0 and 1; sigma is the solution of
    smECE_sigma = sigma. The result is at least `|accuracy - mean confidence|`, and equal to it for a
    network that is over-confident at all confidences, or at none.

    Args:
        confidence: `(N,)`, of the top class.
        right: `(N,)`, 1 where the top class is the label.
    """
    all_samples_once = np.ones((1, len(confidence)))
    cells = residuals(confidence, right, all_samples_once)
    return float(fixed_point(cells)[0])
