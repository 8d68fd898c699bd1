"""The tables of README's "Scale" from what the benchmarks have left in reports/benchmarks.

    python -m benchmarks.table
"""

import json

from benchmarks.measure import FOLDER

__all__ = ["tables"]


def tables() -> tuple[str, str]:
    """Ours against the public code itself, and against its way of doing things written anew."""
    programs = [
        [pair["case"], f"{public['median']:.3g}", f"{pair['median']:.3g}", f"{pair['of_public']:.2f}", f"{pair['peak_of_public']:.2f}"]
        for public, pair in pairs(results("public"), "public")
    ]
    ways = []
    for benchmark in ("buffer", "train", "distill", "calibrate"):
        found = results(benchmark)
        for plain, ours in pairs(found, "plain"):
            how = ours["way"].removeprefix("ours").removeprefix(", ").replace("float32", "")
            setting = ours.get("setting") or ours.get("case") or settings(benchmark)
            said = f"{setting}, {how}" if how and how not in setting else setting
            ways.append([f"`{benchmark}`", said, f"{plain['median']:.3g}", f"{ours['median']:.3g}", f"{ours['of_plain']:.2f}", f"{ours['peak_of_plain']:.2f}"])
    of = ["public, s", "ours, s", "time", "memory"]
    return lines(["public program", *of], programs), lines(["benchmark", "setting", *of], ways)


def results(benchmark: str) -> list[dict]:
    return json.loads((FOLDER / f"{benchmark}.json").read_text())["results"]


def settings(benchmark: str) -> str:
    about = json.loads((FOLDER / f"{benchmark}.json").read_text())["settings"]
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
