"""Two clones share results through a DVC remote: a folder, or S3, which moto serves on this machine."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest
import yaml
from project import PARAMS, copy_code, make_project, run, run_all, suite

from stages.runtime.checksums import DamagedError
from stages.runtime.files import read_result

NAME = "shapes-mtt-ipc2"
ROWS = (NAME, "shapes-random-ipc1")
WEIGHTS = f"data/train/{NAME}/weights.safetensors"
CURVE = f"data/distill/{NAME}/curve.csv"
RESULTS = f"data/evaluate/{NAME}.json"
TABLES = ("reports/tables", "reports/README.md")

# Made-up keys, so that no account of the user is used, and no look-up of one elsewhere.
KEYS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}
AUTHOR = {f"GIT_{role}_{key}": "nobody" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages' `python` is this one


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command in a clone, with DVC's list of what a remote has in the folder beside it."""
    own = {"PATH": PATH, "DVC_SITE_CACHE_DIR": str(folder.parent / "site")}
    environment = os.environ | AUTHOR | own
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)


def output(folder: Path, *words: str) -> str:
    """What a command printed that went well."""
    done = command(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(folder: Path, *words: str) -> str:
    return output(folder, sys.executable, "-m", "dvc", *words)


def failing_pull(folder: Path) -> str:
    """The errors of a `dvc pull` that fails."""
    done = command(folder, sys.executable, "-m", "dvc", "pull")
    assert done.returncode != 0, done.stdout
    return done.stderr


# A project, and its remote


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project in git and DVC, in which every stage of dvc.yaml has run."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    values = suite()
    for kind in ("architectures", "features", "reach", "choices", "svd"):
        values[kind] = {}
    del values["datasets"]["shapes-turned"]
    values["runs"] = {name: values["runs"][name] for name in ROWS}
    params = PARAMS | {"train": PARAMS["train"] | {"losses": ["cross_entropy"]}}
    folder = make_project(tmp_path_factory.mktemp("finished"), params, {"shapes": values})
    copy_code(folder)
    with contextlib.chdir(folder):
        run("check")
        run("code")
        run_all(values)
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / "scratch/half").write_text("work that is not finished")
    output(folder, "git", "init", "-q")
    dvc(folder, "init", "-q")
    dvc(folder, "commit", "-q", "-f")
    save(folder)
    return folder


def save(folder: Path) -> None:
    """Commit everything to git."""
    output(folder, "git", "add", "-A")
    output(folder, "git", "commit", "-q", "-m", "as it is")


class Shared(NamedTuple):
    """A clone that has pushed its results, and the remote that they are in."""

    clone: Path
    url: str
    files: fsspec.AbstractFileSystem  # of a disk or of S3

    def object(self, md5: str) -> str:
        return f"{self.url}/files/md5/{md5[:2]}/{md5[2:]}"

    def objects(self) -> set[str]:
        """The MD5 of everything that was pushed, which DVC names it by."""
        names = set()
        for path in self.files.find(self.url):
            first, rest = path.split("/")[-2:]
            names.add(first + rest)
        return names

    @contextlib.contextmanager
    def damaged(self, changes: dict[str, Callable[[bytes], bytes | None]]) -> Iterator[None]:
        """Change some objects, and put them back at the end.

        Args:
            changes: by MD5, a function of the contents; None is returned for what has to go.
        """
        whole = {self.object(md5): self.files.cat_file(self.object(md5)) for md5 in changes}
        for path, change in zip(whole, changes.values()):
            self.put(path, change(whole[path]))
        try:
            yield
        finally:
            for path, contents in whole.items():
                self.put(path, contents)

    def put(self, path: str, contents: bytes | None) -> None:
        if self.files.exists(path):
            self.files.rm_file(path)
        if contents is not None:
            self.files.pipe_file(path, contents)

    def second_clone(self, folder: Path) -> Path:
        """A clone of the clone, without its results."""
        output(self.clone, "git", "clone", "-q", ".", str(folder / "second"))
        return folder / "second"


@pytest.fixture(scope="module", params=["folder", "s3"])
def shared(request, finished, tmp_path_factory) -> Iterator[Shared]:
    """A clone after the commands of docs/sharing.md."""
    clone = tmp_path_factory.mktemp(request.param) / "first"
    shutil.copytree(finished, clone)
    with contextlib.ExitStack() as stack:
        if request.param == "s3":
            files, url = stack.enter_context(bucket(clone.parent))
        else:
            files, url = fsspec.filesystem("file"), str(clone.parent / "remote")
        dvc(clone, "remote", "add", "-d", "shared", url)
        dvc(clone, "remote", "modify", "shared", "verify", "true")
        if request.param == "s3":
            dvc(clone, "remote", "modify", "shared", "endpointurl", files.endpoint_url)
        save(clone)
        dvc(clone, "push")
        yield Shared(clone, url, files)


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    """An empty bucket of S3 on a free port of this machine, for an account that does not exist.

    Args:
        folder: where an empty file stands for the user's own settings of S3.
    """
    pytest.importorskip("dvc_s3", reason="S3 needs the package dvc-s3: `uv sync --extra s3`")
    server = pytest.importorskip("moto.server", reason="S3 is tried with the package moto[server]")
    (folder / "no-account").touch()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(folder / "no-account"))
        running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        files = fsspec.filesystem("s3", endpoint_url=f"http://{host}:{port}", use_listings_cache=False)
        files.mkdir("calibration")
        try:
            yield files, "s3://calibration/project"
        finally:
            running.stop()


# Damage


def flipped(contents: bytes) -> bytes:
    """One bit is another one."""
    changed = bytearray(contents)
    changed[len(contents) // 2] ^= 1
    return bytes(changed)


def truncated(contents: bytes) -> bytes:
    return contents[: len(contents) // 2]


def missing(contents: bytes) -> None:
    return None


def another_number(contents: bytes) -> bytes:
    """The last digit of the first number is another digit, so that the JSON stays one that can be read."""
    changed = bytearray(contents)
    changed[contents.index(b"0.") + 2] ^= 1
    return bytes(changed)


def other_files(contents: bytes) -> bytes:
    """DVC's list of a folder, in which two files have each other's contents."""
    entries = json.loads(contents)
    entries[0]["md5"], entries[1]["md5"] = entries[1]["md5"], entries[0]["md5"]
    return json.dumps(entries).encode()


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def outputs(clone: Path) -> dict[str, str]:
    """The MD5 of every output in dvc.lock that DVC keeps, by its path; of a folder it is that of its list."""
    kept = {}
    for stage in yaml.safe_load((clone / "dvc.lock").read_text())["stages"].values():
        for entry in stage["outs"]:
            if entry["path"].startswith("data/"):
                kept[entry["path"]] = entry["md5"]
    return kept


def files_below(clone: Path, top: str) -> list[str]:
    return [str(path.relative_to(clone)) for path in sorted((clone / top).rglob("*")) if path.is_file()]


def set_locally(clone: Path, key: str, value: str) -> None:
    """What `dvc remote modify --local shared <key> <value>` writes."""
    (clone / ".dvc/config.local").write_text(f"['remote \"shared\"']\n    {key} = {value}\n")


def assert_nothing_wrong_is_served(shared: Shared, second: Path) -> None:
    """Every file of results is equal to that of the first clone, or is not there, and git sees no change."""
    for path in files_below(second, "data"):
        assert (second / path).read_bytes() == (shared.clone / path).read_bytes(), path
    assert output(second, "git", "status", "--short") == ""


# Tests


def test_a_second_clone_has_every_result_and_makes_the_same_tables(shared, tmp_path):
    """The tables are deleted first, so that they are not those of git. No other stage than `report` runs."""
    second = shared.second_clone(tmp_path)
    assert not (second / WEIGHTS).exists()
    dvc(second, "pull")
    shutil.rmtree(second / "reports/tables")
    printed = dvc(second, "repro")
    assert printed.count("Running stage") == 1 and "Running stage 'report'" in printed
    assert files_below(second, "reports/tables") == files_below(shared.clone, "reports/tables")
    assert files_below(second, "data") == files_below(shared.clone, "data")
    assert_nothing_wrong_is_served(shared, second)


def test_outputs_are_pushed_and_nothing_else(shared):
    """No unfinished work, and nothing that git has."""
    lists = set(outputs(shared.clone).values())
    files = set()
    for path in files_below(shared.clone, "data"):
        if path != "data/nothing":
            files.add(md5_of(shared.clone / path))
    single = {md5 for md5 in lists if not md5.endswith(".dir")}
    assert len(lists) > 10 and single < files
    assert shared.objects() == lists | files
    assert md5_of(shared.clone / "scratch/half") not in shared.objects()


def test_damaged_objects_are_not_taken_and_are_named(shared, tmp_path):
    second = shared.second_clone(tmp_path)
    changes = {WEIGHTS: flipped, CURVE: truncated, RESULTS: another_number}
    with shared.damaged({md5_of(shared.clone / path): change for path, change in changes.items()}):
        said = failing_pull(second)
    for out in (f"data/train/{NAME}", CURVE, "data/evaluate"):
        assert out in said.splitlines()
    listed = dvc(second, "data", "status", "--granular").split("DVC uncommitted changes")[0]
    for path in changes:
        assert path in listed.split()
    assert f"data/train/{ROWS[1]}/weights.safetensors" not in listed
    assert_nothing_wrong_is_served(shared, second)


def test_a_missing_object_is_named(shared, tmp_path):
    second = shared.second_clone(tmp_path)
    md5 = md5_of(shared.clone / WEIGHTS)
    with shared.damaged({md5: missing}):
        assert md5 in failing_pull(second)
        listed = dvc(second, "data", "status", "--granular", "--not-in-remote")
    not_in_remote = listed.split("Not in remote")[1].split("\n\n")[0]
    assert [word for word in not_in_remote.split() if word.startswith("data/")] == [WEIGHTS]
    assert_nothing_wrong_is_served(shared, second)


@pytest.mark.parametrize("shared", ["folder"], indirect=True)
def test_what_dvc_pull_takes_is_seen_by_dvc_status_or_by_a_checksum(shared, tmp_path):
    """DVC hashes no list of a folder when it pulls, and without `verify` no file either."""
    second = shared.second_clone(tmp_path)
    set_locally(second, "verify", "false")
    changes = {
        md5_of(shared.clone / RESULTS): another_number,
        outputs(shared.clone)["data/ablate"]: other_files,
    }
    with shared.damaged(changes):
        dvc(second, "pull")
    status = dvc(second, "status")
    assert "modified:           data/ablate" in status and "modified:           data/evaluate" not in status
    assert (second / RESULTS).read_bytes() != (shared.clone / RESULTS).read_bytes()
    with contextlib.chdir(second):
        assert json.loads(Path(RESULTS).read_text())
        with pytest.raises(DamagedError, match=RESULTS):
            read_result(Path(RESULTS))
        with pytest.raises(DamagedError, match="data/(ablate|evaluate)/"):
            run("report")
    assert output(second, "git", "status", "--short", *TABLES) == ""


@pytest.mark.parametrize("shared", ["folder"], indirect=True)
def test_a_damaged_remote_is_replaced_by_a_push_to_another_place(shared, tmp_path):
    """A second push to the same place brings nothing back, because DVC does not look into a folder again."""
    second = shared.second_clone(tmp_path)
    changes = {md5_of(shared.clone / WEIGHTS): missing, md5_of(shared.clone / RESULTS): flipped}
    with shared.damaged(changes):
        assert "up to date" in dvc(shared.clone, "push")
        failing_pull(second)
        for clone in (shared.clone, second):
            set_locally(clone, "url", f"{shared.url}-2")
        dvc(shared.clone, "push")
        dvc(second, "pull")
    (shared.clone / ".dvc/config.local").unlink()
    assert files_below(second, "data") == files_below(shared.clone, "data")
    assert_nothing_wrong_is_served(shared, second)
