"""DC: gradient matching from noise, without augmentation."""

import torch

from stages.shared.gradient_matching import MatchingSettings as Settings
from stages.shared.gradient_matching import match
from stages.shared.method import Method, Problem
from stages.shared.randomness import generator

__all__ = ["Settings", "start"]


def start(problem: Problem, settings: Settings) -> Method:
    """Start from standard normal noise."""
    real = problem.real
    labels = torch.arange(real.classes, device=real.labels.device).repeat_interleave(problem.ipc)
    noise = torch.randn(len(labels), *real.images.shape[1:], generator=generator(problem.seed, "noise"))
    return match(problem, settings, noise.to(real.images[:1]), labels, siamese=False)
