"""Distilled sets that others have released: found by name, fetched with a checksum, tried for a whitening."""

import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import project
import pytest
import torch
import yaml
from conftest import ROOT, outside
from project import PARAMS, make_project, run, write_yaml
from safetensors.torch import load_file

from stages import code
from stages.distillation.backbone import Problem
from stages.distillation.imported_set import images_of_a_class, read_set
from stages.images import released
from stages.images.prepared import LabelledImages, load_split
from stages.runtime.errors import UserError
from stages.settings.rows import Row
from stages.tools import whitening

NAME = "mtt-shapes-ipc2"
SOURCE = f"released/{NAME}"
ROW = "shapes-released"
FILES = ("images_best.pt", "labels_best.pt")
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder with the files of a set, as others have published it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    torch.save(torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), folder / FILES[0])
    torch.save(LABELS, folder / FILES[1])
    return folder


@pytest.fixture
def shapes(tmp_path, monkeypatch) -> Path:
    """A prepared project, which is the working directory of the test."""
    suite = project.suite()
    suite["buffers"] = suite["architectures"] = suite["reach"] = suite["choices"] = {}
    suite["svd"] = suite["features"] = {}
    suite["runs"] = {ROW: released_row()}
    monkeypatch.chdir(make_project(tmp_path / "project", suites={"shapes": suite}))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    run("prepare", "shapes")
    return Path()


def released_row(**changes) -> dict:
    keys = {
        "backbone": "file",
        "made_by": "mtt",
        "reads": "nothing",
        "distill": {"source": SOURCE},
        "lr": 0.05,
    }
    return project.row(**keys | changes)


@pytest.fixture
def listed(published, tmp_path, monkeypatch):
    """A function that makes the list of released sets: one set, with some of its keys changed."""

    def write(**changes) -> None:
        entry = {
            "method": "mtt",
            "dataset": "shapes",
            "ipc": 2,
            "published": {"accuracy": 50.0, "source": "a paper"},
            "licence": "MIT",
            "origin": "a repository",
            "normalisation": "ZCA whitening",
            "known_by": "a readme",
            "address": published.as_uri(),
            "files": {name: sha256(published / name) for name in FILES},
        }
        file = tmp_path / "released.yaml"
        write_yaml(file, {NAME: entry | changes})
        monkeypatch.setattr(released, "LIST", file)

    write()
    return write


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def own_folder() -> Path:
    return Path(PARAMS["data_root"]) / SOURCE


def put_there(published: Path) -> None:
    shutil.copytree(published, own_folder())


def distilled() -> dict[str, torch.Tensor]:
    run("distill", ROW)
    return load_file(Row(ROW).distilled)


def mistake() -> str:
    with pytest.raises(UserError) as caught:
        run("distill", ROW)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert not Row(ROW).distilled.exists()
    return text


# Where a set comes from


def test_a_set_below_the_data_root_is_taken_and_nothing_is_fetched(shapes, listed, published, monkeypatch):
    put_there(published)
    monkeypatch.setattr(released, "fetch", lambda *arguments: pytest.fail("fetched"))
    run("check")
    taken = distilled()
    assert torch.equal(taken["images"], torch.load(published / FILES[0]))
    assert torch.equal(taken["labels"], LABELS)


def test_the_environment_says_where_sets_are(shapes, listed, published, tmp_path, monkeypatch):
    shutil.copytree(published, tmp_path / "other" / SOURCE)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "other"))
    monkeypatch.setattr(released, "fetch", lambda *arguments: pytest.fail("fetched"))
    assert torch.equal(distilled()["labels"], LABELS)


@pytest.fixture
def server(published) -> Iterator[tuple[str, list[str]]]:
    """The address of the published folder on a local server, and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *arguments):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=published)) as own:
        thread = threading.Thread(target=own.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{own.server_port}", asked
        own.shutdown()
        thread.join()


def test_a_set_is_fetched_once(shapes, listed, published, server, capsys):
    address, asked = server
    listed(address=address)
    first = distilled()
    assert asked == [f"/{name}" for name in FILES]
    assert f"fetching {', '.join(FILES)} from {address}" in capsys.readouterr().out
    assert sorted(file.name for file in own_folder().iterdir()) == sorted(FILES)
    assert torch.equal(distilled()["images"], first["images"])
    assert len(asked) == 2


def test_only_missing_files_are_fetched(shapes, listed, published, server):
    address, asked = server
    listed(address=address)
    put_there(published)
    (own_folder() / FILES[1]).unlink()
    distilled()
    assert asked == [f"/{FILES[1]}"]


def test_a_set_is_fetched_from_a_folder(shapes, listed):
    assert torch.equal(distilled()["labels"], LABELS)


def test_another_file_below_the_data_root_is_refused(shapes, listed, published):
    put_there(published)
    file = own_folder() / FILES[1]
    torch.save(LABELS.flip(0), file)
    text = mistake()
    expected = sha256(published / FILES[1])
    assert text == (
        f"{file}: not the published file (its sha256 is not {expected}); "
        f"delete it to have it fetched from {published.as_uri()}/{FILES[1]}"
    )


def test_another_file_at_the_address_is_refused_and_nothing_is_left(shapes, listed, published):
    torch.save(LABELS.flip(0), published / FILES[1])
    assert "has another sha256 than" in mistake()
    assert [file.name for file in own_folder().iterdir()] == [FILES[0]]


def test_one_message_says_where_to_put_a_set_that_cannot_be_fetched(shapes, listed, published):
    shutil.rmtree(published)
    first, second = mistake().splitlines()
    folder = own_folder()
    assert first.startswith(
        f"distill.source: {SOURCE!r} is not complete in {folder} and could not be fetched"
    )
    assert f"-o {folder}/$file {published.as_uri()}/$file" in second
    assert "data_root" in second and "DATA_ROOT" in second


def test_a_server_that_does_not_have_the_set_is_named(shapes, listed, published, server):
    address, _ = server
    listed(address=address)
    (published / FILES[0]).unlink()
    assert "could not be fetched: HTTP Error 404" in mistake()


def test_the_command_of_the_message_fetches_the_set(shapes, listed, published):
    """The words between `put it there:` and `; or` are a command of the shell."""
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    moved = published.rename(published.with_name("moved"))
    command = mistake().split("put it there: ")[1].split("; or set")[0]
    moved.rename(published)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert torch.equal(distilled()["labels"], LABELS)


def test_a_set_without_an_address_is_taken_from_the_data_root_alone(shapes, listed, published):
    listed(licence=None, address=None)
    text = mistake()
    assert "has no address" in text and f"put them there: {' '.join(FILES)}" in text
    put_there(published)
    assert torch.equal(distilled()["labels"], LABELS)
    torch.save(LABELS.flip(0), own_folder() / FILES[1])
    with pytest.raises(UserError, match="put the published file in its place"):
        run("distill", ROW)


def test_a_list_that_is_no_list_is_refused(shapes, listed):
    listed(files={"images_best.pt": "1234"})
    assert "released.yaml: mtt-shapes-ipc2: files.images_best.pt: '1234' is not allowed" in mistake()
    listed(address="elsewhere")
    assert "address: 'elsewhere' is not allowed" in mistake()


# What rows say of released sets


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"ipc": 10}, f"{ROW}.ipc: 10, but the row has {SOURCE}; allowed: 2"),
        ({"made_by": "dc"}, f"{ROW}.made_by: 'dc', but the row has {SOURCE}; allowed: 'mtt'"),
        ({"made_by": None}, f"{ROW}.made_by: None, but the row has {SOURCE}; allowed: 'mtt'"),
        ({"mdt": 0.1}, f"{ROW}.mdt: 0.1, but the row has {SOURCE}; allowed: 0"),
        ({"reads": "sets/mine"}, f"{ROW}.reads: 'sets/mine', but the row has {SOURCE}; allowed: 'nothing'"),
        (
            {"distill": {"source": "released/mine"}},
            f"{ROW}.distill.source: 'released/mine' is unknown; allowed: {SOURCE}",
        ),
        (
            {"distill": {"source": SOURCE, "labels": "soft"}},
            f"{ROW}.distill: labels: 'soft' is not allowed: Input should be 'probabilities' or 'logits'",
        ),
        ({"distill": {}}, f"{ROW}.reads: 'nothing', but there is no folder data/nothing"),
    ],
)
def test_a_row_says_of_its_set_what_the_list_says(changes, expected, shapes, listed):
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    suite["runs"] = {ROW: released_row(**changes)}
    write_yaml(Path("suites/shapes.yaml"), suite)
    with pytest.raises(UserError) as caught:
        run("check")
    assert expected in str(caught.value)


def test_a_set_of_one_data_set_is_refused_for_another(shapes, listed):
    listed(dataset="cifar10")
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    suite["datasets"]["shapes"]["images"] = {"source": "digits"}
    write_yaml(Path("suites/shapes.yaml"), suite)
    expected = f"dataset: 'shapes' has images of digits, but the row has {SOURCE}; allowed: .* of cifar10"
    with pytest.raises(UserError, match=expected):
        run("check")


def test_a_method_that_is_no_backbone_here_may_have_made_a_set(shapes, listed, published):
    listed(method="datm")
    suite = yaml.safe_load(Path("suites/shapes.yaml").read_text())
    suite["runs"] = {ROW: released_row(made_by="datm")}
    suite["runs"]["mine"] = released_row(made_by="datm", reads="sets/mine", distill={})
    write_yaml(Path("suites/shapes.yaml"), suite)
    Path("data/sets/mine").mkdir(parents=True)
    run("check")
    suite["runs"]["mine"]["made_by"] = "magic"
    write_yaml(Path("suites/shapes.yaml"), suite)
    with pytest.raises(UserError, match="made_by: 'magic' is unknown; allowed: .*mtt.*, datm"):
        run("check")


# The committed list and the committed rows

ENTRIES = released.released_sets()
SUITES = {
    name: yaml.safe_load((ROOT / "suites" / f"{name}.yaml").read_text()) for name in ("cifar10", "cifar100")
}
ROWS = {
    name: row
    for suite in SUITES.values()
    for name, row in suite["runs"].items()
    if "source" in row["distill"]
}


def test_the_list_has_the_checksums_of_the_sets():
    lines = (outside("SETS_DIR", "sets") / "SHA256SUMS").read_text().splitlines()
    expected = {path: checksum for checksum, path in (line.split() for line in lines)}
    found = {}
    for source, entry in ENTRIES.items():
        for name, checksum in entry.files.items():
            found[f"{source.removeprefix('released/')}/{name}"] = checksum
    assert found == expected


def test_sets_without_a_licence_are_not_linked():
    for entry in ENTRIES.values():
        assert (entry.licence is None) == (entry.address is None)


def test_every_set_has_a_row():
    assert {row["distill"]["source"] for row in ROWS.values()} == ENTRIES.keys()
    for name, row in ROWS.items():
        is_rounded = row["train"].get("precision") == "bfloat16"
        assert name.endswith("-bf16") == is_rounded
        assert row["budget"] == ("reduced" if is_rounded else "published")
        assert name.removesuffix("-bf16").removesuffix("-teacher").endswith("-released")
        plain = "ZCA" not in ENTRIES[row["distill"]["source"]].normalisation
        assert row["dataset"].endswith("-plain") == plain


def test_rows_of_dc_and_dsa_are_trained_as_their_own():
    """But in float32: some of them have run on a CPU."""
    for suite, rows in SUITES.items():
        for backbone in ("dc", "dsa"):
            own = rows["runs"][f"{suite}-{backbone}-ipc1"]
            changes = {"backbone": "file", "made_by": backbone, "train": {}}
            changes["distill"] = {"source": f"released/{backbone}-{suite}-ipc1"}
            assert rows["runs"][f"{suite}-{backbone}-ipc1-released"] == own | changes


@pytest.mark.parametrize("source", ENTRIES)
def test_the_published_files_are_sets_of_their_rows(source):
    root = outside("SETS_DIR", "sets")
    entry = ENTRIES[source]
    classes = 100 if entry.dataset == "cifar100" else 10
    real = LabelledImages(torch.zeros(classes, 3, 32, 32), torch.arange(classes), classes)
    folder = root / source.removeprefix("released/")
    problem = Problem(real, None, ipc=entry.ipc, mdt=0, reads=folder, seed=0)
    taken = read_set(problem, entry.soft_kind)
    sets = 5 if source in ("released/dc-cifar10-ipc1", "released/dsa-cifar10-ipc1") else 1
    assert len(taken.images) == len(taken.labels) == sets * classes * entry.ipc
    assert images_of_a_class(problem) == entry.ipc
    assert (taken.targets is not None) == (entry.soft_kind is not None)
    assert (taken.step_size is not None) == (entry.method == "datm")


def test_an_edit_of_the_list_re_runs_rows_of_files_and_no_others(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    before = code.lists(tmp_path)
    with (tmp_path / "stages/images/released.yaml").open("a") as file:
        file.write("\n# edited\n")
    after = code.lists(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"distill/file", "check"}


# The tool


@pytest.fixture
def two_whitenings(tmp_path, monkeypatch) -> Path:
    """A project with the same images whitened, and turned before that, and a set of the former."""
    suite = project.suite()
    right = suite["datasets"]["shapes"]
    wrong = right | {"images": right["images"] | {"quarter_turns": 1}}
    suite["datasets"] = {"shapes": right, "shapes-wrong": wrong}
    for kind in ("buffers", "runs", "architectures", "reach", "choices", "svd", "features"):
        suite[kind] = {}
    monkeypatch.chdir(make_project(tmp_path / "project", suites={"shapes": suite}))
    for name in suite["datasets"]:
        run("prepare", name)
        Path(f"data/prepare/{name}/test.safetensors").unlink()
    real = load_split(Path("data/prepare/shapes"), "train")
    rows = torch.cat([torch.nonzero(real.labels == label).flatten()[:6] for label in range(3)])
    folder = Path("mine")
    folder.mkdir()
    torch.save(real.images[rows], folder / FILES[0])
    torch.save(real.labels[rows], folder / FILES[1])
    return folder


WORDS = ("--dataset", "shapes-wrong", "--against", "shapes", "--epochs", "60", "--lr", "0.05", "--no-augment")


def test_networks_do_best_on_images_of_the_right_whitening(two_whitenings, capsys):
    """No test image is read: the files are not there."""
    whitening.main(str(two_whitenings), *WORDS)
    title, wrong, right = capsys.readouterr().out.splitlines()
    assert str(two_whitenings) in title
    assert wrong.split()[0] == "shapes-wrong" and right.split()[0] == "shapes"
    assert len(wrong.split()) == len(right.split()) == 3  # two networks
    for of_wrong, of_right in zip(wrong.split()[1:], right.split()[1:]):
        assert float(of_right) > 90 and float(of_right) > float(of_wrong) + 10
    assert not list(Path("scratch").glob("whitening-*"))


def test_the_published_accuracy_stands_beside(two_whitenings, listed, published, capsys):
    shutil.copytree(published, own_folder())
    whitening.main(SOURCE, *WORDS, "--networks", "1")
    *_, last = capsys.readouterr().out.splitlines()
    assert last.split(maxsplit=2) == ["published", "50.0", "(on test images; a paper)"]


@pytest.mark.parametrize("option", ["--networks", "--epochs", "--images"])
def test_none_of_what_is_counted_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        whitening.main(SOURCE, *WORDS, option, "0")
    assert f"argument {option}: 0; allowed: 1 or more" in capsys.readouterr().err


def test_a_data_set_that_is_not_prepared_is_named(two_whitenings):
    shutil.rmtree("data/prepare/shapes")
    with pytest.raises(
        UserError, match="data/prepare/shapes is not there yet; python -m stages.prepare shapes"
    ):
        whitening.main(str(two_whitenings), *WORDS)


def test_a_step_size_of_nothing_is_refused(two_whitenings):
    with pytest.raises(UserError, match="whitening: lr: 0.0 is not allowed"):
        whitening.main(str(two_whitenings), *WORDS, "--lr", "0")
