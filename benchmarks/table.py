"""The tables of README's "Scale" from what the benchmarks have left in reports/benchmarks.

    python -m benchmarks.table
"""

import json

from benchmarks.measure import FOLDER

__all__ = ["tables"]


def tables() -> tuple[str, str]:
    """Ours against the public programs, and against the plain ways of the benchmarks."""
    programs = [
        [pair["case"], f"{public['median']:.3g}", f"{pair['median']:.3g}", f"{pair['of_public']:.2f}", f"{pair['peak_of_public']:.2f}"]
        for public, pair in pairs(measured("public")["results"], "public")
    ]
    ways = []
    for benchmark in ("buffer", "train", "distill", "calibrate"):
        found = measured(benchmark)
        for plain, ours in pairs(found["results"], "plain"):
            how = ours["way"].removeprefix("ours").removeprefix(", ").replace("float32", "")
            setting = ours.get("setting") or ours.get("case") or setting_of(found["settings"])
            said = f"{setting}, {how}" if how and how not in setting else setting
            ways.append([f"`{benchmark}`", said, f"{plain['median']:.3g}", f"{ours['median']:.3g}", f"{ours['of_plain']:.2f}", f"{ours['peak_of_plain']:.2f}"])
    of = ["ours, s", "time", "memory"]
    return lines(["public program", "public, s", *of], programs), lines(["benchmark", "setting", "plain way, s", *of], ways)


def measured(benchmark: str) -> dict:
    return json.loads((FOLDER / f"{benchmark}.json").read_text())


def setting_of(about: dict) -> str:
    """What a benchmark of one setting was run at."""
    return about.get("setting") or f"exact temperature of {about['images']:,} x {about['classes']} logits"


def pairs(found: list[dict], base: str) -> list[tuple[dict, dict]]:
    """Each of our ways with the one before it that it is measured against."""
    made, against = [], None
    for result in found:
        if result["way"] == base:
            against = result
        else:
            made.append((against, result))
    return made


def lines(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


if __name__ == "__main__":
    print(*tables(), sep="\n\n")
