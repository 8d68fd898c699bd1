"""What tables and figures know of a row."""

from typing import Literal

from stages.settings.section import Count, Positive, Ratio, Section
from stages.settings.train import OwnTraining

__all__ = ["TableKeys"]


class TableKeys(Section):
    """The keys of `runs.<row>` by which tables and figures put rows beside each other.

    A row is `published` if its set was made with the settings of its publication, `reduced` if with a smaller
    budget, which `budget_note` says in words, and `quick` if its numbers are no result. A row without
    `budget` is nobody's publication.
    """

    suite: str
    dataset: str
    backbone: str
    ipc: Count | None
    reads: str  # below data/: buffer/<name>, sets/<folder>, distill/<row>, or `nothing`
    mdt: Ratio | list[Ratio]
    lr: Positive | Literal["learned", "teacher"]
    budget: Literal["published", "reduced", "quick"] | None = None
    budget_note: str = ""  # what is reduced
    made_by: str | None = None  # with backbone `file`: the backbone or other method that has made the set
    # Rows that are put into one family are equal in these, too. No table shows them.
    distill: dict = {}
    epochs: Count = 1000
    augment: bool = True
    train: OwnTraining = OwnTraining()

    @property
    def method(self) -> str:
        """The backbone, or with backbone `file` the method, that has made the set."""
        return self.made_by or self.backbone
