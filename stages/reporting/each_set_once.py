"""Which rows count where each distilled set counts once, though networks of several rows may have it."""

from collections.abc import Sequence

from stages.settings.tables import TableKeys

__all__ = ["each_set_once"]

COPY = "sets/"  # `reads` of a row whose set is a committed copy of the one that another row has made
LENT = "distill/"  # `reads` of a row that takes the set of another row as it is


def each_set_once(rows: dict[str, TableKeys], names: Sequence[str]) -> list[str]:
    """The names without the rows whose set another of them stands for.

    A row that reads `sets/<other>` trains its networks as the other did, with the present code: it stands for
    the other. A row that reads `distill/<other>` trains them in another way: the other stands for it.
    """
    left_out = set()
    for name in names:
        reads = rows[name].reads
        if reads.startswith(COPY):
            left_out.add(reads.removeprefix(COPY))
        elif reads.removeprefix(LENT) in names:
            left_out.add(name)
    return [name for name in names if name not in left_out]
