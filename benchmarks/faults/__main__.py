"""Run a campaign of faults.

    python -m benchmarks.faults corrupt|cache|kill|power [--seed S] [--count N]

The outcomes go to reports/benchmarks/faults.json, beside those of other seeds. The exit status is 1 if
anything went wrong.
"""

import argparse

from benchmarks.faults.cache import damage_cache
from benchmarks.faults.corrupt import corrupt
from benchmarks.faults.kill import kill
from benchmarks.faults.power import power

CAMPAIGNS = {"corrupt": corrupt, "cache": damage_cache, "kill": kill, "power": power}
COUNTS = {"corrupt": 100, "cache": 20, "kill": 20, "power": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description="campaigns of faults")
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help=f"of trials; {COUNTS}")
    words = parser.parse_args()
    count = words.count or COUNTS[words.campaign]
    if not CAMPAIGNS[words.campaign](words.seed, count):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
