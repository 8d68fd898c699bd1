"""The report as one page: whole, self-contained HTML that fits a phone; the committed page too."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from matplotlib.figure import Figure

from stages.page import Shown, page
from stages.tables import Table

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "reports/index.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
WIDTHS = (390, 1280)  # a phone, a laptop
ODD = 'a<b & "c"'  # must be escaped wherever it stands
# Opens whatever folds and looks at the page in frames of these widths: a window of Chromium's cannot be as narrow as a phone.
WRAPPER = """<!DOCTYPE html><pre id="found"></pre>{frames}<script>
addEventListener("load", () => {{
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(({{contentDocument: page}}) => {{
    page.querySelectorAll("details").forEach(details => details.open = true);
    const {{scrollWidth, clientWidth}} = page.documentElement, images = [...page.images];
    return {{scrollWidth, clientWidth, images: images.length, broken: images.filter(image => !image.naturalWidth).map(image => image.alt)}};
  }}));
}});</script>"""


class Structure(HTMLParser):
    """Ids, links, headings, texts and pictures of a page, whose elements must be closed in the order in which they were opened."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.headings, self.images, self.texts, self.outside = [], [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.images += [values] if tag == "img" else []
        self.outside += [value for key in ("src", "href", "srcset", "data") if (value := values.get(key)) and not value.startswith(("data:", "#"))]
        assert tag != "th" or values["scope"] in ("col", "row")
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> dict:
    """Arguments of `page`: a table too wide for a screen, with every kind of cell, and an odd name everywhere."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"tall.svg": (4, 5), "wide.png": (20, 3), "set.png": (8, 3.6)}.items():
        Figure(figsize=size).savefig(folder / name, metadata={"Date": None} if name.endswith("svg") else None)
    line = {f"Method {i}": "12.34 ± 5.67†" for i in range(20)}
    lines = [{"Row": ODD, **line}, {"Row": "b", **dict.fromkeys(line, "missing")}, {"Row": "(the paper)", **dict.fromkeys(line, "")}]
    other = [{"Row": "b", "Network": "mlp", "ECE": "-1.5", "Best": "oracle 2.5"}]
    return {
        "tables": {
            "table1": Table(f"Table 1: of {ODD}", pd.DataFrame(lines), pd.DataFrame(), [f"`conv.` of {ODD}"]),
            "table7": Table("Table 7: of others", pd.DataFrame(other), pd.DataFrame(), []),
            "losses": Table("Losses: without rows", pd.DataFrame([{"Loss": "focal", "gamma": "1"}]), pd.DataFrame(), []),
        },
        "figures": {
            "figure8-digits": Shown(f"Figure 8: {ODD}", f"{ODD} by `ratio`", folder / "tall.svg"),
            "figure1": Shown("Figure 1: wide", "Panels side by side.", folder / "wide.png"),
        },
        "rows": {ODD: {"distill": {"lr_lr": 1e-6}, "mdt": [0, 0.1], "long": "word" * 100}, "b": {"ipc": None}, "unnamed": {}},
        "pictures": {ODD: folder / "set.png"},
        "settings": {"seed": 0, "train": {"losses": ["mixup", ODD]}},
        "versions": {"python": "3.11.7", "code": ODD},
        "intro": f"What {ODD} says.\n\nAnd more, by `dvc repro`.",
    }


@pytest.fixture(params=["sample", "committed"])
def shown(request, sample, tmp_path) -> Path:
    """A page as a file: the sample's, and the committed one."""
    if request.param == "sample":
        (tmp_path / "index.html").write_text(page(**sample))
        return tmp_path / "index.html"
    if not COMMITTED.exists():
        pytest.skip(f"{COMMITTED} is not here yet; dvc repro makes it")
    return COMMITTED


def test_is_whole_and_needs_nothing_else(shown):
    text = shown.read_text()
    found = Structure(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=") and "<script" not in text and "<title>" in text
    assert len(set(found.ids)) == len(found.ids)
    assert not {link for link in found.links if unquote(link).removeprefix("#") not in found.ids}
    assert found.outside == [] and not re.search(r"@import|url\(", text)
    assert found.images and all(re.match("data:image/(png|svg.xml);base64,", image["src"]) and image["alt"] for image in found.images)
    assert found.headings[0] == 1 and found.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.headings, found.headings[1:]))


def test_shows_all_that_it_is_given(sample):
    text = page(**sample)
    found = Structure(text)
    assert text == page(**sample)
    assert ODD not in text and html.escape(ODD) in text
    assert set(found.ids) >= {*sample["tables"], *sample["figures"], *(f"row-{name}" for name in sample["rows"])}
    assert len(found.images) == len(sample["figures"]) + len(sample["pictures"])
    assert [image["alt"] for image in found.images][:1] == [f"Figure 8: {ODD}. {ODD} by `ratio`"]
    cells = "".join(data + "|" for path, data in found.texts if path[-2:] == ("td", "a"))
    assert cells == "12.34 ± 5.67|" * 20 + "-1.5|oracle 2.5|"  # every number of a row is a link, and nothing else is
    links = [unquote(link) for link in found.links]
    assert links.count(f"#row-{ODD}") == 1 + 20 + 1 and links.count("#row-b") == 1 + 3 + 1  # names, numbers, list of rows
    assert links.count("#table1") == 1 + 2 and links.count("#table7") == 1 + 1  # contents, and back from the rows
    assert text.index('id="table1"') < text.index("<h2>More tables") < text.index('id="table7"')
    assert "mdt: [0, 0.1]\n" in text and "losses: [mixup, " in text


def test_leaves_out_what_is_not_there(sample):
    found = Structure(page({"table1": sample["tables"]["table1"]}, {}, {}, {}, {}, {}, ""))
    assert not {"tables", "figures", "rows"} & set(found.ids) and set(found.links) == {"#table1", "#settings", "#versions"}


def test_unknown_pictures_are_named(sample, tmp_path):
    (tmp_path / "odd.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match="odd.svg: expected an SVG with a viewBox"):
        page(**sample | {"figures": {"odd": Shown("Odd", "", tmp_path / "odd.svg")}})


def test_imports_no_torch():
    assert subprocess.run([sys.executable, "-c", "import sys, stages.page; sys.exit('torch' in sys.modules)"], cwd=ROOT).returncode == 0


def faults(file: Path, folder: Path) -> list[str]:
    """What Chromium finds wrong with a page at each width: pictures that do not load, a page wider than the screen, errors."""
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH to show the page in")
    shutil.copy(file, folder / "shown.html")
    frames = "".join(f'<iframe src="shown.html" style="width: {width}px; height: 800px; border: 0"></iframe>' for width in WIDTHS)
    (folder / "wrapper.html").write_text(WRAPPER.format(frames=frames))
    options = ["--allow-file-access-from-files", "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900"]
    command = [CHROMIUM, *QUIET, *options, "--dump-dom", (folder / "wrapper.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"{CHROMIUM} ended with {done.returncode}: {done.stderr[-2000:]}"
    out = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    for width, frame in zip(WIDTHS, json.loads(html.unescape(found[1])), strict=True):
        out += [f"{width}: {name} does not load" for name in frame["broken"]]
        out += [f"{width}: no pictures"] * (not frame["images"])
        out += [f"{width}: the page is {frame['scrollWidth']} wide in {frame['clientWidth']}"] * (frame["scrollWidth"] > frame["clientWidth"])
    return out


def test_fits_a_phone_and_a_laptop(shown, tmp_path):
    assert faults(shown, tmp_path) == []


def test_faults_are_found(tmp_path):
    bad = '<!DOCTYPE html><img alt="torn" src="data:image/png;base64,AAAA"><p style="width: 1000px">wide<script>console.error("oh")</script>'
    (tmp_path / "bad.html").write_text(bad)
    found = faults(tmp_path / "bad.html", tmp_path)
    assert sum('"oh"' in line for line in found) == 2
    assert [line.split(" is 1")[0] for line in found if "CONSOLE" not in line] == ["390: torn does not load", "390: the page", "1280: torn does not load"]
