"""Figures 2 to 9, 12 and 13 of some rows of a suite, from what `ablate`, `svd` and `features` have found."""

from stages.reporting.ablation_figures import ablation_figures
from stages.reporting.drawing import Drawn
from stages.reporting.feature_figures import Features, feature_figures
from stages.reporting.singular_value_figures import singular_value_figures
from stages.settings.tables import TableKeys

__all__ = ["analysis_figures"]


def analysis_figures(
    subject: str,
    rows: dict[str, TableKeys],
    ablations: dict[str, dict],
    decomposed: dict[str, dict],
    features: dict[str, Features],
    classes: list[str],
) -> dict[str, Drawn]:
    """The figures by file name, of the results that there are.

    Args:
        subject: what the names end in, after a hyphen.
        rows: by name, as the results are.
        classes: names of the data set's classes; of no use without features.
    """
    figures = ablation_figures(rows, ablations)
    figures |= singular_value_figures(rows, decomposed)
    figures |= feature_figures(rows, features, classes)
    return {f"{figure}-{subject}": drawn for figure, drawn in figures.items()}
