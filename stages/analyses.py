"""analyses: ablations, singular values and features of the rows -> the figures that no mask ratio of a row changes.

    python -m stages.analyses

Figures 2 to 9, 12 and 13 of each suite that dvc.yaml lists, where its rows have results; 1 and 10 are drawn by `report`.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.figures import Drawn, figure2a, figure2b, figure3, figure4, figure5, figure7, figure8, figure9, figure13, write_figures
from stages.metrics.ood import auroc, fpr95
from stages.shared.errors import run_stage
from stages.shared.settings import listed_suites, pick, read_yaml
from stages.tables import Row

__all__ = ["ablation_figures", "all_figures", "detection", "feature_figures", "singular_value_figures"]

NAMES = {"full": "Full data", "mtt": "MTT", "rtp": "RTP", "dc": "DC", "dsa": "DSA", "random": "Random images", "kmeans": "k-means", "file": "Imported"}
LOSSES = {"cross_entropy": "", "mixup": ", mixup", "label_smoothing": ", label smoothing", "focal": ", focal loss"}


def name_of(row: Row, others: list[Row]) -> str:
    """A row's name in a legend: with its images per class where those of the same kind differ in them."""
    masked = " with MDT_ds" if isinstance(row.mdt, list) else " with MDT" if row.mdt else ""
    several = len({other.ipc for other in others if (other.backbone, other.mdt) == (row.backbone, row.mdt)}) > 1
    return NAMES[row.backbone] + masked + (f", {row.ipc} per class" if several else "")


def ablation_figures(ablations: dict[str, dict]) -> dict[str, Drawn]:
    """Figures 8 and 9 of `data/ablate/<row>.json` by row."""
    ratios, shares = {}, {}
    for name, found in ablations.items():
        fits = [fit for fit in found["fits"] if (fit["start"], fit["steps"]) in ((found["start"], found["steps"]), (None, None))]
        ratios[name] = [fit for fit in fits if fit["share"] == found["share"]]
        shares[name] = [fit for fit in fits if fit["ratio"] == found["ratio"]]
    if not ablations:
        return {}
    raw, fixed = ({name: found[key] for name, found in ablations.items()} for key in ("raw", "fixed"))
    start = next(iter(ablations.values()))["start"]
    return {"figure8": figure8(ratios, raw, fixed, start), "figure9": figure9(shares, raw, fixed, start)}


def singular_value_figures(rows: dict[str, Row], decomposed: dict[str, dict]) -> dict[str, Drawn]:
    """Figures 3, 5 and 13 of `data/svd/<row>.json` by row: 3 is of plain sets and the full data, 5 of sets with and without MDT."""

    def named(names: list[str], key: str) -> dict:
        return {name_of(rows[name], [rows[other] for other in names]): decomposed[name][key] for name in names}

    dropped = [name for name, found in decomposed.items() if found["dropped"]]
    masked = {(rows[name].backbone, rows[name].ipc) for name in dropped if rows[name].mdt}
    plain, pairs = [name for name in dropped if rows[name].mdt == 0], [name for name in dropped if (rows[name].backbone, rows[name].ipc) in masked]
    most = max((rows[name].ipc or 0 for name in decomposed), default=0)
    largest = named([name for name in decomposed if rows[name].ipc in (None, most)], "singular_values")
    drawn = {"figure3": figure3(named(plain, "dropped"))} if plain else {}
    drawn |= {"figure5": figure5(named(pairs, "dropped"))} if pairs else {}
    return drawn | ({"figure13": figure13({label: np.array(values) for label, values in largest.items()})} if largest else {})


def detection(found: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """AUROC and FPR at 95 % TPR of each network by its maximum probability, from `data/features/<row>.safetensors`."""
    pairs = list(zip(found["inside.max_probability"], found["outside.max_probability"]))
    return {"auroc": [auroc(*pair) for pair in pairs], "fpr95": [fpr95(*pair) for pair in pairs]}


def feature_figures(rows: dict[str, Row], found: dict[str, dict[str, np.ndarray]], classes: list[str]) -> dict[str, Drawn]:
    """Figures 2, 4, 6, 7 and 12 of `data/features/<row>.safetensors` by row: of the full data, of a plain set and of its MDT set."""
    full = next((found[name] for name in found if rows[name].backbone == "full"), None)
    plain = next((name for name in found if rows[name].backbone != "full" and rows[name].mdt == 0), None)
    masked = next((name for name in found if rows[name].mdt), None)
    both = {name_of(rows[name], []): found[name] for name in (plain, masked) if name}
    drawn = {}
    if both:
        groups = {label: {"in": values["inside.max_probability"], "out": values["outside.max_probability"]} for label, values in both.items()}
        drawn["figure2b"] = figure2b(groups, {label: {key: float(np.mean(each)) for key, each in detection(values).items()} for label, values in both.items()})
        drawn["figure6"] = maps({label: (values, "cross_entropy") for label, values in both.items()}, classes)
        losses = {f"{label}{title}": (values, loss) for loss, title in LOSSES.items() for label, values in both.items() if f"tsne.{loss}.block 1" in values}
        drawn["figure12b"] = maps(losses, classes)
    if plain and full:
        distilled = found[plain]
        ratios = sorted(float(key.split(".max_logit")[0].removeprefix("masked.")) for key in distilled if key.startswith("masked."))
        drawn["figure2a"] = figure2a(full["inside.max_logit"], distilled["inside.max_logit"])
        drawn["figure4"] = maps({"FDNN": (full, "cross_entropy"), "DDNN": (distilled, "cross_entropy")}, classes)
        drawn["figure7"] = figure7(full["inside.max_logit"], distilled["inside.max_logit"], {ratio: distilled[f"masked.{ratio:g}.max_logit"] for ratio in ratios})
    return drawn


def maps(networks: dict[str, tuple[dict[str, np.ndarray], str]], classes: list[str]) -> Drawn:
    """Figure 4's drawing of t-SNE maps: label -> (features of a row, loss)."""
    parts = {label: {key.split(".")[-1]: values for key, values in found.items() if key.startswith(f"tsne.{loss}.")} for label, (found, loss) in networks.items()}
    return figure4(parts, next(iter(networks.values()))[0]["tsne.labels"], classes)


def read(folder: Path, names, ending: str, load) -> dict:
    """What there is of a folder's files, by row."""
    return {name: load(folder / f"{name}.{ending}") for name in names if (folder / f"{name}.{ending}").exists()}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def all_figures(suite: dict, name: str, data: Path, classes: list[str]) -> dict[str, Drawn]:
    """The figures of a suite by file name, of whatever results there are.

    Args:
        suite: as in `suites/<name>.yaml`.
        data: folder of `ablate/`, `svd/` and `features/`.
        classes: names of the data set's classes.
    """
    rows = {row: pick(Row, values, f"{name}: runs.{row}") for row, values in suite["runs"].items()}
    drawn = ablation_figures(read(data / "ablate", rows, "json", read_json))
    drawn |= singular_value_figures(rows, read(data / "svd", suite["svd"], "json", read_json))
    drawn |= feature_figures(rows, read(data / "features", suite["features"], "safetensors", load_file), classes)
    return {f"{key}-{name}": one for key, one in drawn.items()}


def main() -> None:
    for path in listed_suites():
        suite, data = read_yaml(path), Path("data")
        datasets = [suite["runs"][row]["dataset"] for row in suite["features"]]
        classes = read_json(data / "prepare" / datasets[0] / "info.json")["classes"] if datasets else []
        write_figures(all_figures(suite, path.stem, data, classes), Path("reports/figures/analyses"))


if __name__ == "__main__":
    run_stage(main)
