"""All real images: what a network trained on the full data (FDNN) reaches."""

from stages.shared.method import Method, Problem
from stages.shared.settings import Section

__all__ = ["Settings", "start"]


class Settings(Section):
    """No settings."""


def start(problem: Problem, settings: Settings) -> Method:
    """The training split itself."""
    return Method(None, problem.real.labels)
