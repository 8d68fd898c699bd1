"""Pictures as parts of the page, in fewer bytes than their files have.

A PNG becomes a WebP: a lossless one, or one that looks the same where that is smaller, as for photographs.
An SVG keeps every mark, and a style that many elements have is said once.
"""

import io
import re
import struct
from base64 import b64encode
from html import escape
from pathlib import Path

from PIL import Image

from stages.reporting.elements import tag

__all__ = ["embedded", "pixels", "smaller_svg"]

SMALL = 480  # pixels: two figures of this width stand side by side
EFFORT = 2  # of WebP, from 0 to 6: more takes seconds and saves a few percent
QUALITY = 90  # of a WebP that is not lossless, from 0 to 100
STYLE = re.compile(r' style="([^"]*)"')
ID = re.compile(r' id="([^"]*)"')


def embedded(path: Path, alt: str) -> str:
    """A picture on a card, which scrolls where a wide one would get too small to read.

    Raises:
        ValueError: an SVG without a size.
    """
    if path.suffix == ".png":
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        url = f"data:image/webp;base64,{b64encode(_webp(data)).decode()}"
    else:
        text = path.read_text()
        width, height = _size(text, path)
        url = "data:image/svg+xml," + _in_address(smaller_svg(text))
    shape = f'width="{width}" height="{height}" style="--ratio: {width / height:.3f}"'
    image = f"<img src='{url}'" + f' alt="{escape(alt)}" decoding="async" {shape}>'
    kind = "card small" if width <= SMALL else "card"
    return tag("div", image, class_=kind, tabindex="0", role="region", aria_label=alt.split(".")[0])


def _webp(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        kept = image.convert("RGB") if _is_opaque(image) else image.convert("RGBA")
    lossless = _encoded(kept, lossless=True, quality=60)
    lossy = _encoded(kept, quality=QUALITY)
    return min(lossless, lossy, key=len)


def _encoded(image: Image.Image, **options: int) -> bytes:
    written = io.BytesIO()
    image.save(written, "WEBP", method=EFFORT, **options)
    return written.getvalue()


def _is_opaque(image: Image.Image) -> bool:
    if "A" not in image.getbands():
        return True
    low, _ = image.getchannel("A").getextrema()
    return low == 255


def _size(svg: str, path: Path) -> tuple[int, int]:
    """Width and height in pixels of an SVG whose size is in points, as matplotlib writes it."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if not box:
        raise ValueError(f"{path}: expected an SVG with a viewBox that begins at 0 0")
    return pixels(float(box[1])), pixels(float(box[2]))


def pixels(points: float) -> int:
    """A browser shows three points as four pixels."""
    return round(points * 4 / 3)


def smaller_svg(text: str) -> str:
    """The same picture, as `svg.compact` has written it, in fewer characters."""
    return _with_shared_styles(_with_short_ids(text)).strip()


def _with_short_ids(text: str) -> str:
    """Ids that nothing refers to go; the others are numbered."""
    used = dict.fromkeys(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    short = {name: f"i{number}" for number, name in enumerate(used)}
    text = ID.sub(lambda match: f' id="{short[match[1]]}"' if match[1] in short else "", text)
    text = re.sub(r'(?:xlink:)?href="#([^"]+)"', lambda match: f'href="#{short[match[1]]}"', text)
    return re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{short[match[1]]})", text)


def _with_shared_styles(text: str) -> str:
    """Each style as a class of the picture's own style sheet."""
    classes = {style: f"s{number}" for number, style in enumerate(dict.fromkeys(STYLE.findall(text)))}
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    text = STYLE.sub(lambda match: f' class="{classes[match[1]]}"', text)
    before, end, after = text.partition(">")
    return f"{before}{end}<style>{rules}</style>{after}"


def _in_address(svg: str) -> str:
    """The text of an SVG as part of an address, in an attribute that stands in single quotes."""
    text = svg.replace("%", "%25").replace("#", "%23").replace("&", "%26")
    return text.replace("'", "%27")
