"""Picture files, decoded to pixels. The pixels are kept, so that a second run need not decode them again."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.runtime.checksums import is_whole
from stages.runtime.errors import UserError
from stages.runtime.files import read_arrays, write_tensors
from stages.settings.images import ImageSettings

if TYPE_CHECKING:  # the stages that look at settings alone decode nothing
    from PIL.Image import Image

__all__ = ["open_picture", "read_pictures"]

MOST_PIXELS = 50_000_000  # of a picture, which take 150 MB in color


def read_pictures(files: list[Path], settings: ImageSettings, key: str, cache: Path | None) -> np.ndarray:
    """The pixels of picture files, `(N, C, H, W)` uint8.

    Args:
        key: the key of `settings`, for messages.
        cache: a folder to keep the pixels in, which may be deleted at any time; None keeps nothing.

    Raises:
        UserError: a file is not a readable picture; without `resize`, their sizes differ or are not square.
    """
    if cache is None:
        return _decode_all(files, settings, key)
    import torch
    from PIL import __version__ as pillow

    how = {"resize": settings.resize, "color": settings.color, "pillow": pillow}
    place = cache / f"{_digest(files, how)}.safetensors"
    if not is_whole(place):
        images = _decode_all(files, settings, key)
        write_tensors(place, {"images": torch.from_numpy(images)}, how)
    return read_arrays(place)["images"]


def _digest(files: list[Path], how: dict) -> str:
    """A hash of what the pixels depend on: the files' contents, in their order, and how they are read."""
    whole = hashlib.sha256(json.dumps(how).encode())
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _decode_all(files: list[Path], settings: ImageSettings, key: str) -> np.ndarray:
    """The pixels of all files, which must have the size of the first."""
    from tqdm import tqdm

    shape = _decode(files[0], settings).shape
    _, height, width = shape
    if height != width:
        raise UserError(
            f"{key}.resize: null with {files[0]} of {width}x{height} pixels; "
            f"the network needs squares: set {key}.resize"
        )
    images = np.empty((len(files), *shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(partial(_decode, settings=settings), files)
        for i, image in enumerate(tqdm(decoded, "decode", len(files), disable=None, leave=False)):
            if image.shape != shape:
                raise UserError(
                    f"{files[i]} has {image.shape[2]}x{image.shape[1]} pixels "
                    f"but {files[0]} has {width}x{height}; set {key}.resize"
                )
            images[i] = image
    return images


def _decode(file: Path, settings: ImageSettings) -> np.ndarray:
    """The pixels of one file, `(C, H, W)` uint8."""
    from PIL import Image, ImageOps

    mode = "L" if settings.color == "gray" else "RGB"
    picture = open_picture(file, mode)
    if settings.resize:
        size = (settings.resize, settings.resize)
        picture = ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    if mode == "L":
        return pixels[None]
    return pixels.transpose(2, 0, 1)


def open_picture(file: Path, mode: str) -> "Image":
    """The picture in a file, decoded.

    Args:
        mode: of PIL: "L" for gray, or "RGB".

    Raises:
        UserError: the file is not a readable picture of 8 bits a channel, or has more than `MOST_PIXELS`.
    """
    from PIL import Image

    try:
        with Image.open(file) as opened:
            width, height = opened.size
            if not 0 < width * height <= MOST_PIXELS:
                raise ValueError(f"{width}x{height} pixels; allowed: at most {MOST_PIXELS:,}")
            if opened.mode.startswith(("I", "F")):  # PIL would cut all that is above 255
                raise ValueError(f"more than 8 bits a channel (mode {opened.mode}); allowed: 8")
            return opened.convert(mode)
    except Exception as problem:  # of PIL's, struct's and zlib's own kinds, whatever is wrong in the file
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise UserError(f"{file}: not a readable image: {reason}") from None
