"""Random real images: the reference that every distilled set has to beat."""

from stages.shared.method import Method, Problem
from stages.shared.settings import Section

__all__ = ["Settings", "start"]


class Settings(Section):
    """No settings."""


def start(problem: Problem, settings: Settings) -> Method:
    """`ipc` real images of each class, drawn as those that MTT starts from."""
    rows = problem.real_rows()
    return Method(lambda: problem.real.images[rows], problem.real.labels[rows])
