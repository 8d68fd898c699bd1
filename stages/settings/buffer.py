"""`buffers.<name>`: the expert trajectories that MTT matches."""

from stages.settings.section import Count, Positive, Precision, Section

__all__ = ["BufferSettings", "ImportedBuffer"]


class BufferSettings(Section):
    """Keys of a buffer whose experts are trained here.

    The published training has 50 epochs, but a distillation reads only the first few of them.
    """

    dataset: str
    experts: Count
    epochs: Count
    lr: Positive
    batch: Count
    precision: Precision = "float32"  # of the products


class ImportedBuffer(Section):
    """Keys of a buffer that MTT's own code has made: every `replay_buffer_*.pt` of a folder."""

    dataset: str
    files: str  # the folder
    epochs: Count  # to keep of each trajectory, from its start
