"""The backbones, one file each: its paper, its `Settings`, and `start(problem, settings)`.

`check` reads the `Settings` of every row and should not wait for torch, which takes seconds to load. So
these files import torch, and the mathematics in stages/distillation, only inside `start`. The interface is
in stages/distillation/backbone.py.

A backbone that learns a step size with its images says so by `has_step_size: ClassVar[bool] = True` in its
`Settings`; rows of other backbones cannot have `lr: learned` or `lr: teacher`.
"""
