"""Whether MDT masks images before or after they are augmented: what the order does to accuracy and ECE.

    python -m benchmarks.mask_order [--row digits-mtt-ipc10-mdt] [--mdt <ratio>] [--seeds 3] [--repeats 5]

For each seed, a temporary project has the row twice: as it is, and with the key `mask_after_augmentation`.
The stages make both, from the images to ECE; the experts are trained anew for each seed. Nothing else differs
between the two: masks, networks, batches and augmentations have the same seeds. `--mdt` gives a mask ratio to
a row that has none. `--seeds` is how many sets are made in either order, and `--repeats` how many networks
are trained on each.

Writes the row's results into reports/benchmarks/mask_order.json, and leaves those of other rows there.
"""

import argparse
import copy
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.measure import FOLDER, machine
from benchmarks.table import markdown
from stages.images.archives import data_root
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_result, write_json
from stages.runtime.reuse import read_json
from stages.settings.project import param, read_yaml
from stages.settings.rows import Row

__all__ = ["ORDERS", "Plan", "differences", "main", "networks_of", "plan_of", "project_of", "table"]

ORDERS = {"before": False, "after": True}  # values of `mask_after_augmentation`
SCORES = {"accuracy": "accuracy", "ece_raw": "ECE, Raw", "ece_mts": "ECE, MTS"}
FOR_ALL_ROWS = ("masked", "calibrate", "evaluate")  # the stages after `train` that lead to ECE

Network = dict[str, Any]  # its seed, order, number, and scores in percent


class Plan(NamedTuple):
    """What is made."""

    row: str
    mdt: float | list[float]  # mask ratio, or the range that it is drawn from
    seeds: int
    repeats: int  # networks of each set


def project_of(plan: Plan, seed: int, folder: Path, code: Path) -> None:
    """Write a project that has the row in both orders, and params.yaml with the seed.

    Args:
        folder: the project's; it must not exist.
        code: a copy of the folder stages/.
    """
    params = copy.deepcopy(read_yaml(Path("params.yaml")))
    params["seed"] = seed
    params["train"] |= {"repeats": plan.repeats, "losses": ["cross_entropy"]}
    place = f"suites/{Row(plan.row).suite.name}"
    (folder / "suites").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "nothing").touch()  # what rows without a buffer read
    (folder / "stages").symlink_to(code)
    write_yaml(folder / "params.yaml", params)
    write_yaml(folder / place, suite_of(plan))
    write_yaml(folder / "dvc.yaml", {"vars": [place]})


def suite_of(plan: Plan) -> dict[str, Any]:
    """The row in both orders, named by them, with the data sets and the experts that it needs."""
    suite = read_yaml(Row(plan.row).suite)
    keys = suite["runs"][plan.row]
    rows = {}
    for order, is_after in ORDERS.items():
        distill = keys["distill"] | {"mask_after_augmentation": is_after}
        rows[order] = keys | {"mdt": plan.mdt, "distill": distill}
    names = {keys["dataset"]}
    buffers = {}
    if keys["reads"].startswith("buffer/"):
        buffer = keys["reads"].removeprefix("buffer/")
        buffers[buffer] = suite["buffers"][buffer]
        names.add(buffers[buffer]["dataset"])
    datasets = {name: suite["datasets"][name] for name in sorted(names)}
    return {"datasets": datasets, "buffers": buffers, "runs": rows}


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def networks_of(plan: Plan, seed: int, folder: Path) -> list[Network]:
    """Make both sets of a seed in a project, and return the scores of every network trained on them."""
    suite = suite_of(plan)
    commands = [["prepare", name] for name in suite["datasets"]]
    commands += [["buffer", name] for name in suite["buffers"]]
    for stage in ("distill", "train"):
        commands += [[stage, order] for order in ORDERS]
    commands += [[stage] for stage in FOR_ALL_ROWS]
    environment = os.environ | {"DATA_ROOT": str(data_root(param("data_root")).resolve())}
    for stage, *entry in commands:
        print(f"seed {seed}: {stage} {' '.join(entry)}", file=sys.stderr)
        command = [sys.executable, "-m", f"stages.{stage}", *entry]
        subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    networks = []
    for order in ORDERS:
        methods = read_result(folder / "data" / "evaluate" / f"{order}.json")["methods"]
        networks += scores_of(methods, seed, order)
    return networks


def scores_of(methods: dict[str, Any], seed: int, order: str) -> list[Network]:
    """The scores of each network of a set, in percent.

    Args:
        methods: what `evaluate` found, by method.
    """
    raw = methods["raw"]
    numbers = zip(raw["accuracy"], raw["ece"], methods["mts"]["ece"], strict=True)
    networks = []
    for number, shares in enumerate(numbers):
        network: Network = {"seed": seed, "order": order, "network": number}
        for score, share in zip(SCORES, shares, strict=True):
            network[score] = 100 * share
        networks.append(network)
    return networks


def differences(networks: list[Network]) -> list[dict[str, Any]]:
    """Means in both orders, and after minus before, for each score.

    A pair has the seed and the number of the network in common. `by_seed` has the mean over the pairs of
    each seed, and `standard_error` is that of the mean over seeds, because the networks of a seed share their
    sets; `standard_error_of_pairs` takes all pairs as independent. Both are None for a single value.
    """
    lines = []
    for score in SCORES:
        pairs = pairs_of(networks, score)
        of_all = [after - before for of_seed in pairs.values() for before, after in of_seed]
        by_seed = []
        for of_seed in pairs.values():
            by_seed.append(statistics.mean(after - before for before, after in of_seed))
        lines.append(
            {
                "score": score,
                "before": statistics.mean(before for of_seed in pairs.values() for before, _ in of_seed),
                "after": statistics.mean(after for of_seed in pairs.values() for _, after in of_seed),
                "difference": statistics.mean(by_seed),
                "standard_error": standard_error(by_seed),
                "standard_error_of_pairs": standard_error(of_all),
                "by_seed": by_seed,
            }
        )
    return lines


def pairs_of(networks: list[Network], score: str) -> dict[int, list[tuple[float, float]]]:
    """The scores before and after of each pair, by seed."""
    scores: dict[str, dict[tuple[int, int], float]] = {order: {} for order in ORDERS}
    for network in networks:
        pair = (network["seed"], network["network"])
        scores[network["order"]][pair] = network[score]
    pairs: dict[int, list[tuple[float, float]]] = {}
    for pair, before in scores["before"].items():
        pairs.setdefault(pair[0], []).append((before, scores["after"][pair]))
    return pairs


def standard_error(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    return statistics.stdev(values) / len(values) ** 0.5


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The differences of every row, as they stand in benchmarks/README.md.

    Args:
        rows: as in the JSON file.
    """
    lines = []
    for name, of_row in rows.items():
        settings = of_row["settings"]
        for line in of_row["differences"]:
            error = line["standard_error"]
            difference = f"{line['difference']:+.2f}"
            if error is not None:
                difference += f" ± {error:.2f}"
            numbers = [f"{line['before']:.2f}", f"{line['after']:.2f}", difference]
            sizes = [str(settings["seeds"]), str(settings["repeats"])]
            lines.append([f"`{name}`", *sizes, SCORES[line["score"]], *numbers])
    return markdown(["row", "seeds", "networks a set", "", "before", "after", "after - before"], lines)


def plan_of(*words: str) -> Plan:
    """What the command line asks for.

    Raises:
        UserError: the row has no mask, and `--mdt` gives none.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mask_order")
    parser.add_argument("--row", default="digits-mtt-ipc10-mdt", help="of any suites/*.yaml, of mtt or dsa")
    parser.add_argument("--mdt", type=float, help="mask ratio (default: the row's own)")
    parser.add_argument("--seeds", type=int, default=3, help="sets in either order (default 3)")
    parser.add_argument("--repeats", type=int, default=5, help="networks of each set (default 5)")
    options = parser.parse_args(words)
    mdt = Row(options.row).value("mdt") if options.mdt is None else options.mdt
    if mdt == 0:
        raise UserError(f"{options.row} has no mask; give it a ratio, e.g. --mdt 0.1")
    return Plan(options.row, mdt, options.seeds, options.repeats)


def main(*words: str) -> None:
    plan = plan_of(*words)
    networks = []
    with tempfile.TemporaryDirectory() as temporary:
        code = Path(temporary) / "stages"
        shutil.copytree("stages", code)  # edits while this runs do not reach the copy
        for seed in range(plan.seeds):
            folder = Path(temporary) / f"seed{seed}"
            project_of(plan, seed, folder, code)
            networks += networks_of(plan, seed, folder)
    file = FOLDER / "mask_order.json"
    rows = read_json(file).get("rows", {})
    rows[plan.row] = {
        "machine": machine(),
        "settings": plan._asdict() | {"unit": "percent"},
        "networks": networks,
        "differences": differences(networks),
    }
    write_json(file, {"rows": rows})
    print(table(rows))


if __name__ == "__main__":
    run_stage(main)
