"""Smooth expected calibration error (smECE): no bins, and a bandwidth that the data choose.

Jarosław Błasiok, Preetum Nakkiran: "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR 2024,
https://arxiv.org/abs/2309.12236. Their package relplot (1.0.3) gives the same to 0.001, with two exceptions where this file
keeps to the definition: relplot counts confidences within 0.001 of 0 or 1 for as little as half, and cuts its kernel off at
a distance of 0.5, which shows above a smECE of about 0.15 where the sign of the error differs between confidences.
"""

import numpy as np

__all__ = ["fixed_point", "residuals", "smooth_ece"]

CELLS = 512  # of the grid on [0, 1]: finer than the bandwidths, about 0.01 for 10,000 samples that are calibrated
STEPS = 14  # halvings, at least, of the interval of the bandwidth


def residuals(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`sum w (right - confidence) / sum w` over the samples of each grid cell, `(R, CELLS)`.

    Args:
        confidence: `(N,)`, in [0, 1].
        right: `(N,)`, 1 where the top class is the label.
        weights: `(R, N)`, one row for each resample of the data.
    """
    rows = len(weights)
    cell = np.minimum((confidence * CELLS).astype(int), CELLS - 1)
    index = np.arange(rows)[:, None] * CELLS + cell
    sums = np.bincount(index.ravel(), (weights * (right - confidence)).ravel(), rows * CELLS)
    return sums.reshape(rows, CELLS) / weights.sum(1, keepdims=True)


def fixed_point(cells: np.ndarray) -> np.ndarray:
    """The smECE of each row of `(R, CELLS)` residuals, `(R,)`: that of the bandwidth with smECE_sigma = sigma.

    A Gaussian reflected at 0 and 1 is the heat kernel of the interval: it multiplies the k-th cosine of the residuals,
    here of their even extension, by `exp(-(pi k sigma)^2 / 2)`. smECE_sigma falls with sigma, so the solution is always
    between a sigma and its smECE_sigma. In float32, good to about 1e-6.
    """
    waves = np.fft.rfft(np.concatenate([cells, cells[:, ::-1]], 1).astype(np.float32))
    frequency = np.pi * np.arange(CELLS + 1, dtype=np.float32)
    low, high = np.zeros(len(cells), np.float32), np.ones(len(cells), np.float32)
    for _ in range(STEPS):
        sigma = (low + high) / 2
        smoothed = np.fft.irfft(waves * np.exp(-((frequency * sigma[:, None]) ** 2) / 2))
        value = np.abs(smoothed[:, :CELLS]).sum(1)
        low, high = np.maximum(low, np.minimum(sigma, value)), np.minimum(high, np.maximum(sigma, value))
    return value


def smooth_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """`integral over t of |1/N sum_i (right_i - confidence_i) K_sigma(t, confidence_i)|`, with K the Gaussian of
    standard deviation sigma reflected at 0 and 1 and sigma the solution of smECE_sigma = sigma; a share in [0, 1].

    At least `|accuracy - mean confidence|`, and equal to it where the network is over-confident everywhere or nowhere.

    Args:
        confidence: `(N,)`, of the top class.
        right: `(N,)`, 1 where the top class is the label.
    """
    return float(fixed_point(residuals(confidence, right, np.ones((1, len(confidence)))))[0])
