"""`architectures.<row>` of a suite: a row whose set is tried on other networks."""

from typing import Annotated

from pydantic import Field

from stages.settings.section import Section

__all__ = ["ArchitecturesKeys"]


class ArchitecturesKeys(Section):
    """Keys of `architectures.<row>`."""

    networks: Annotated[list[str], Field(min_length=1)]  # files of stages/networks
