"""The report as one page is whole, self-contained HTML that fits a phone; so is the committed page."""

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

from stages.reporting.cells import Table
from stages.reporting.page import Content, Shown, page

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "reports/index.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1400,900",
]
WIDTHS = (390, 1280)  # a phone, a laptop
ODD = 'a<b & "c"'  # must be escaped wherever it stands
# It opens whatever folds and looks at the page in frames of these widths: a window of Chromium's cannot be as
# narrow as a phone.
WRAPPER = """<!DOCTYPE html><pre id="found"></pre>{frames}<script>
function look({{contentDocument: page}}) {{
  page.querySelectorAll("details").forEach(details => details.open = true);
  const {{scrollWidth, clientWidth}} = page.documentElement;
  const images = [...page.images];
  const broken = images.filter(image => !image.naturalWidth).map(image => image.alt);
  return {{scrollWidth, clientWidth, images: images.length, broken}};
}}
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.getElementById("found").textContent = JSON.stringify(frames.map(look));
}});</script>"""


class Structure(HTMLParser):
    """Ids, links, headings, texts and pictures of a page.

    Its elements must be closed in the opposite order to that in which they were opened.
    """

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.images: list[dict] = []
        self.texts: list[tuple] = []
        self.outside: list[str] = []  # addresses of anything that is not in the page
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(values)
        for key in ("src", "href", "srcset", "data"):
            address = values.get(key)
            if address and not address.startswith(("data:", "#")):
                self.outside.append(address)
        assert tag != "th" or values["scope"] in ("col", "row")
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Content:
    """A table too wide for a screen, with every kind of cell, and an odd name everywhere."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"tall.svg": (4, 5), "wide.png": (20, 3), "set.png": (8, 3.6)}.items():
        about = {"Date": None} if name.endswith("svg") else None
        Figure(figsize=size).savefig(folder / name, metadata=about)
    columns = [f"Method {i}" for i in range(20)]
    wide = [
        {"Row": ODD, **dict.fromkeys(columns, "12.34 ± 5.67†")},
        {"Row": "b", **dict.fromkeys(columns, "missing")},
        {"Row": "(the paper)", **dict.fromkeys(columns, "")},
    ]
    narrow = [{"Row": "b", "Network": "mlp", "ECE": "-1.5", "Best": "oracle 2.5"}]
    losses = [{"Loss": "focal", "gamma": "1"}]
    nothing = pd.DataFrame()
    tables = {
        "table1": Table(f"Table 1: of {ODD}", pd.DataFrame(wide), nothing, [f"`conv.` of {ODD}"]),
        "table7": Table("Table 7: of others", pd.DataFrame(narrow), nothing, []),
        "losses": Table("Losses: without rows", pd.DataFrame(losses), nothing, []),
    }
    figures = {
        "figure8-digits": Shown(f"Figure 8: {ODD}", f"{ODD} by `ratio`", folder / "tall.svg"),
        "figure1": Shown("Figure 1: wide", "Panels side by side.", folder / "wide.png"),
    }
    rows = {
        ODD: {"distill": {"lr_lr": 1e-6}, "mdt": [0, 0.1], "long": "word" * 100},
        "b": {"ipc": None},
        "unnamed": {},
    }
    return Content(
        intro=f"What {ODD} says.\n\nAnd more, by `dvc repro`.",
        tables=tables,
        figures=figures,
        rows=rows,
        pictures={ODD: folder / "set.png"},
        settings={"seed": 0, "train": {"losses": ["mixup", ODD]}},
        versions={"python": "3.11.7", "code": ODD},
    )


@pytest.fixture(params=["sample", "committed"])
def shown(request, sample, tmp_path) -> Path:
    """A page as a file: the sample's, and the committed one."""
    if request.param == "sample":
        (tmp_path / "index.html").write_text(page(sample))
        return tmp_path / "index.html"
    if not COMMITTED.exists():
        pytest.skip(f"{COMMITTED} is not here yet; dvc repro makes it")
    return COMMITTED


def test_the_page_is_whole_and_needs_nothing_else(shown):
    text = shown.read_text()
    structure = Structure(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert "<script" not in text and "<title>" in text
    assert len(set(structure.ids)) == len(structure.ids)
    assert {unquote(link).removeprefix("#") for link in structure.links} <= set(structure.ids)
    assert structure.outside == []
    assert not re.search(r"@import|url\(", text)
    assert structure.images
    for image in structure.images:
        assert re.match("data:image/(png|svg.xml);base64,", image["src"])
        assert image["alt"]


def test_headings_are_nested(shown):
    headings = Structure(shown.read_text()).headings
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(headings, headings[1:]))


def test_the_page_is_the_same_each_time(sample):
    assert page(sample) == page(sample)


def test_the_page_shows_all_that_it_is_given(sample):
    text = page(sample)
    structure = Structure(text)
    assert ODD not in text and html.escape(ODD) in text
    rows = {f"row-{name}" for name in sample.rows}
    assert set(structure.ids) >= {*sample.tables, *sample.figures} | rows
    assert len(structure.images) == len(sample.figures) + len(sample.pictures)
    assert structure.images[0]["alt"] == f"Figure 8: {ODD}. {ODD} by `ratio`"
    assert text.index('id="table1"') < text.index("<h2>More tables") < text.index('id="table7"')
    assert "mdt: [0, 0.1]\n" in text and "losses: [mixup, " in text


def test_every_number_of_a_row_is_a_link_and_nothing_else_is(sample):
    structure = Structure(page(sample))
    cells = [text for path, text in structure.texts if path[-2:] == ("td", "a")]
    # A mark after a number is an element of its own.
    assert cells == ["12.34 ± 5.67"] * 20 + ["-1.5", "oracle 2.5"]


def test_a_row_with_a_mark_links_to_its_section(sample):
    marked = pd.DataFrame([{"Row": "b ‡§", "ECE": "2.5"}, {"Row": "# worse (1)", "ECE": "1"}])
    tables = {"table1": Table("Table 1: marked", marked, pd.DataFrame(), [])}
    structure = Structure(page(sample._replace(tables=tables, figures={})))
    linked = [text for path, text in structure.texts if path[-2:] in (("th", "a"), ("td", "a"))]
    assert linked == ["b ‡§", "2.5"]
    assert structure.links.count("#table1") == 1 + 1, "the contents, and back from the row"


def test_rows_and_tables_link_to_each_other(sample):
    links = [unquote(link) for link in Structure(page(sample)).links]
    assert links.count(f"#row-{ODD}") == 1 + 20 + 1, "the name, its numbers, the list of rows"
    assert links.count("#row-b") == 1 + 3 + 1, "two names, two numbers, the list of rows"
    assert links.count("#table1") == 1 + 2, "the contents, and back from two rows"
    assert links.count("#table7") == 1 + 1


def test_the_page_leaves_out_what_is_not_there(sample):
    table = sample.tables["table1"]
    structure = Structure(page(Content("", {"table1": table}, {}, {}, {}, {}, {})))
    assert not {"tables", "figures", "rows"} & set(structure.ids)
    assert set(structure.links) == {"#table1", "#settings", "#versions"}


def test_pictures_of_unknown_size_are_named(sample, tmp_path):
    (tmp_path / "odd.svg").write_text("<svg/>")
    figures = {"odd": Shown("Odd", "", tmp_path / "odd.svg")}
    with pytest.raises(ValueError, match="odd.svg: expected an SVG with a viewBox"):
        page(sample._replace(figures=figures))


@pytest.mark.parametrize("stage", ["report", "analyses", "pictures"])
def test_the_stages_of_the_report_import_no_torch(stage):
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def faults(file: Path, folder: Path) -> list[str]:
    """What Chromium finds wrong with a page at each width.

    Faults are pictures that do not load, a page wider than the screen, and errors.
    """
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH to show the page in")
    shutil.copy(file, folder / "shown.html")
    styles = [f"width: {width}px; height: 800px; border: 0" for width in WIDTHS]
    frames = "".join(f'<iframe src="shown.html" style="{style}"></iframe>' for style in styles)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(frames=frames))
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *OPTIONS, profile, "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert seen, f"{CHROMIUM} ended with {done.returncode}: {done.stderr[-2000:]}"
    problems = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    for width, frame in zip(WIDTHS, json.loads(html.unescape(seen[1])), strict=True):
        problems += frame_faults(width, frame)
    return problems


def frame_faults(width: int, frame: dict) -> list[str]:
    """What is wrong in a frame of that width, of what WRAPPER says of it."""
    problems = [f"{width}: {name} does not load" for name in frame["broken"]]
    if not frame["images"]:
        problems.append(f"{width}: no pictures")
    if frame["scrollWidth"] > frame["clientWidth"]:
        problems.append(f"{width}: the page is {frame['scrollWidth']} wide in {frame['clientWidth']}")
    return problems


def test_the_page_fits_a_phone_and_a_laptop(shown, tmp_path):
    assert faults(shown, tmp_path) == []


def test_faults_are_found(tmp_path):
    torn = '<img alt="torn" src="data:image/png;base64,AAAA">'
    wide = '<p style="width: 1000px">wide<script>console.error("oh")</script>'
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html>{torn}{wide}")
    problems = faults(tmp_path / "bad.html", tmp_path)
    assert sum('"oh"' in line for line in problems) == 2
    of_frames = [line.split(" is 1")[0] for line in problems if "CONSOLE" not in line]
    assert of_frames == ["390: torn does not load", "390: the page", "1280: torn does not load"]
