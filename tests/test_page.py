"""The report as one page is whole, self-contained HTML that fits a phone; so is the committed page."""

import html
import io
import json
import os
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pytest
from browser import CHROMIUM, Browser
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat
from sklearn.datasets import load_sample_image

from stages.reporting.cells import Results, Table
from stages.reporting.embedding import embedded, smaller_svg
from stages.reporting.explorer import DIGITS, as_json, numbers_of
from stages.reporting.page import SCRIPT, Content, Shown, page
from stages.reporting.page_tables import Facts, short_number
from stages.reporting.svg import compact
from stages.settings.tables import TableKeys

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "reports/index.html"
# axe.min.js of the npm package axe-core: `npm pack axe-core` and unpack it
AXE = os.environ.get("AXE")
LARGEST = 4_000_000  # bytes of the committed page: a row of CIFAR takes about 40,000
PHONE, LAPTOP = 390, 1280
A4 = 703  # pixels between margins of 12 mm
ODD = 'a<b & "c"</script>'  # must be escaped wherever it stands
LOOK = """(() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  const broken = [...document.images].filter(image => !image.naturalWidth).map(image => image.alt);
  const cut = [...document.querySelectorAll("table, img, pre, svg")].filter(part =>
    part.getBoundingClientRect().right > clientWidth + 1).map(part => part.outerHTML.slice(0, 200));
  return {wider: scrollWidth - clientWidth, images: document.images.length, broken, cut};
})()"""
UNFOLD = "document.querySelectorAll('details').forEach(details => { details.open = true; })"


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
        self.cells: list[dict] = []  # attributes of the cells of tables
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
        if tag == "td":
            self.cells.append(values)
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))


def matplotlib_svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Content:
    """A table too wide for a screen, with every kind of cell, and an odd name everywhere."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"wide.png": (20, 3), "set.png": (8, 3.6)}.items():
        Figure(figsize=size).savefig(folder / name)
    (folder / "tall.svg").write_text(compact(matplotlib_svg(Figure(figsize=(4, 5))), "A tall figure."))
    columns = ["Raw", "MTS", "Oracle T", *(f"Method {i}" for i in range(17))]
    wide = [
        {"Row": ODD, **dict.fromkeys(columns, "12.34 ± 5.67†")},
        {"Row": "b", **dict.fromkeys(columns, "missing")},
        {"Row": "(the paper)", **dict.fromkeys(columns, "")},
    ]
    narrow = [{"Row": "b", "Network": "mlp", "ECE": "-1.5", "Best": "oracle 2.5"}]
    losses = [{"Loss": "focal", "gamma": "1"}]
    claims = [{"The paper's claim": f"{ODD} holds.", "Verdict": "held", "See": "table1, figure1"}]
    nothing = pd.DataFrame()
    tables = {
        "table1": Table(f"Table 1: of {ODD}", pd.DataFrame(wide), nothing, [f"`conv.` of {ODD}"]),
        "claims": Table("Claim by claim", pd.DataFrame(claims), nothing, []),
        "table7": Table("Table 7: of others", pd.DataFrame(narrow), nothing, []),
        "losses": Table("Losses: without rows", pd.DataFrame(losses), nothing, []),
    }
    figures = {
        "figure8-digits": Shown(f"Figure 8: {ODD}", f"{ODD} by `ratio`", folder / "tall.svg"),
        "figure1": Shown("Figure 1: wide", "Panels side by side.", folder / "wide.png"),
        "figure_hero-odd": Shown("The first", "It says it all.", folder / "tall.svg"),
    }
    rows = {
        ODD: {"distill": {"lr_lr": 1e-6}, "mdt": [0, 0.1], "long": "word" * 100},
        "b": {"ipc": None},
        "unnamed": {},
    }
    facts = {
        ODD: Facts("odd", "mtt", "1", 2, 1000, "0.3", "0.05", ("data/odd.json",), (f"make {ODD}",)),
        "b": Facts("even", "dc", "10", 2, 1000),
        "unnamed": Facts("even", "full", "all"),
    }
    return Content(
        intro=f"What {ODD} says.\n\nAnd more, by `dvc repro`.",
        tables=tables,
        figures=figures,
        rows=rows,
        pictures={ODD: folder / "set.png"},
        settings={"seed": 0, "train": {"losses": ["mixup", ODD]}},
        versions={"python": "3.11.7", "code": ODD},
        findings=[f"It works: {ODD}.", "Second.", "Third."],
        hero="figure_hero-odd",
        facts=facts,
        results=some_results(),
    )


def some_results() -> Results:
    """A row whose networks were tried at several temperatures, and one without them."""
    keys = {"suite": "odd", "dataset": "odd", "backbone": "mtt", "ipc": 1, "reads": "nothing"}
    row = TableKeys(**keys, mdt=0, lr=0.05)
    bins = {
        "count": [0] * 8 + [60, 40],
        "confidence": [0.0] * 8 + [0.85, 0.95],
        "accuracy": [0.0] * 8 + [0.5, 1.0],
    }
    raw = {"ece": [0.1, 0.3], "temperature": [1.0, 1.0], "reliability": bins}
    focal = raw | {"ece": [0.4, 0.4]}
    group = {"ece": [0.5, 0.2, 0.1]} | {name: [values] * 3 for name, values in bins.items()}
    evaluated = {"test_images": 1000, "mask_ratio": 0.3, "methods": {"raw": raw, "focal": focal}}
    swept = {"temperatures": [0.25, 1, 4], "groups": {"cross_entropy": group}}
    return Results({ODD: row, "b": row}, {ODD: evaluated | {"sweep": swept}, "b": evaluated}, 1.5)


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
    assert "<title>" in text
    assert len(set(structure.ids)) == len(structure.ids)
    assert {unquote(link).removeprefix("#") for link in structure.links} <= set(structure.ids)
    assert structure.outside == []
    outside_pictures = re.sub(r"src='data:[^']*'", "", text)
    assert not re.search(r"@import|url\(", outside_pictures)
    assert structure.images
    for image in structure.images:
        assert image["src"].startswith(("data:image/webp;base64,", "data:image/svg+xml,<svg"))
        assert image["alt"]


def test_no_script_runs_but_the_one_of_the_page(shown):
    text = shown.read_text()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    running = [body for about, body in scripts if "application/json" not in about]
    assert running == [SCRIPT]
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;;" in text or f"script-src 'sha256-{digest}';" in text


def test_the_committed_page_is_small():
    if COMMITTED.exists():
        assert COMMITTED.stat().st_size < LARGEST


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
    assert set(structure.ids) >= {*sample.tables, *sample.figures, "glossary", "filters", "explore"} | rows
    assert len(structure.images) == len(sample.figures) + len(sample.pictures)
    assert structure.images[0]["alt"] == "The first. It says it all."
    assert f"<b>It works:</b> {html.escape(ODD)}." in text
    order = [
        text.index(f'id="{key}"') for key in ("claims", "explore", "table1", "table7", "losses", "figure1")
    ]
    assert order == sorted(order)
    assert "mdt: [0, 0.1]\n" in text and "losses: [mixup, " in text
    assert "data/odd.json" in text and "2 networks, 1,000 test images" in text


def test_numbers_of_a_row_link_to_its_settings_files_and_command(sample):
    structure = Structure(page(sample))
    cells = [text for path, text in structure.texts if path[-2:] in (("td", "a"), ("b", "a"))]
    # The best number is bold, its deviation is an element of its own, and so is a mark.
    assert cells == ["12.3"] * 20 + ["-1.5", "oracle 2.5"]
    assert [cell["title"] for cell in structure.cells if "title" in cell][:20] == ["12.34 ± 5.67†"] * 20


def test_a_row_with_a_mark_links_to_its_section(sample):
    marked = pd.DataFrame([{"Row": "b ‡§", "ECE": "2.5"}, {"Row": "# worse (1)", "ECE": "1"}])
    tables = {"table1": Table("Table 1: marked", marked, pd.DataFrame(), [])}
    structure = Structure(page(sample._replace(tables=tables, figures={})))
    linked = [text for path, text in structure.texts if path[-2:] in (("th", "a"), ("td", "a"))]
    assert linked == ["b ‡§", "2.5"]
    assert "tfoot" in {part for path, text in structure.texts for part in path if text == "# worse (1)"}


def test_rows_and_tables_link_to_each_other(sample):
    links = [unquote(link) for link in Structure(page(sample)).links]
    assert links.count(f"#row-{ODD}") == 1 + 20, "the name, its numbers"
    assert links.count("#row-b") == 2 + 2, "two names, two numbers"
    assert links.count("#table1") == 1 + 1 + 2, "the contents, a claim, and back from two rows"


def test_the_page_leaves_out_what_is_not_there(sample):
    table = sample.tables["losses"]
    structure = Structure(page(Content("", {"losses": table}, {}, {}, {}, {}, {})))
    assert not {"tables", "figures", "rows", "filters", "explore", "claims"} & set(structure.ids)
    assert {"losses", "more", "settings", "versions"} <= set(structure.ids)


@pytest.mark.parametrize(
    ("cell", "short"),
    [
        ("12.34 ± 5.67†", '12.3<span class="sd"> ± 5.7†</span>'),
        ("-0.16 ± 0.04 (Raw)", '-0.2<span class="sd"> ± 0.0 (Raw)</span>'),
        ("2.86 [3.16, 4.37]", '2.9<span class="sd"> [3.2, 4.4]</span>'),
        ("15.18 (0.05)†", "15.2 (0.05)†"),
        ("+0.24", "+0.2"),
        ("0.516 ± 0.045", "0.516 ± 0.045"),
        ("a<b", "a&lt;b"),
    ],
)
def test_shares_have_one_decimal(cell, short):
    assert short_number(cell) == short


def test_a_number_is_rounded_once():
    assert short_number("6.95 ± 5.63†", "6.9487 ± 5.6298") == '6.9<span class="sd"> ± 5.6†</span>'
    assert short_number("+0.05", "0.0459") == "+0.0"
    assert short_number("6.95", "7.9487") == "7.0", "not the number of the cell"


def test_the_best_is_bold_and_numbers_are_there_in_full(sample):
    text = [{"Row": "b", "Raw": "2.34 ± 0.10", "MTS": "2.10 ± 0.20", "Oracle T": "1.00 ± 0.10"}]
    numbers = [{"row": "b", "method": "mts", "repeats": 5, "ece_mean": 0.0210041, "ece_std": 0.00199}]
    table = Table("Table 1: best", pd.DataFrame(text), pd.DataFrame(numbers), [])
    written = page(sample._replace(tables={"table1": table}))
    assert re.findall(r"<b>(.*?)</b>", written.split('id="table1"')[1])[0].startswith('<a href="#row-b"')
    assert 'title="2.1004 ± 0.1990, 5 networks"' in written
    titles = [cell["title"] for cell in Structure(written).cells if "title" in cell]
    assert "2.34 ± 0.10" in titles


def test_a_number_of_one_network_is_there_in_full_without_a_deviation(sample):
    text = [{"Row": "b", "Raw": "2.34", "MTS": "2.10†"}]
    numbers = [{"row": "b", "method": "mts", "repeats": 1, "ece_mean": 0.0210041, "ece_std": float("nan")}]
    table = Table("Table 1: one", pd.DataFrame(text), pd.DataFrame(numbers), [])
    written = page(sample._replace(tables={"table1": table}))
    assert 'title="2.1004, 1 network"' in written and "nan" not in written.split('id="table1"')[1][:2000]


def test_the_papers_table_stands_folded_beside_ours(sample):
    about = {"table": "table5", "dataset": "cifar10", "backbone": "mtt", "ipc": 1, "column": "mts"}
    line = about | {"number": "ece", "row": "b", "percent": 2.5, "std_percent": 0.3, "difference": 0.69}
    other = about | {"dataset": "cifar100", "to_run": "cifar100-mtt-ipc1"}
    cells = Table("The paper's numbers", pd.DataFrame([{"Row": "b"}]), pd.DataFrame([line, other]), [])
    table = sample.tables["table7"]._replace(title="Table 5: one image")
    text = page(sample._replace(tables={"table5": table, "paper": cells}))
    beside = text.split("<summary>The paper&#x27;s Table 5")[1].split("</details>")[0]
    assert "cifar10, mtt, 1 a class" in beside and 'title="+0.69">+0.7<' in beside
    assert "python -m stages.tools.lent cifar100-mtt-ipc1" in beside


def test_the_numbers_of_the_diagram_are_those_of_the_results():
    numbers = numbers_of(some_results(), ODD)
    assert numbers["methods"]["raw"]["ece"] == 2000, "0.2, in hundredths of a percent"
    digits = numbers["sweep"]["groups"]["cross_entropy"]["bins"][0]
    decoded = [int(digits[i : i + 2], len(DIGITS)) for i in range(0, len(digits), 2)]
    assert decoded == [0] * 8 + [600, 400] + [0] * 8 + [850, 950] + [0] * 8 + [500, 1000]
    assert "</script" not in as_json({ODD: numbers})
    assert json.loads(as_json({ODD: numbers})) == {ODD: numbers}


def test_a_smaller_svg_shows_the_same():
    figure = Figure()
    axis = figure.add_subplot()
    axis.plot([0, 1.23456, 2], [3, 1, 2], marker="o", label='a "quoted" <label>')
    axis.legend()
    before = matplotlib_svg(figure)
    after = smaller_svg(compact(before, ""))
    assert len(after) < 0.7 * len(before)
    shapes = [[list(ElementTree.fromstring(text).iter())] for text in (before, after)]
    for kind in ("path", "use", "text", "clipPath"):
        counts = [sum(part.tag.endswith(f"}}{kind}") for part in parts) for (parts,) in shapes]
        assert counts[0] == counts[1] and (counts[0] or kind == "text")
    referred = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', after))
    ids = set(re.findall(r' id="([^"]+)"', after))
    assert {first or second for first, second in referred} == ids


def as_embedded(path):
    """A picture as a browser decodes it from the page, and its bytes there."""
    (encoded,) = re.findall(r"data:image/webp;base64,([^']+)'", embedded(path, "A picture"))
    data = b64decode(encoded)
    return Image.open(io.BytesIO(data)).convert("RGB"), len(data)


def test_a_drawing_keeps_every_pixel(sample):
    path = sample.pictures[ODD]
    after, _ = as_embedded(path)
    with Image.open(path) as before:
        assert ImageChops.difference(before.convert("RGB"), after).getbbox() is None


def test_a_photograph_takes_a_fraction_of_its_bytes_and_looks_the_same(tmp_path):
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    path = tmp_path / "photograph.png"
    photograph.save(path)
    after, size = as_embedded(path)
    difference = ImageStat.Stat(ImageChops.difference(photograph, after))
    assert max(difference.mean) < 5  # of 255
    assert size < 0.4 * path.stat().st_size


def test_pictures_of_unknown_size_are_named(sample, tmp_path):
    (tmp_path / "odd.svg").write_text("<svg/>")
    figures = {"odd": Shown("Odd", "", tmp_path / "odd.svg")}
    with pytest.raises(ValueError, match="odd.svg: expected an SVG with a viewBox"):
        page(sample._replace(figures=figures))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH to show the page in")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def faults(browser: Browser, file: Path, width: int, scheme: str = "light", media: str = "") -> list[str]:
    """What is wrong with a page at a width, whatever folds being open.

    Faults are a page wider than the screen, pictures that do not load, errors, and requests; in print also
    whatever is cut.
    """
    browser.open(file, width, scheme=scheme, media=media)
    browser.value(UNFOLD)
    seen = browser.value(LOOK)
    problems = [f"{name} does not load" for name in seen["broken"]] + browser.problems
    if not seen["images"]:
        problems.append("no pictures")
    if seen["wider"] > 0:
        problems.append(f"the page is {seen['wider']} too wide")
    if media == "print":
        problems += [f"cut: {part}" for part in seen["cut"]]
    return problems


@pytest.mark.parametrize(
    ("width", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (LAPTOP, "dark"), (LAPTOP, "light")]
)
def test_the_page_fits_a_phone_and_a_laptop(browser, shown, width, scheme):
    assert faults(browser, shown, width, scheme) == []


def test_nothing_is_cut_on_paper(browser, shown):
    assert faults(browser, shown, A4, media="print") == []
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_dark_is_dark(browser, sample, tmp_path):
    (tmp_path / "index.html").write_text(page(sample))
    backs = []
    for scheme in ("light", "dark"):
        browser.open(tmp_path / "index.html", LAPTOP, scheme=scheme)
        backs.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert backs == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]


def test_the_compared_methods_are_on_a_phones_first_screen(browser, shown):
    browser.open(shown, PHONE)
    heads = '[...document.querySelectorAll("#table1 > .scroll th[scope=col]")]'
    ends_of_heads = "map(head => [head.textContent, head.getBoundingClientRect().right])"
    ends = browser.value(f"Object.fromEntries({heads}.{ends_of_heads})")
    compared = [name for name in ("Raw", "MTS", "Shipped T", "Oracle T") if name in ends]
    assert len(compared) >= 3
    assert max(ends[name] for name in compared) <= PHONE


def test_faults_are_found(browser, tmp_path):
    torn = '<img alt="torn" src="data:image/png;base64,AAAA">'
    wide = '<table style="width: 1000px"><tr><td>wide</table><script>console.error("oh")</script>'
    (tmp_path / "bad.html").write_text(f'<!DOCTYPE html>{torn}{wide}<img src="http://127.0.0.1:9/x">')
    problems = faults(browser, tmp_path / "bad.html", A4, media="print")
    for fault in ("torn does not load", '"oh"', "too wide", "cut: <table", "a request for http:"):
        assert any(fault in problem for problem in problems), fault


def test_the_slider_and_the_choices_draw_the_diagram_anew(browser, shown):
    browser.open(shown, LAPTOP)
    said = 'document.getElementById("said").textContent'
    bars = '[...document.querySelectorAll("#drawing .bar")].map(bar => bar.getAttribute("height")).join()'
    if not browser.value('Boolean(document.getElementById("sweeps"))'):
        pytest.skip("the page has no results")
    assert " ".join(browser.value(said).split()[:1]) == "ECE"
    assert browser.value(bars)
    if not browser.value('document.getElementById("t").disabled'):
        browser.click("#t", 0.99)
        last = browser.value(said)
        assert "at T = 4.00: the networks of Raw" in last
        browser.click("#t", 0.01)
        assert "at T = 0.25" in browser.value(said)
        browser.press("#t", "ArrowRight", 39)
        assert "at T = 0.25" not in browser.value(said)
    first = browser.value(said)
    browser.press("#of-method", "ArrowDown", 40)
    assert browser.value(said) != first and "the networks of" not in browser.value(said)
    assert browser.problems == []


def test_a_row_without_other_temperatures_shows_its_own(browser, sample, tmp_path):
    (tmp_path / "index.html").write_text(page(sample))
    browser.open(tmp_path / "index.html", LAPTOP)
    assert "ECE 20.0 % at T = 1.00: Raw, mean of 2 networks on 1,000" in browser.value("said.textContent")
    browser.press("#of-row", "ArrowDown", 40)
    assert "have no other temperatures" in browser.value("said.textContent")
    assert (
        browser.value("t.disabled") and browser.value('document.querySelectorAll("#drawing svg").length') == 1
    )


def test_lines_are_filtered(browser, shown):
    browser.open(shown, LAPTOP)
    visible = '[...document.querySelectorAll("tbody[data-dataset]")].filter(body => !body.hidden)'
    every = browser.value(f"{visible}.length")
    browser.press('#filters [name="dataset"]', "ArrowDown", 40)
    chosen = browser.value("""document.querySelector('#filters [name="dataset"]').value""")
    shown_sets = set(browser.value(f"{visible}.map(body => body.dataset.dataset)"))
    assert shown_sets == {chosen}
    assert 0 < browser.value(f"{visible}.length") < every
    assert browser.value("left.textContent") == f"{browser.value(f'{visible}.length')} of {every} lines"
    browser.press('#filters [name="dataset"]', "ArrowUp", 38)
    assert browser.value(f"{visible}.length") == every


def test_a_click_on_a_head_sorts(browser, sample, tmp_path):
    lines = [
        {"Row": name, "ECE": ece}
        for name, ece in [("b", "10.00"), ("x", "9.50"), ("y", "-"), ("z", "+11.00")]
    ]
    lines.insert(1, {"Row": "(the paper)", "ECE": "1.00"})
    lines.append({"Row": "# worse (4)", "ECE": "2"})
    table = Table("Table 1: sorted", pd.DataFrame(lines), pd.DataFrame(), [])
    (tmp_path / "index.html").write_text(page(sample._replace(tables={"table1": table})))
    browser.open(tmp_path / "index.html", LAPTOP)
    names = """[...document.querySelectorAll("#table1 tr > th[scope=row]")].map(cell => cell.textContent)"""
    paper, count = "(the paper)", "# worse (4)"
    orders = []
    for _ in range(3):
        browser.click("#table1 thead th:nth-child(2) button")
        orders.append(browser.value(names))
    assert orders[0] == ["x", "b", paper, "z", "y", count]
    assert orders[1] == ["z", "b", paper, "x", "y", count]
    assert orders[2] == ["b", paper, "x", "y", "z", count]


def test_a_link_opens_what_is_folded(browser, sample, tmp_path):
    (tmp_path / "index.html").write_text(page(sample))
    browser.open(tmp_path / "index.html", LAPTOP)
    assert not browser.value('document.getElementById("row-b").open')
    browser.click('#table7 a[href="#row-b"]')
    browser.value("new Promise(resolve => setTimeout(resolve, 100))")
    assert browser.value('document.getElementById("row-b").open')


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser, shown, scheme):
    if not AXE:
        pytest.skip("no axe-core: `npm pack axe-core`, unpack it, and set AXE to its axe.min.js")
    browser.open(shown, LAPTOP if scheme == "light" else PHONE, scheme=scheme)
    browser.value(f"{Path(AXE).read_text()}; 0")
    found = browser.value("""axe.run({resultTypes: ["violations"]}).then(({violations}) => violations
        .filter(({impact}) => ["serious", "critical"].includes(impact))
        .map(({id, nodes}) => [id, nodes[0].html.slice(0, 300)]))""")
    assert found == []
