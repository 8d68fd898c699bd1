"""The names that `device` of params.yaml may have. Nothing here imports torch, which takes seconds."""

import re

__all__ = ["DEVICES", "gpu_share", "is_known", "is_of_ray"]

DEVICES = "auto, cpu, cuda, cuda:<number>, mps, ray, ray:<share of a GPU, 0 to 1>"

_SHARE = r"(?P<share>0(\.\d{1,4})?|1(\.0{1,4})?)"  # Ray counts ten-thousandths of a GPU
_RAY = re.compile(rf"ray(:{_SHARE})?", re.ASCII)
_LOCAL = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?", re.ASCII)


def is_known(name: str) -> bool:
    """Whether this is a device's name; this machine need not have such a device."""
    return bool(_LOCAL.fullmatch(name)) or is_of_ray(name)


def is_of_ray(name: str) -> bool:
    """Whether units of work become tasks of a cluster."""
    return bool(_RAY.fullmatch(name))


def gpu_share(name: str) -> float | None:
    """The share of a GPU that each task gets, e.g. 0.25 for `ray:0.25`; None where no share is named."""
    match = _RAY.fullmatch(name)
    share = match and match["share"]
    return float(share) if share else None
