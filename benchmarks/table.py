"""The tables of benchmarks/README.md from what the benchmarks have left in reports/benchmarks.

    python -m benchmarks.table

They stand in benchmarks/README.md.
"""

import json
from typing import Any

from benchmarks.measure import FOLDER

__all__ = ["tables"]

Result = dict[str, Any]  # a result in a benchmark's JSON


def tables() -> tuple[str, str]:
    """Ours against the public programs, and ours against the plain ways of the benchmarks."""
    shares = ["ours, s", "time", "memory"]
    programs = markdown(["public program", "public, s", *shares], public_lines())
    ways = markdown(["benchmark", "setting", "plain way, s", *shares], plain_lines())
    return programs, ways


def public_lines() -> list[list[str]]:
    lines = []
    for public, ours in pairs(read("public")["results"], "public"):
        lines.append([ours["case"], *cells(public, ours, "public")])
    return lines


def plain_lines() -> list[list[str]]:
    lines = []
    for benchmark in ("buffer", "train", "distill", "calibrate"):
        report = read(benchmark)
        for plain, ours in pairs(report["results"], "plain"):
            lines.append(
                [f"`{benchmark}`", setting_of(ours, report["settings"]), *cells(plain, ours, "plain")]
            )
    return lines


def read(benchmark: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{benchmark}.json").read_text())


def pairs(results: list[Result], other: str) -> list[tuple[Result, Result]]:
    """Each of our ways with the last result before it of the other way, which it is measured against."""
    made = []
    for result in results:
        if result["way"] == other:
            base = result
        else:
            made.append((base, result))
    return made


def cells(base: Result, ours: Result, other: str) -> list[str]:
    """Seconds of both ways, and the shares of time and memory that ours takes."""
    shares = [ours[f"of_{other}"], ours[f"peak_of_{other}"]]
    return [f"{base['median']:.3g}", f"{ours['median']:.3g}", *(f"{share:.2f}" for share in shares)]


def setting_of(ours: Result, settings: dict[str, Any]) -> str:
    """What a result was measured at, and with which precision where that is not float32."""
    setting = ours.get("setting") or ours.get("case") or settings.get("setting")
    if setting is None:
        setting = f"exact temperature of {settings['images']:,} x {settings['classes']} logits"
    if "bfloat16" in ours["way"] and "bfloat16" not in setting:
        return f"{setting}, bfloat16"
    return setting


def markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


if __name__ == "__main__":
    print(*tables(), sep="\n\n")
