"""What tables and figures know of a row."""

from stages.settings.section import Count, Ratio, Section

__all__ = ["TableKeys"]


class TableKeys(Section):
    """The keys of `runs.<row>` by which tables and figures put rows beside each other."""

    suite: str
    dataset: str
    backbone: str
    ipc: Count | None
    reads: str
    mdt: Ratio | list[Ratio]
