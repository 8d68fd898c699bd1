"""The tables of docs/grid.md, from what `benchmarks.grid` has counted.

Each stands between two comments of the page that name it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.grid.card import CARD
from benchmarks.grid.entries import totals, without_rtp
from benchmarks.table import markdown

__all__ = ["printed", "summary", "tables"]

Numbers = dict[str, Any]

OPERATIONS = 1e15  # the unit of the tables
GB = 1e9
HOST = 256e9  # bytes of a machine's memory, assumed
HOURS = ["operations, 1e15", "hours, products alone", "hours, eager"]
# Columns of the table of rows; the rest of a row's stages is in the JSON.
STAGES = ("distill", "train", "temperature", "further")


def printed(page: str, texts: dict[str, str]) -> str:
    """The page with these texts in their places.

    Raises:
        ValueError: the page has no place for one of them.
    """
    for name, text in texts.items():
        begin = rf"<!-- {name}: [^\n]*-->\n"
        end = rf"<!-- End of {name}\. -->"
        places = list(re.finditer(f"({begin}).*?({end})", page, flags=re.DOTALL))
        if len(places) != 1:
            raise ValueError(f"{len(places)} places for {name}")
        (place,) = places
        page = f"{page[: place.start()]}{place[1]}\n{text}\n\n{place[2]}{page[place.end() :]}"
    return page


def tables(numbers: Numbers, price: float | None = None) -> dict[str, str]:
    """Every table by its name.

    Args:
        price: of an hour of a card; None: no cost is shown.
    """
    return {
        "summary": summary(numbers, price),
        "suites": by_suite(numbers),
        "stages": by_stage(numbers),
        "buffers": of_buffers(numbers),
        "cards": by_cards(numbers),
        "benchmarks": of_benchmarks(numbers["check"]),
        "measured rows": of_measured_rows(numbers["check"]),
        "large": of_large(numbers["ten_times"]),
        "needs": of_needs(numbers["ten_times"]),
        "rows": of_rows(numbers),
    }


def number(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.01 or value == 0 else "< 0.01"


def hours(entry: Numbers) -> list[str]:
    return [
        number(entry["operations"] / OPERATIONS),
        number(entry["least_hours"]),
        number(entry["most_hours"]),
    ]


def gigabytes(value: float) -> str:
    return number(value / GB)


def everything(numbers: Numbers) -> Numbers:
    """The sums over buffers and rows."""
    columns = ("operations", "least_hours", "most_hours", "card_bytes", "disk_bytes")
    entries = [*numbers["buffers"], *numbers["rows"]]
    return totals({key: entry[key] for key in columns} for entry in entries)


def summary(numbers: Numbers, price: float | None) -> str:
    """The grid in a few lines."""
    whole = everything(numbers)
    rest = everything(without_rtp(numbers))
    lines = [*of_time(numbers, whole, rest), *of_memory(numbers, whole)]
    if price is not None:
        low, high = costs(whole, price)
        low_rest, high_rest = costs(rest, price)
        lines.append(
            f"- **Cost** at {price:g} an hour: {low} to {high}; without RTP {low_rest} to {high_rest}."
        )
    return "\n".join(lines)


def of_time(numbers: Numbers, whole: Numbers, rest: Numbers) -> list[str]:
    longest = max(numbers["rows"], key=lambda row: row["most_hours"])
    card = numbers["card"]
    counts = f"{len(numbers['rows'])} rows and {len(numbers['buffers'])} buffers"
    assumed = f"one {card['name']}, at {card['share']:.0%} of its peak"
    day = numbers["cards_for"]["day"]
    week = numbers["cards_for"]["week"]
    return [
        f"- **Work**: {counts}, {whole['operations']:.2g} operations.",
        f"- **Hours** of {assumed}: {number(whole['least_hours'])} for products alone, "
        f"{number(whole['most_hours'])} as eager code. Without the rows of RTP: "
        f"{number(rest['least_hours'])} and {number(rest['most_hours'])}.",
        f"- **The longest row** is `{longest['name']}`: {number(longest['least_hours'])} to "
        f"{number(longest['most_hours'])} hours on one card.",
        f"- **Cards for a day**, with RTP: {cards(day['everything'])}. Without RTP: "
        f"{cards(day['without RTP'])} while a row runs on one card, at least "
        f"{cards(day['without RTP, networks spread'])} where its networks are spread over cards too.",
        f"- **Cards for a week**, with RTP: {cards(week['everything'])}. Without RTP: "
        f"{cards(week['without RTP'])}.",
    ]


def cards(count: int | None) -> str:
    return "no number is enough" if count is None else str(count)


def of_memory(numbers: Numbers, whole: Numbers) -> list[str]:
    prepared = sum(numbers["prepared"].values())
    disk = whole["disk_bytes"] + prepared
    largest = max(buffer["disk_bytes"] for buffer in numbers["buffers"])
    return [
        f"- **Memory**: at most {gigabytes(whole['card_bytes'])} GB on the card, and "
        f"{gigabytes(2 * largest)} GB of the host for the largest buffer, which is in memory twice while it "
        "is written.",
        f"- **Disk**: {gigabytes(disk)} GB, of which {gigabytes(prepared)} are prepared images. DVC's cache "
        f"has a second copy where the file system cannot share blocks: {gigabytes(2 * disk)} GB. While a "
        "buffer is made, `scratch/` has its experts once more.",
    ]


def costs(entry: Numbers, price: float) -> tuple[str, str]:
    return number(price * entry["least_hours"]), number(price * entry["most_hours"])


def by_suite(numbers: Numbers) -> str:
    groups: dict[tuple[str, str], list[Numbers]] = defaultdict(list)
    for row in numbers["rows"]:
        method = row["method"] if row["distilled"] else "no distillation"
        groups[row["suite"], method].append(row)
    lines = []
    for (suite, method), rows in groups.items():
        sums = totals(
            [{key: row[key] for key in ("operations", "least_hours", "most_hours")} for row in rows]
        )
        longest = max(row["most_hours"] for row in rows)
        lines.append([suite, method, str(len(rows)), *hours(sums), number(longest)])
    return markdown(["suite", "method", "rows", *HOURS, "longest row, eager"], lines)


def by_stage(numbers: Numbers) -> str:
    lines = [["buffer", *hours(totals_of(numbers["buffers"]))]]
    for stage in STAGES:
        lines.append([stage, *hours(totals_of(row["stages"][stage] for row in numbers["rows"]))])
    return markdown(["stage", *HOURS], lines)


def totals_of(entries: Iterable[Numbers]) -> Numbers:
    """The sums of operations and hours."""
    return totals(
        {key: entry[key] for key in ("operations", "least_hours", "most_hours")} for entry in entries
    )


def of_buffers(numbers: Numbers) -> str:
    lines = []
    for buffer in numbers["buffers"]:
        memory = [gigabytes(buffer["card_bytes"]), gigabytes(buffer["disk_bytes"])]
        readers = str(len(buffer["read_by"]))
        lines.append([f"`{buffer['name']}`", readers, *hours(buffer), str(buffer["together"]), *memory])
    head = ["buffer", "rows that distil with it", *HOURS, "experts at once", "card, GB", "file, GB"]
    return markdown(head, lines)


def by_cards(numbers: Numbers) -> str:
    groups = numbers["hours_by_cards"]
    lines = []
    for count in groups["everything"]:
        lines.append([count, *(number(of_group[count]) for of_group in groups.values())])
    return markdown(["cards", *groups], lines)


def of_benchmarks(check: Numbers) -> str:
    lines = []
    for line in check["benchmarks"]:
        measured = line["measured"]
        seconds = [number(line[key]) for key in ("least", "most", "measured")]
        shares = [f"{measured / line[key]:.2f}" for key in ("least", "most")]
        lines.append([line["work"], line["precision"], *seconds, *shares])
    head = ["work", "products", "products alone, s", "eager, s", "measured, s", "measured / products alone"]
    return markdown([*head, "measured / eager"], lines)


def of_measured_rows(check: Numbers) -> str:
    lines = []
    for processor, of_processor in check["rows"].items():
        lines += [measured_row(processor, line) for line in of_processor]
    head = ["stage of a row", "processor", "products", "predicted, s", "measured, s", "measured / predicted"]
    return markdown(head, lines)


def measured_row(processor: str, line: Numbers) -> list[str]:
    seconds = [number(line["least"]), number(line["measured"])]
    share = f"{line['measured'] / line['least']:.2f}"
    return [f"`{line['work']}`", processor, line["precision"], *seconds, share]


def of_large(large: Numbers) -> str:
    lines = []
    for buffer in large["buffers"]:
        memory = [gigabytes(buffer["card_bytes"]), gigabytes(buffer["disk_bytes"])]
        lines.append([f"experts of `{buffer['name']}`", *hours(buffer), *memory])
    for row in large["rows"]:
        for stage in ("distill", "train"):
            entry = row["stages"][stage]
            if stage == "train" and not row["name"].endswith("mtt"):
                continue  # as many images as on the set of MTT
            memory = [gigabytes(entry["card_bytes"]), gigabytes(entry["disk_bytes"])]
            lines.append([f"{stage} `{row['name']}`", *hours(entry), *memory])
    return markdown(["work", *HOURS, "card, GB", "file, GB"], lines)


def of_needs(large: Numbers) -> str:
    """What is kept whole, the largest share of its limit first."""
    lines = []
    for needed, *sizes, limit in needs(large):
        cells = [gigabytes(size) for size in sizes]
        lines.append([needed, *cells, gigabytes(limit), *(f"{size / limit:.2f}" for size in sizes)])
    lines.sort(key=lambda line: -float(line[-2]))
    return markdown(
        ["kept whole", "64 pixels, GB", "224 pixels, GB", "limit, GB", "share at 64", "share at 224"], lines
    )


def needs(large: Numbers) -> list[tuple[str, float, float, float]]:
    """What is kept whole, its bytes at 64 and at 224 pixels, and those of the card or of the host."""
    small, big = large["needs"].values()
    trajectories = [buffer["disk_bytes"] for buffer in large["buffers"]]
    steps = {row["name"]: row["stages"]["distill"] for row in large["rows"]}
    loaded: list[tuple[str, str, float, float]] = [
        ("trajectories, read by `distill`", "card", *trajectories),
        ("trajectories, twice while `buffer` writes them", "host", *(2 * size for size in trajectories)),
        ("images, twice in `prepare`", "host", 2 * small["images"], 2 * big["images"]),
        ("images, in `buffer` and `distill`", "card", small["images"], big["images"]),
        (
            "one-hot targets while they are made",
            "host",
            small["targets_while_made"],
            big["targets_while_made"],
        ),
        ("one-hot targets", "card", small["targets"], big["targets"]),
        ("the set: values, velocity and next values", "card", 3 * small["set"], 3 * big["set"]),
        ("logits on the test images of a row", "host", small["test_logits"], big["test_logits"]),
        ("logits of `masked` of a row", "host", small["masked_logits"], big["masked_logits"]),
    ]
    for method in ("mtt", "rtp"):
        of_method = [entry["card_bytes"] for name, entry in steps.items() if name.endswith(method)]
        loaded.append((f"all that `distill` of {method.upper()} keeps", "card", *of_method))
    limits = {"card": CARD.memory, "host": HOST}
    return [(f"{name} ({where})", low, high, limits[where]) for name, where, low, high in loaded]


def of_rows(numbers: Numbers) -> str:
    lines = []
    for row in numbers["rows"]:
        by_stage = [number(row["stages"][stage]["most_hours"]) for stage in STAGES]
        memory = [gigabytes(row["card_bytes"]), gigabytes(row["disk_bytes"])]
        reads = "" if row["reads"] == "nothing" else f"`{row['reads']}`"
        lines.append([f"`{row['name']}`", reads, *hours(row), *by_stage, *memory])
    return markdown(["row", "reads", *HOURS, *STAGES, "card, GB", "disk, GB"], lines)
