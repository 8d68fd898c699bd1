"""SVG as matplotlib writes it, made smaller: it looks the same, and text stays text."""

import io
import re
from base64 import b64decode, b64encode
from html import escape, unescape

from PIL import Image

__all__ = ["compact", "description"]

FONT = "font-family:'DejaVu Sans',Verdana,sans-serif"
TAG = re.compile(r"<[^<>]+>")
NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")  # two digits after the point are a hundredth of 1/72 inch
FAMILY = re.compile(r" ?font-family:[^;\"]*;?")
NO_ROTATION = re.compile(r' transform="rotate\(-0 [^"]*\)"')
PNG = re.compile(r"data:image/png;base64,([\w+/=\s]+)")
COLORS = 64  # of pixels: ten classes, their edges and their overlaps
NAME = re.compile(r' id="([^"]*)"')
REFERENCE = re.compile(r"#([\w.-]+)")
LINES = re.compile(r' d="([MLz\d. -]*)"')  # paths of straight lines alone
ALONE = re.compile(r"<g>(<(?:path|use|image)[^<>]*/>|<text[^<>]*>[^<>]*</text>|)</g>")


def compact(svg: str, description: str) -> str:
    """The picture without what no reader sees, with its description for those who cannot see it."""
    start = svg.index("<svg")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[start:], flags=re.DOTALL)
    used = set(REFERENCE.findall(text))
    text = TAG.sub(lambda tag: _compact_tag(tag[0], used), text)
    text = re.sub(r">\s*\n\s*<", "><", text)
    text = _without_lone_groups(text)
    text = PNG.sub(_in_few_colors, text)
    head = f'<svg style="{FONT}"'
    described = f"<desc>{escape(description, quote=False)}</desc>" if description else ""
    body = text.replace("<svg", head, 1)
    end = body.index(">") + 1
    return f"{body[:end]}{described}{body[end:]}\n"


def description(svg: str) -> str:
    """The description that `compact` has put into a picture; empty without one."""
    match = re.search(r"<desc>(.*?)</desc>", svg, re.DOTALL)
    return unescape(match[1]) if match else ""


def _compact_tag(tag: str, used: set[str]) -> str:
    if "scale(" not in tag and "matrix(" not in tag:
        tag = NUMBER.sub(_rounded, tag)
    tag = FAMILY.sub("", tag)
    tag = NO_ROTATION.sub("", tag)
    tag = NAME.sub(lambda name: name[0] if name[1] in used else "", tag)
    tag = re.sub(r"\s+", " ", tag)
    tag = LINES.sub(_without_repeated_letters, tag)
    return tag.replace("; ", ";").replace(": ", ":").replace(' "', '"').replace(" >", ">")


def _rounded(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _in_few_colors(png: re.Match) -> str:
    """Pixels with a palette, which takes a fraction of the bytes."""
    image = Image.open(io.BytesIO(b64decode(png[1])))
    file = io.BytesIO()
    few = image.quantize(COLORS, method=Image.Quantize.FASTOCTREE)
    few.save(file, format="png", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _without_repeated_letters(path: re.Match) -> str:
    """A path in which further numbers after a line's end are the ends of further lines."""
    letters = re.sub(r"(?<=\d) L (?=[-\d])", " ", path[1])
    return f' d="{letters.strip()}"'


def _without_lone_groups(text: str) -> str:
    """The picture without groups of one element that say nothing of their own."""
    while True:
        shorter = ALONE.sub(r"\1", text)
        if shorter == text:
            return text
        text = shorter
