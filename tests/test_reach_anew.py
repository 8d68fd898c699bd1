"""Every entry of `reach`, computed anew by SciPy from the logits that its stages leave."""

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from by_hand import ece_of_tops
from project import PARAMS, make_project, run_to_reach
from safetensors.torch import load_file
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.isotonic import IsotonicRegression

from stages.calibrators.optimum import Fit
from stages.images.augment import augment, draw
from stages.images.prepared import load_transform
from stages.images.shifts import Shift, shifted
from stages.reach import Case, Tried, load_case, setup_on_real_images
from stages.runtime.files import read_result
from stages.runtime.randomness import generator
from stages.settings.reach import ReachSettings
from stages.settings.rows import Row
from stages.settings.temperature import TemperatureSettings

BOUNDS = [0.05, 20.0]
FEW = 6  # real images, of the 30
MTT = "shapes-mtt-ipc2"
REAL = "shapes-random-ipc1"  # each network has a set of its own
PARAMETERS = PARAMS | {
    "train": PARAMS["train"] | {"repeats": 3}
}  # more networks than a temperature is fitted with
REPEATS = 3


class Files(NamedTuple):
    """What a row's stages have left."""

    case: Case
    entries: dict[tuple[str, str, str], dict]  # by part, what it is judged on, and choice
    test: dict[str, np.ndarray]  # (R, N, K) logits by loss
    labels: np.ndarray  # (N,) of the test images
    fresh: np.ndarray  # (3, M, K) logits on real images, of networks that are not judged
    own: np.ndarray  # (R, M, K) of those that are
    real_labels: np.ndarray  # (M,)
    shipped: float

    def pooled(self, networks: int, rows: slice | np.ndarray = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        logits = np.concatenate([self.fresh[i][rows] for i in range(networks)])
        return logits, np.concatenate([self.real_labels[rows]] * networks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    project = make_project(tmp_path_factory.mktemp("anew"), PARAMETERS)
    with chdir(project):
        run_to_reach([MTT, f"{MTT}-mdt", REAL])
    return project


def logits_of(row: Row) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The labels of the test images, and the logits on them by loss."""
    tensors = load_file(row.logits)
    labels = tensors.pop("labels").numpy()
    return labels, {name: values.double().numpy() for name, values in tensors.items()}


@pytest.fixture(params=[MTT, REAL])
def files(request, folder, monkeypatch) -> Files:
    monkeypatch.chdir(folder)
    row = Row(request.param)
    reach, temperature = (
        ReachSettings(**PARAMETERS["reach"]),
        TemperatureSettings(**PARAMETERS["temperature"]),
    )
    case = load_case(row, Tried(reach, temperature, BOUNDS, 10), Fit(1.0, False))
    real = setup_on_real_images(case).test
    labels, test = logits_of(row)
    return Files(
        case=case,
        entries={(e["part"], e["on"], e["choice"]): e for e in read_result(row.reach)["entries"]},
        labels=labels,
        test=test,
        fresh=load_file(row.reach_logits)["real"].double().numpy(),
        own=case.networks.logits(real.images[:]).astype(np.float64),
        real_labels=real.labels.numpy(),
        shipped=read_result(row.shipped)["temperature"],
    )


# ---- what a score is ----


def ece(p: np.ndarray, labels: np.ndarray) -> float:
    return ece_of_tops(p.max(1), p.argmax(1) == labels)


def assert_scores(entry: dict, probabilities: list[np.ndarray], labels: np.ndarray) -> None:
    """The entry's scores are those of the probabilities `(N, K)` of each network."""
    picked = [p[np.arange(len(labels)), labels] for p in probabilities]
    assert entry["ece"] == pytest.approx([ece(p, labels) for p in probabilities], abs=1e-3)
    assert entry["accuracy"] == pytest.approx([(p.argmax(1) == labels).mean() for p in probabilities])
    assert entry["nll"] == pytest.approx([-np.log(p).mean() for p in picked], rel=2e-3)
    gaps = [p.max(1).mean() - (p.argmax(1) == labels).mean() for p in probabilities]
    assert entry["confidence_gap"] == pytest.approx(gaps, abs=1e-3)


def at(logits: np.ndarray, temperatures: list[float]) -> list[np.ndarray]:
    return [softmax(z / t, axis=1) for z, t in zip(logits, temperatures, strict=True)]


# ---- what a fit is ----


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def brier(logits: np.ndarray, labels: np.ndarray) -> float:
    return ((softmax(logits, axis=1) - np.eye(logits.shape[1])[labels]) ** 2).sum(1).mean()


def top_label_brier(logits: np.ndarray, labels: np.ndarray) -> float:
    return ((softmax(logits, axis=1).max(1) - (logits.argmax(1) == labels)) ** 2).mean()


def distance_of_means(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of confidence and accuracy."""
    return abs(softmax(logits, axis=1).max(1).mean() - (logits.argmax(1) == labels).mean())


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nll": nll,
    "brier": brier,
    "top_label_brier": top_label_brier,
    "confidence": distance_of_means,
}


def best(loss: Callable[[np.ndarray], float], logits: np.ndarray) -> float:
    """The T within the bounds at which a loss of `logits / T` is least, by a grid and Brent's method."""
    grid = np.linspace(*np.log(BOUNDS), 301)
    losses = [loss(logits / np.exp(x)) for x in grid]
    around = int(np.argmin(losses))
    bracket = (grid[max(around - 1, 0)], grid[min(around + 1, 300)])
    found = minimize_scalar(
        lambda x: loss(logits / np.exp(x)), bounds=bracket, method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x))


def best_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return best(lambda z: nll(z, labels), logits)


# ---- the entries ----


def assert_one_temperature(files: Files, name: tuple[str, str, str], expected: float) -> None:
    """All networks have the temperature, and the scores are those at it."""
    entry = files.entries[name]
    logits = files.test["cross_entropy"]
    assert entry["temperature"] == pytest.approx([expected] * len(logits), rel=1e-3)
    assert_scores(entry, at(logits, entry["temperature"]), files.labels)


def test_the_references_and_the_other_losses(files):
    judged = [("reference", "clean", files.test["cross_entropy"])]
    judged += [("losses", loss, files.test[loss]) for loss in ("mixup", "label_smoothing", "focal")]
    for part, on, logits in judged:
        oracles = [best_nll(z, files.labels) for z in logits]
        expected = {"raw": [1.0] * REPEATS, "shipped": [files.shipped] * REPEATS, "oracle": oracles}
        for choice, temperatures in expected.items():
            entry = files.entries[part, on, choice]
            assert entry["temperature"] == pytest.approx(temperatures, rel=1e-3)
            assert_scores(entry, at(logits, entry["temperature"]), files.labels)


def test_the_shifts(files):
    row = files.case.row
    pixels = load_file(row.prepared / "test.safetensors")["images"] / 255
    for kind, strength in (("rotation", 30), ("blur", 0.1), ("contrast", 0.5)):
        changed = shifted(pixels, Shift(kind, strength), generator("not used"))
        logits = files.case.networks.logits(load_transform(row.prepared).forward(changed))
        entry = files.entries["shifts", f"{kind} {strength}", "shipped"]
        assert entry["temperature"] == [files.shipped] * REPEATS
        assert_scores(entry, at(logits, entry["temperature"]), files.labels)


def test_fewer_networks_and_fewer_images(files):
    for networks in (1, 2, 3):
        expected = best_nll(*files.pooled(networks))
        assert_one_temperature(files, ("networks", "clean", str(networks)), expected)
    each = FEW // 3
    few = np.concatenate([np.flatnonzero(files.real_labels == k)[:each] for k in range(3)])
    of_few, of_all = best_nll(*files.pooled(2, few)), best_nll(*files.pooled(2))
    assert of_few != pytest.approx(of_all, rel=0.01)
    assert_one_temperature(files, ("images", "clean", str(FEW)), of_few)
    assert_one_temperature(files, ("images", "clean", "30"), of_all)


@pytest.mark.parametrize("name", LOSSES)
def test_the_objectives(files, name):
    def fitted(logits: np.ndarray, labels: np.ndarray) -> float:
        return best(lambda z: LOSSES[name](z, labels), logits)

    assert_one_temperature(files, ("objectives", "clean", name), fitted(*files.pooled(2)))
    entry = files.entries["own", "clean", name]
    expected = [fitted(z, files.real_labels) for z in files.own]
    assert entry["temperature"] == pytest.approx(expected, rel=1e-3)
    assert_scores(entry, at(files.test["cross_entropy"], entry["temperature"]), files.labels)


def log_mean(logits: np.ndarray) -> np.ndarray:
    return logsumexp(log_softmax(logits, axis=2), axis=0) - np.log(len(logits))


def test_the_ensembles(files):
    logits = files.test["cross_entropy"]
    mean, at_shipped = log_mean(logits), log_mean(logits / files.shipped)
    fitted = best_nll(log_mean(files.fresh[:REPEATS]), files.real_labels)
    oracle = best_nll(mean, files.labels)
    expected = {
        "raw": (1.0, mean),
        "shipped": (files.shipped, at_shipped),
        "fitted": (fitted, mean / fitted),
        "oracle": (oracle, mean / oracle),
    }
    for choice, (temperature, of_choice) in expected.items():
        entry = files.entries["ensemble", "ensemble", choice]
        assert entry["temperature"] == pytest.approx([temperature], rel=1e-3)
        assert_scores(entry, [softmax(of_choice, axis=1)], files.labels)


def test_the_maps(files):
    logits, labels = files.pooled(2)
    classes = logits.shape[1]

    def loss(values: np.ndarray) -> float:
        scale, shift = values.reshape(2, classes)
        return nll(logits * scale + shift, labels)

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    scale, shift = minimize(loss, start, method="BFGS", options={"gtol": 1e-7}).x.reshape(2, classes)
    judged = files.test["cross_entropy"]
    scaled = [softmax(z * scale + shift, axis=1) for z in judged]
    assert_scores(files.entries["maps", "clean", "vector"], scaled, files.labels)

    rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    rising.fit(softmax(logits, axis=1).max(1), logits.argmax(1) == labels)
    right = [z.argmax(1) == files.labels for z in judged]
    mapped = [rising.predict(softmax(z, axis=1).max(1)) for z in judged]
    expected = [ece_of_tops(confidence, hit) for confidence, hit in zip(mapped, right)]
    entry = files.entries["maps", "clean", "isotonic"]
    assert entry["ece"] == pytest.approx(expected, abs=1e-3)
    assert entry["accuracy"] == pytest.approx([hit.mean() for hit in right])


def test_the_temperatures_of_other_rows(files):
    if files.case.row.name == MTT:
        other = read_result(Row(f"{MTT}-mdt").shipped)["temperature"]
        assert_one_temperature(files, ("carried", "clean", f"{MTT}-mdt"), other)
    else:
        assert not [name for name in files.entries if name[0] == "carried"]


def test_what_needs_no_real_image(files):
    logits = files.test["cross_entropy"]
    tops = logits.argmax(2)
    pairs = [(0, 1), (0, 2), (1, 2)]
    agreement = np.mean([(tops[i] == tops[j]).mean() for i, j in pairs])
    expected = best(lambda z: abs(softmax(z, axis=1).max(1).mean() - agreement), np.concatenate(logits))
    assert_one_temperature(files, ("without_images", "clean", "agreement"), expected)
    trained = load_file(files.case.row.reach_logits)
    if "left_out" in trained:
        expected = best_nll(trained["left_out"].numpy(), trained["left_out_labels"].numpy())
        assert_one_temperature(files, ("without_images", "clean", "folds"), expected)
    else:
        assert ("without_images", "clean", "folds") not in files.entries


def test_augmented_images_of_the_set_of_each_network(files):
    entry = files.entries["without_images", "clean", "augmented"]
    expected = []
    for repeat in range(REPEATS):
        own_set = files.case.distilled.of_repeat(repeat)
        draws = [generator(0, "reach", "augmented", repeat, number) for number in range(2)]
        images = [augment(own_set.images[:], draw(of_draw, len(own_set.labels))) for of_draw in draws]
        logits = files.case.networks.logits(torch.cat(images))[repeat]
        expected.append(best_nll(logits, np.tile(own_set.labels.numpy(), 2)))
    assert len(set(expected)) == REPEATS
    assert entry["temperature"] == pytest.approx(expected, rel=2e-3)
    assert_scores(entry, at(files.test["cross_entropy"], entry["temperature"]), files.labels)
