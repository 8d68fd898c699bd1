"""Malformed settings and files end in a line or two, or in the exact result; hostile files are refused."""

import copy
import datetime
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import project
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from project import PARAMS, make_project, run, write_yaml
from safetensors.torch import save_file
from torch import Tensor

from stages import check
from stages.distillation.backbone import Problem
from stages.distillation.imported_files import ImportedSet
from stages.distillation.imported_set import read_set
from stages.images.folders import ANNOTATIONS
from stages.images.prepared import load_split
from stages.images.sources import read_images
from stages.images.unpacking import MOST_GROWTH, unpack
from stages.networks.convnet import ConvNet
from stages.runtime.errors import UserError
from stages.runtime.files import write_tensors
from stages.runtime.pt_files import read_pt
from stages.settings.ablate import AblateSettings
from stages.settings.architectures import ArchitecturesKeys
from stages.settings.buffer import BufferSettings
from stages.settings.calibrate import CalibrateKeys, CalibrateSettings
from stages.settings.choices import ChoicesSettings
from stages.settings.distill import DistillKeys
from stages.settings.evaluate import EvaluateSettings
from stages.settings.features import FeaturesKeys
from stages.settings.images import ImageSettings
from stages.settings.project import param
from stages.settings.reach import ReachKeys, ReachSettings
from stages.settings.rows import Buffer, Dataset, Row, listed_rows
from stages.settings.section import parse
from stages.settings.svd import SvdKeys
from stages.settings.tables import TableKeys
from stages.settings.temperature import TemperatureSettings
from stages.settings.train import TrainKeys, TrainSettings
from stages.tools import standalone
from stages.training.flat import FlatNetwork

SUITE = Path("suites/shapes.yaml")


def fuzz(examples: int) -> Callable:
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def message_of(work: Callable[[], Any]) -> str | None:
    """The one or two lines that a piece of work ends with, or None. A traceback fails the test."""
    try:
        work()
    except UserError as mistake:
        text = str(mistake)
        assert 1 <= len(text.splitlines()) <= 2, text
        assert len(text) < 2000
        return text
    return None


def refused(work: Callable[[], Any], *words: str) -> None:
    message = message_of(work)
    assert message is not None
    for word in words:
        assert word in message, message


# Malformed settings


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """A project with its images prepared: three classes of 8x8 pictures in color."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    with chdir(folder):
        run("prepare", "shapes")
    return folder


@pytest.fixture
def written(shapes, monkeypatch) -> Path:
    """The project with its own settings, as the working directory."""
    monkeypatch.chdir(shapes)
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    make_settings(PARAMS, project.suite())
    return shapes


def make_settings(params: dict, suite: dict) -> None:
    for path, values in ((Path("params.yaml"), params), (SUITE, suite)):
        path.unlink(missing_ok=True)
        write_yaml(path, values)


ODD_VALUES = [
    None,
    [],
    {},
    [None],
    [[]],
    [0, 0],
    ["x"],
    {"a": 1},
    {5: 5},
    10**30,
    10**400,
    -1,
    0,
    1.5,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
    True,
    False,
    "",
    "x",
    "1",
    "a\nb",
    "../x",
    "/x",
    "-x",
    "\0",
    "~nobody/x",
    "$(touch x)",
    "é" * 300,
    b"ab",
    datetime.date(2020, 1, 1),
    {"x"},
]
ODD_KEYS = [5, None, True, 1.5, datetime.date(2020, 1, 1), "", "a\nb", "../x", "-x", "x" * 300, "$(ls)"]


def places(values: Any, before: tuple = ()) -> list[tuple]:
    """The ways to all values in dicts and lists."""
    children = values.items() if isinstance(values, dict) else enumerate(values)
    ways = []
    for key, value in children:
        ways.append((*before, key))
        if isinstance(value, (dict, list)):
            ways += places(value, (*before, key))
    return ways


def changed(values: dict, place: tuple, how: str, value: Any, key: Any) -> dict:
    """A copy of settings with one place removed, replaced, renamed or accompanied by another key."""
    values = copy.deepcopy(values)
    section: Any = values
    for part in place[:-1]:
        section = section[part]
    if how == "remove":
        del section[place[-1]]
    elif how == "replace" or isinstance(section, list):
        section[place[-1]] = value
    elif how == "rename":
        section[key] = section.pop(place[-1])
    else:
        section[key] = value
    return values


def mean_it() -> None:
    """What `check` has accepted, every stage accepts too: no stage may find a mistake in its own keys."""
    sections = {
        "train": TrainSettings,
        "calibrate": CalibrateSettings,
        "temperature": TemperatureSettings,
        "ablate": AblateSettings,
        "reach": ReachSettings,
        "choices": ChoicesSettings,
        "evaluate": EvaluateSettings,
    }
    for key, section in sections.items():
        parse(section, param(key), key)
    suite = yaml.safe_load(SUITE.read_text())
    for name in suite["datasets"]:
        dataset = Dataset(name)
        parse(ImageSettings, dataset.value("images"), name)
        assert dataset.network.depth <= 3, "images have 8 pixels"
        assert inside(dataset.prepared)
    for name in suite["buffers"]:
        Buffer(name).keys(BufferSettings)
        assert inside(Buffer(name).folder)
    for row in listed_rows():
        for section in (DistillKeys, TrainKeys, CalibrateKeys, TableKeys):
            row.keys(section)
        assert inside(row.reads)
        assert inside(row.distilled)
    analyses = {
        "architectures": ArchitecturesKeys,
        "svd": SvdKeys,
        "features": FeaturesKeys,
        "reach": ReachKeys,
    }
    for kind, section in analyses.items():
        for row in listed_rows(kind):
            row.analysis(kind, section)
    assert 0 <= param("seed") < 2**32


def inside(path: Path) -> bool:
    return path.resolve().is_relative_to(Path("data").resolve())


@st.composite
def malformed(draw) -> tuple[dict, dict]:
    """params.yaml and the suite, one of them with one or two changes."""
    both = [PARAMS, project.suite()]
    which = draw(st.sampled_from([0, 1, 1]))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(places(both[which])))
        how = draw(st.sampled_from(["remove", "replace", "replace", "replace", "rename", "add"]))
        value = draw(st.sampled_from(ODD_VALUES) | st.integers() | st.floats() | st.text(max_size=20))
        both[which] = changed(both[which], place, how, value, draw(st.sampled_from(ODD_KEYS)))
    return both[0], both[1]


@fuzz(120)
@given(both=malformed())
def test_malformed_settings_are_refused_or_meant(both, written):
    make_settings(*both)
    if message_of(check.main) is None:
        mean_it()


def test_settings_that_are_not_malformed_pass(written):
    assert message_of(check.main) is None
    mean_it()


@pytest.mark.parametrize(
    "file, place, value, words",
    [
        ("params", ("seed",), -1, ["seed: -1", "greater than or equal to 0"]),
        ("params", ("seed",), 2**32, ["seed: 4294967296", "less than 4294967296"]),
        ("params", ("train", "batch"), 10**30, ["train.batch", "less than or equal to 1000000000"]),
        ("params", ("calibrate", "lr"), 1e-300, ["calibrate.lr: 1e-300", "at least 1e-12"]),
        ("params", ("calibrate", "bounds"), [1e-9, 20.0], ["calibrate.bounds: 1e-09", "at least 1e-06"]),
        ("params", ("evaluate", "resamples"), 1, ["evaluate.resamples: 1", "greater than or equal to 2"]),
        ("params", ("reach", "shifts", "rotation"), [float("inf")], ["shifts.rotation.0: inf", "finite"]),
        ("params", ("data_root",), "a\0b", ["data_root: 'a\\x00b'", "printable"]),
        ("suite", ("datasets", "shapes", "images", "mean"), [float("nan")], ["images.mean.0: nan", "finite"]),
        ("suite", ("datasets", "shapes", "images", "source"), "x" * 300, ["images.source", "no folder"]),
        ("suite", ("datasets", "shapes", "images", "source"), "a\0b", ["images.source: 'a\\x00b'"]),
        (
            "suite",
            ("runs", "shapes-full", "reads"),
            "../x",
            ["reads: '../x'", "buffer/<name>, sets/<folder>"],
        ),
        ("suite", ("runs", "shapes-full", "reads"), "/etc", ["reads: '/etc' is no path below data/"]),
        ("suite", ("runs", "shapes-full", "reads"), "a\nb", [r"reads: 'a\nb' is no path below data/"]),
    ],
)
def test_a_value_that_no_stage_can_use_is_refused(file, place, value, words, written):
    both = {"params": PARAMS, "suite": project.suite()}
    both[file] = changed(both[file], place, "replace", value, None)
    make_settings(both["params"], both["suite"])
    refused(check.main, *words)


def test_a_network_deeper_than_the_images_are_wide_is_refused(written):
    suite = project.suite()
    suite["datasets"]["shapes"] |= {"images": {"source": "digits"}, "network": {"width": 4, "depth": 4}}
    make_settings(PARAMS, suite)
    refused(check.main, "datasets.shapes.network.depth: 4 blocks", "allowed: 2^depth <= 8")


@pytest.mark.parametrize("files", ["~nobody/x", "a\0b", "x" * 300])
def test_a_folder_of_trajectories_that_cannot_be_is_refused(files, written):
    suite = project.suite()
    suite["buffers"]["mtt"] = {"suite": "shapes", "dataset": "shapes", "files": files, "epochs": 1}
    make_settings(PARAMS, suite)
    refused(check.main, "buffers.mtt.files", "replay_buffer")


HOSTILE_NAMES = [
    "a/b",
    "..",
    "../../x",
    "/etc/x",
    "-x",
    "--help",
    "a\nb",
    "a\0b",
    "a b",
    "$(touch x)",
    "a;b",
    "<b>",
    "",
    "é",
    "x" * 101,
]


@pytest.mark.parametrize("kind", ["datasets", "buffers", "runs", "svd", "features"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_no_file_name_or_word_is_refused(kind, name, written):
    suite = project.suite()
    entries = suite[kind]
    entries[name] = next(iter(entries.values()))
    make_settings(PARAMS, suite)
    refused(check.main, f"{SUITE}: {kind}", "no name for files and commands; allowed: letters, digits")


def test_a_suite_whose_own_name_is_none_is_refused(written):
    file = Path("suites/a b.yaml")
    write_yaml(file, project.suite())
    try:
        refused(check.main, "suites: 'a b' is no name for files and commands")
    finally:
        file.unlink()


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
for number in range(8):
    LAUGHS += (
        f"b{number}: &b{number} [{', '.join(['*' + ('a' if number == 0 else f'b{number - 1}')] * 10)}]\n"
    )


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ["expected keys and values but got NoneType"]),
        (b"just words", ["expected keys and values but got str"]),
        (b"- 1\n- 2\n", ["expected keys and values but got list"]),
        (b"a: 1\n---\nb: 2\n", ["not YAML"]),
        (b"a: [1\n", ["not YAML"]),
        (b"a: 1\nb: 2\na: 3\n", ["the key 'a' stands twice: on lines 1 and 3"]),
        (b"a: {x: 1, x: 2}\n", ["the key 'x' stands twice"]),
        (b"a: &a [*a]\n", ["the anchor on line 1 contains itself"]),
        (b"a: &a {b: {<<: *a}}\n", ["contains itself"]),
        (LAUGHS.encode(), ["aliases make it larger than 1,000,000 values"]),
        (b"a: " + b"[" * 100_000, ["nested deeper than 50 levels"]),
        (b"a: " + b"[" * 60 + b"]" * 60, ["nested deeper than 50 levels"]),
        ("a: é\n".encode("latin-1"), ["not UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["not UTF-8"]),
        (b"a: \x00\n", ["not YAML"]),
        (b"a: 2020-13-45\n", ["not YAML: month must be in 1..12"]),
        (b"a: !!int x\n", ["not YAML"]),
        (b"a: !!bool x\n", ["not YAML"]),
        (b"a: !!timestamp x\n", ["not YAML"]),
        (b"a: " + b"9" * 5000, ["not YAML"]),
        (b"? [a]\n: 1\n", ["not YAML"]),
        (b"a: !!python/object/apply:os.mkdir [this-must-not-exist]\n", ["not YAML"]),
    ],
)
@pytest.mark.parametrize("file", ["params.yaml", str(SUITE)])
def test_yaml_that_cannot_be_meant_is_refused(content, words, file, written):
    Path(file).write_bytes(content)
    refused(check.main, f"{file}: ", *words)
    assert not Path("this-must-not-exist").exists()


def test_a_folder_in_the_place_of_a_suite_is_refused(written):
    Path("suites/folder.yaml").mkdir()
    try:
        refused(check.main, "suites/folder.yaml: cannot be read: Is a directory")
    finally:
        Path("suites/folder.yaml").rmdir()


def test_entries_that_are_no_entries_are_refused_by_every_stage(written):
    """A stage may be started without `check`."""
    make_settings(PARAMS, project.suite() | {"runs": 5})
    refused(lambda: Row("shapes-full"), "suites/shapes.yaml: runs: expected names with keys but got int")
    make_settings(PARAMS, project.suite() | {"runs": {"shapes-full": 5}})
    refused(lambda: Row("shapes-full").dataset, "runs.shapes-full: expected keys and values")
    make_settings(PARAMS, project.suite() | {"runs": {"shapes-full": {}}})
    refused(lambda: Row("shapes-full").dataset, "runs.shapes-full.dataset: Field required")


# Damage


class Damage:
    """What may happen to the bytes of a file: a bit flips, the end is lost, or all is another file's."""

    def __init__(self, kind: str, place: float, other: bytes):
        self.kind = kind
        self.place = place
        self.other = other

    def __repr__(self) -> str:
        return f"{self.kind} at {self.place:.4f}"

    def __call__(self, content: bytes) -> bytes:
        bits = int(self.place * 8 * len(content))
        if self.kind == "flip":
            spoilt = bytearray(content)
            spoilt[bits // 8] ^= 1 << bits % 8
            return bytes(spoilt)
        if self.kind == "cut":
            return content[: bits // 8]
        if self.kind == "zeros":
            return content[: bits // 8] + bytes(len(content) - bits // 8)
        return self.other

    def to(self, file: Path) -> None:
        file.write_bytes(self(file.read_bytes()))


def damages() -> st.SearchStrategy[Damage]:
    kinds = st.sampled_from(["flip", "flip", "flip", "flip", "cut", "zeros", "other"])
    places_in_file = st.floats(0, 1, exclude_max=True)
    others = st.sampled_from([b"", b"\0" * 100, b"PK\x05\x06" + bytes(18), b"\x80\x02.", b"not a file"])
    return st.builds(Damage, kinds, places_in_file, others)


@fuzz(30)
@given(damage=damages(), file=st.sampled_from(["params.yaml", str(SUITE)]))
def test_damaged_settings_are_refused_or_meant(damage, file, written):
    make_settings(PARAMS, project.suite())
    damage.to(Path(file))
    if message_of(check.main) is None:
        mean_it()


# Distilled sets


SET = Path("data/sets/mine")


@pytest.fixture(scope="module")
def problem(shapes) -> Problem:
    """A row that reads a set of two images a class from a folder."""
    with chdir(shapes):
        make_settings(PARAMS, project.suite())  # other tests leave broken ones
        real = load_split(Row("shapes-mtt-ipc2").prepared, "train")
    network = FlatNetwork(ConvNet(3, 8, 3, 4, 2))
    prepared = shapes / "data/prepare/shapes"
    return Problem(real, network, ipc=2, mdt=0.0, reads=shapes / SET, seed=0, prepared=prepared)


@pytest.fixture
def place(problem) -> Path:
    """The empty folder that the row reads."""
    folder = problem.reads
    folder.mkdir(parents=True, exist_ok=True)
    empty(folder)
    return folder


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1, 1, 0, 2])


def write_pair(folder: Path) -> None:
    torch.save(IMAGES, folder / "images_best.pt")
    torch.save(LABELS, folder / "labels_best.pt")
    torch.save(torch.tensor(0.02), folder / "lr_best.pt")


def write_result(folder: Path) -> None:
    data = [[IMAGES, LABELS], [IMAGES + 1, LABELS.flip(0)]]
    torch.save({"data": data, "accs_all_exps": {"ConvNet": [np.float64(0.2)]}}, folder / "res_DC.pt")


def write_safetensors(folder: Path) -> None:
    tensors = {"images": IMAGES, "labels": LABELS, "step_size": torch.tensor(0.03)}
    write_tensors(folder / "set.safetensors", tensors, {"ipc": 2})


def write_pictures(folder: Path) -> None:
    draws = np.random.default_rng(0)
    for name in project.CLASSES:
        (folder / name).mkdir()
        for i in range(2):
            pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@fuzz(60)
@given(
    damage=damages(),
    write=st.sampled_from([write_pair, write_result, write_safetensors, write_pictures]),
    which=st.integers(0, 5),
)
def test_a_damaged_set_is_refused_or_exact(damage, write, which, problem, place):
    empty(place)
    write(place)
    whole = read_set(problem)
    files = sorted(file for file in place.rglob("*") if file.is_file())
    damage.to(files[which % len(files)])
    taken: list[ImportedSet] = []
    if message_of(lambda: taken.append(read_set(problem))) is None:
        assert torch.equal(taken[0].images, whole.images)
        assert torch.equal(taken[0].labels, whole.labels)
        assert taken[0].step_size == whole.step_size


@fuzz(20)
@given(damage=damages())
def test_a_damaged_set_without_a_checksum_is_refused_or_a_set(damage, problem, place):
    """A safetensors file of others has no checksum, so a number that has become another is not noticed."""
    empty(place)
    save_file({"images": IMAGES, "labels": LABELS}, place / "set.safetensors")
    damage.to(place / "set.safetensors")
    taken: list[ImportedSet] = []
    if message_of(lambda: taken.append(read_set(problem))) is None:
        fits(taken[0])


TENSORS: list[Any] = [
    IMAGES,
    IMAGES[:, :1],
    IMAGES[:4],
    IMAGES[:0],
    IMAGES / 0,
    IMAGES.double(),
    IMAGES.to(torch.complex64),
    IMAGES.to(torch.float8_e5m2),
    IMAGES > 0,
    IMAGES.to_sparse(),
    IMAGES.to("meta"),
    torch.zeros(1).expand(10**12),
    torch.zeros(1, 3, 8, 8).expand(10**9, 3, 8, 8),
    LABELS,
    LABELS + 1,
    -LABELS,
    LABELS * 0,
    LABELS * 0.5,
    LABELS.float(),
    LABELS.to(torch.complex64),
    torch.tensor(2**62).repeat(6),
    torch.full((6, 3), float("nan")),
    torch.ones(6, 3),
    torch.eye(3).repeat(2, 1),
    torch.tensor(3),
    torch.nn.Linear(2, 2).weight,
    None,
    "x",
    {"images": IMAGES},
    [IMAGES, LABELS],
    float("nan"),
]


@fuzz(50)
@given(
    images=st.sampled_from(TENSORS),
    labels=st.sampled_from(TENSORS),
    step_size=st.sampled_from([*TENSORS, 0.01]),
    kind=st.sampled_from([None, "probabilities", "logits"]),
    as_result=st.booleans(),
)
def test_a_set_of_odd_tensors_is_refused_or_fits(images, labels, step_size, kind, as_result, problem, place):
    empty(place)
    if as_result:
        torch.save({"data": [[images, labels]]}, place / "res_DC.pt")
    else:
        torch.save(images, place / "images_best.pt")
        torch.save(labels, place / "labels_best.pt")
        torch.save(step_size, place / "lr_best.pt")
    taken: list[ImportedSet] = []
    if message_of(lambda: taken.append(read_set(problem, kind))) is None:
        fits(taken[0])


def fits(imported: ImportedSet) -> None:
    assert imported.images.shape == IMAGES.shape
    assert imported.images.dtype == torch.float32
    assert bool(imported.images.isfinite().all())
    assert imported.labels.dtype == torch.int64
    assert len(imported.labels) == 6
    assert 0 <= int(imported.labels.min()) <= int(imported.labels.max()) <= 2
    if imported.targets is None:
        assert imported.labels.bincount().tolist() == [2, 2, 2]
    for number in (imported.step_size, imported.teacher_step_size, imported.temperature):
        assert number is None or 0 < number < float("inf")
    if imported.number is not None:
        assert imported.number.unique().tolist() == list(range(int(imported.number.max()) + 1))


SETS_AND_STEP_SIZES = [
    torch.tensor(-1.0),
    torch.tensor(0.0),
    torch.tensor(float("nan")),
    torch.tensor([0, 0, 0, 2, 2, 2]),
    torch.tensor([1, 1, 1, 2, 2, 2]),
    torch.tensor([-1, -1, -1, 0, 0, 0]),
]


@fuzz(30)
@given(
    key=st.sampled_from(["images", "labels", "targets", "set", "positions", "step_size", "temperature"]),
    value=st.sampled_from([value for value in TENSORS if isinstance(value, Tensor)] + SETS_AND_STEP_SIZES),
    about=st.sampled_from(["{}", "[]", "{", '{"ipc": "x"}', '{"ipc": 2}']),
)
def test_a_safetensors_set_of_odd_tensors_is_refused_or_fits(key, value, about, problem, place):
    empty(place)
    if value.layout != torch.strided or value.device.type == "meta" or value.numel() > 10**6:
        value = LABELS
    tensors = {"images": IMAGES, "labels": LABELS} | {key: value.contiguous()}
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()},
        place / "set.safetensors",
        {"about": about},
    )
    taken: list[ImportedSet] = []
    if message_of(lambda: taken.append(read_set(problem))) is None:
        fits(taken[0])


def lying_header(header: dict | bytes, length: int | None = None, data: bytes = bytes(64)) -> bytes:
    """A safetensors file with this header, which says to have this length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_at(first: int, last: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


LYING_HEADERS = [
    lying_header({}, length=2**63),
    lying_header({}, length=10**6),
    lying_header(b"{"),
    lying_header(b"[" * 100_000),
    lying_header({"images": tensor_at(0, 64, [16]), "labels": tensor_at(32, 96, [16])}),
    lying_header({"images": tensor_at(0, 32, [8]), "labels": tensor_at(16, 64, [12])}),
    lying_header({"images": tensor_at(0, 10**12, [10**12 // 4])}),
    lying_header({"images": tensor_at(0, 64, [10**12])}),
    lying_header({"images": tensor_at(0, 64, [2**62, 2**62])}),
    lying_header({"images": tensor_at(0, 64, [15])}),
    lying_header({"images": tensor_at(0, 64, [16], "F64")}),
    lying_header({"images": tensor_at(0, 64, [16], "X9")}),
    lying_header({"images": tensor_at(64, 0, [16])}),
    lying_header({"images": tensor_at(0, 64, [-16])}),
    lying_header({"logits": tensor_at(0, 64, [10**12]), "labels": tensor_at(0, 64, [10**12])}),
]


@pytest.mark.parametrize("content", LYING_HEADERS, ids=range(len(LYING_HEADERS)))
def test_safetensors_with_a_lying_header_are_refused(content, problem, place, tmp_path):
    (place / "set.safetensors").write_bytes(content)
    refused(lambda: read_set(problem), "set.safetensors: ")
    (tmp_path / "logits.safetensors").write_bytes(content)
    refused(lambda: standalone.read_logits(tmp_path / "logits.safetensors"), "logits.safetensors: ")


# Files of PyTorch


class Code:
    """A pickle that would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("this-must-not-exist",)


class Shell:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("touch this-must-not-exist",)


@pytest.mark.parametrize("code", [Code(), [torch.zeros(2), Shell()], {"data": [[IMAGES, Code()]]}])
@pytest.mark.parametrize("write", [torch.save, lambda code, file: file.write_bytes(pickle.dumps(code))])
def test_code_in_a_pt_file_is_not_run(code, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "images.pt"
    write(code, file)
    message = message_of(lambda: read_pt(file))
    assert message is not None and message.startswith(f"{file}: cannot be read as tensors: ")
    assert len(message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["images.pt"]


def test_a_pt_file_that_grows_is_refused(tmp_path):
    torch.save(torch.zeros(10**6), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole:
        records = {record.filename: whole.read(record) for record in whole.infolist()}
    zip_of(tmp_path / "small.pt", records)
    refused(lambda: read_pt(tmp_path / "small.pt"), "is compressed, which torch.save never does")
    torch.save([torch.zeros(1).expand(10**12)], tmp_path / "wide.pt")
    refused(lambda: read_pt(tmp_path / "wide.pt"), "(1000000000000,) is made of 4 bytes")


def test_a_flipped_bit_in_a_pt_file_is_noticed(tmp_path):
    """`torch.load` alone would give another number."""
    file = tmp_path / "images.pt"
    torch.save(IMAGES, file)
    content = file.read_bytes()
    place = content.index(IMAGES.numpy().tobytes()[:16])
    file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    refused(lambda: read_pt(file), "images/data/0 is damaged")


# Expert trajectories


@pytest.fixture
def replay(written) -> Path:
    """The settings with a buffer of MTT's own code, and its empty folder."""
    folder = Path("replay")
    folder.mkdir(exist_ok=True)
    suite = project.suite()
    suite["buffers"]["mtt"] = {"suite": "shapes", "dataset": "shapes", "files": "replay", "epochs": 2}
    make_settings(PARAMS, suite)
    return folder


def trajectory(seed: int) -> list[list[Tensor]]:
    torch.manual_seed(seed)
    networks = [ConvNet(3, 8, 3, 4, 2) for _ in range(3)]
    return [[parameter.detach() for parameter in network.parameters()] for network in networks]


TRAJECTORIES = [trajectory(0), trajectory(1)]


def taken_in() -> bytes:
    run("buffer", "mtt")
    return (Buffer("mtt").folder / "trajectories.safetensors").read_bytes()


@fuzz(20)
@given(damage=damages())
def test_a_damaged_buffer_is_refused_or_exact(damage, replay):
    torch.save(TRAJECTORIES, replay / "replay_buffer_0.pt")
    whole = taken_in()
    damage.to(replay / "replay_buffer_0.pt")
    taken: list[bytes] = []
    if message_of(lambda: taken.append(taken_in())) is None:
        assert taken[0] == whole


@fuzz(25)
@given(
    value=st.sampled_from([*TENSORS, [], {}, [TRAJECTORIES], 5]),
    depth=st.integers(0, 3),
    beside=st.booleans(),
)
def test_a_buffer_of_anything_else_is_refused(value, depth, beside, replay):
    for _ in range(depth):
        value = [value]
    if beside and isinstance(value, list):
        value = [*TRAJECTORIES, *value]
    torch.save(value, replay / "replay_buffer_0.pt")
    assert message_of(taken_in) is not None


# Logits


LOGITS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
CLASSES = np.arange(12) % 3


@fuzz(30)
@given(damage=damages(), compressed=st.booleans())
def test_damaged_logits_are_refused_or_exact(damage, compressed, tmp_path_factory):
    file = tmp_path_factory.mktemp("logits") / "logits.npz"
    (np.savez_compressed if compressed else np.savez)(file, logits=LOGITS, labels=CLASSES)
    damage.to(file)
    taken: list = []
    if message_of(lambda: taken.append(standalone.read_logits(file))) is None:
        logits, labels = taken[0]
        assert np.array_equal(logits, LOGITS)
        assert np.array_equal(labels, CLASSES)


ARRAYS: list[np.ndarray] = [
    LOGITS,
    np.full((12, 3), 6e4, np.float16),
    LOGITS * np.float32(1e38),
    LOGITS.astype(np.float64) * 1e300,
    LOGITS.astype(np.int8),
    LOGITS.astype(np.complex64),
    LOGITS > 0,
    LOGITS.astype(str),
    LOGITS[:, :1],
    LOGITS[:0],
    LOGITS[:, :0],
    LOGITS.T,
    LOGITS * np.float32(np.inf),
    CLASSES,
    CLASSES.astype(np.uint8),
    CLASSES.astype(np.float32),
    CLASSES - 1,
    np.full(12, 2**63, np.uint64),
    np.array(["a"] * 12),
    np.zeros(12, "datetime64[s]"),
    np.zeros(12, [("a", "f4")]),
    np.array(3),
]


@fuzz(40)
@given(logits=st.sampled_from(ARRAYS), labels=st.sampled_from(ARRAYS + [CLASSES] * 10))
@pytest.mark.filterwarnings("ignore:overflow")
def test_odd_logits_are_refused_or_judged(logits, labels, tmp_path_factory):
    file = tmp_path_factory.mktemp("logits") / "logits.npz"
    np.savez(file, logits=logits, labels=labels)
    taken: list = []
    if message_of(lambda: taken.append(standalone.read_logits(file))) is None:
        read, classes = taken[0]
        temperatures = standalone.fit_temperatures(read, classes)
        numbers = standalone.judge(read, classes, temperatures.converged.temperature)
        assert all(np.isfinite(list(numbers.values())))
        assert numbers["accuracy"] == np.mean(read.argmax(1) == classes)


def test_objects_in_logits_are_not_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "logits.npz", logits=np.array([Code()], object), labels=CLASSES)
    refused(lambda: standalone.read_logits(tmp_path / "logits.npz"), "logits.npz: not an .npz")
    assert not (tmp_path / "this-must-not-exist").exists()


def test_an_array_that_says_to_be_huge_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}
    )
    with zipfile.ZipFile(tmp_path / "logits.npz", "w") as archive:
        archive.writestr("logits.npy", header.getvalue())
    refused(lambda: standalone.read_logits(tmp_path / "logits.npz"), "logits.npz: not an .npz")


# Pictures


def bomb(file: Path, width: int, height: int) -> None:
    """A small PNG file that says to have this many pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    file.write_bytes(content)


@pytest.mark.parametrize("size", [(40_000, 25_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_very_many_pixels_is_refused(size, problem, place, tmp_path):
    write_pictures(place)
    bomb(place / "left" / "0.png", *size)
    refused(lambda: read_set(problem), "left/0.png: not a readable image", "pixels")
    project.draw_pictures(tmp_path)
    bomb(tmp_path / "train" / "left" / "0.png", *size)
    settings_of = ImageSettings(source=str(tmp_path), resize=8)
    refused(
        lambda: read_images(settings_of, "images", tmp_path), "left/0.png: not a readable image", "pixels"
    )


@fuzz(30)
@given(
    damage=damages(),
    ending=st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"]),
    color=st.sampled_from(["rgb", "gray"]),
)
def test_a_damaged_picture_is_refused_or_a_picture(damage, ending, color, tmp_path_factory):
    """Only PNG has checksums, so other pictures may have become other pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for name in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (folder / name).mkdir(parents=True)
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name / f"0.{ending}")
    keys = ImageSettings(source=str(folder), color=color)
    _, whole = read_images(keys, "images", folder)
    damage.to(folder / "train" / "ant" / f"0.{ending}")
    taken: list = []
    if message_of(lambda: taken.append(read_images(keys, "images", folder)[1])) is None:
        assert taken[0]["train"].images.shape == whole["train"].images.shape
        assert ending != "png" or np.array_equal(taken[0]["train"].images, whole["train"].images)


@pytest.mark.parametrize(
    "line", ["0.png", "../../secret.png\tant\t0", "/etc/secret.png\tant", "\tant", "0.png\t"]
)
def test_an_annotation_that_is_none_or_leaves_the_folder_is_refused(line, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "0.png")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / ANNOTATIONS).write_text(f"1.png\tbee\t0\n{line}\n")
    keys = ImageSettings(source=str(tmp_path))
    refused(lambda: read_images(keys, "images", tmp_path), f"{ANNOTATIONS}: line 2: ")


# Archives


def tar_of(file: Path, members: dict[str, bytes], *more: tarfile.TarInfo) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)


def zip_of(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("set/link")
    member.type = kind
    member.linkname = target
    return member


def outside_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


@pytest.fixture
def unpacked(tmp_path) -> Path:
    """An empty folder to unpack into."""
    folder = tmp_path / "there" / "unpacked"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["../x", "set/../../x", "/tmp/ddcal-x", "..", "..\\x", "set/./../../x"])
@pytest.mark.parametrize("write", [tar_of, zip_of])
def test_a_member_that_leaves_the_folder_is_refused(write, name, tmp_path, unpacked):
    file = tmp_path / ("set.zip" if write is zip_of else "set.tgz")
    write(file, {"set/a": b"a", name: b"x"})
    refused(lambda: unpack(file, unpacked), f"{file}: not unpacked: ", "leaves the folder", "names below it")
    assert outside_of(unpacked) == []
    assert not Path("/tmp/ddcal-x").exists()


@pytest.mark.parametrize("target", ["../../x", "/etc/passwd", "a"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_file_is_refused(kind, target, tmp_path, unpacked):
    file = tmp_path / "set.tar.gz"
    tar_of(file, {"set/a": b"a"}, link(kind, target))
    refused(lambda: unpack(file, unpacked), "its member 'set/link' is a link; allowed: files and folders")
    assert not os.path.lexists(unpacked / "set" / "link")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_in_a_tar_file_is_refused(kind, tmp_path, unpacked):
    file = tmp_path / "set.tar.gz"
    tar_of(file, {"set/a": b"a"}, link(kind, ""))
    refused(lambda: unpack(file, unpacked), "its member 'set/link' is a device")


def test_a_link_in_a_zip_file_is_refused(tmp_path, unpacked):
    member = zipfile.ZipInfo("set/link")
    member.create_system = 3
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    refused(lambda: unpack(tmp_path / "set.zip", unpacked), "its member 'set/link' is a link")


@pytest.mark.parametrize("write", [tar_of, zip_of])
@pytest.mark.parametrize("count", [1, 3000])
def test_an_archive_that_grows_a_thousandfold_is_refused(write, count, tmp_path, unpacked):
    file = tmp_path / ("set.zip" if write is zip_of else "set.tgz")
    content = bytes(20_000_000 // count)
    members = {f"set/{i}": content for i in range(count)}
    write(file, members)
    size = file.stat().st_size
    limits = f"it grows from {size:,} to more than {MOST_GROWTH * size:,} bytes; allowed: {MOST_GROWTH} times"
    refused(lambda: unpack(file, unpacked), f"{file}: not unpacked: {limits}")
    written = sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file())
    assert written <= MOST_GROWTH * size


FILES = {"set/train/a": random.Random(0).randbytes(700), "set/val/b": b"b" * 300, "set/c": b""}


@fuzz(50)
@given(damage=damages(), write=st.sampled_from([tar_of, zip_of]))
def test_a_damaged_archive_is_refused_or_exact(damage, write, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    file = folder / ("set.zip" if write is zip_of else "set.tgz")
    write(file, FILES)
    damage.to(file)
    (folder / "unpacked").mkdir()
    if message_of(lambda: unpack(file, folder / "unpacked")) is None:
        files = [path for path in (folder / "unpacked").rglob("*") if path.is_file()]
        contents = {str(path.relative_to(folder / "unpacked")): path.read_bytes() for path in files}
        assert contents == FILES
    assert outside_of(folder / "unpacked") == [file.name]
