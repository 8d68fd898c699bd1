"""Units of work as tasks of Ray: equal results, a machine that is lost, mistakes, and ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from conftest import ROOT
from filelock import FileLock
from project import copy_of, make_project, row, run, suite

ray = pytest.importorskip("ray", reason="Ray is not installed; `uv sync --extra ray` does it")

from ray import cloudpickle  # noqa: E402, where Ray is missing, nothing below can be imported
from ray.cluster_utils import Cluster  # noqa: E402

from stages import buffer  # noqa: E402
from stages.machine.cluster import parts, run_task, write_files  # noqa: E402
from stages.machine.device import pick_device  # noqa: E402
from stages.machine.engine import Unit  # noqa: E402
from stages.runtime.errors import UserError  # noqa: E402

TRAJECTORIES = Path("data/buffer/shapes/trajectories.safetensors")
ROW = "shapes-random-ipc1"
NO_DASHBOARD = {"num_cpus": 1, "include_dashboard": False}
NICENESS = "RAY_worker_niceness"  # a setting of Ray
DEADLINE = 120  # seconds that a test waits for another process; far more than it takes


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose buffer and networks have been made without Ray."""
    folder = tmp_path_factory.mktemp("finished")
    values = suite()
    values["buffers"]["shapes"]["experts"] = 3
    values["runs"][ROW]["train"] = {"repeats": 1}
    values["runs"]["too-fast"] = row(backbone="random", ipc=1, reads="nothing", distill={}, lr=1e12)
    make_project(folder, suites={"shapes": values})
    before = Path.cwd()
    os.chdir(folder)
    run("prepare", "shapes")
    run("buffer", "shapes")
    for name in (ROW, "too-fast"):
        run("distill", name)
    run("train", ROW)
    os.chdir(before)
    return folder


@pytest.fixture
def cluster():
    """A cluster of one node with one core, so that no test gets the processes of another one."""
    os.environ[NICENESS] = "0"  # or tasks wait for everything else that this machine does
    cluster = Cluster(initialize_head=True, head_node_args=NO_DASHBOARD)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del os.environ[NICENESS]


@pytest.fixture
def project(cluster, finished, tmp_path, monkeypatch):
    """A copy of the project whose units are tasks of the cluster."""
    folder = copy_of(finished, tmp_path, monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("DEVICE", "ray:0")
    yield folder
    monkeypatch.delenv("DEVICE")
    pick_device("cpu")  # later tests are for this machine


def results(folder: Path) -> dict[str, bytes]:
    """The files of the buffer and of the row's networks."""
    files = [*folder.glob("data/buffer/shapes/*"), *folder.glob(f"data/train/{ROW}/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def remove_results(folder: Path) -> None:
    for name in results(folder):
        (folder / name).unlink()


def test_experts_and_networks_are_equal_to_those_of_this_machine(project, finished):
    remove_results(project)
    run("buffer", "shapes")
    run("train", ROW)
    assert results(project) == results(finished)
    assert not list(Path("scratch").glob("buffer-*")) and not list(Path("scratch").glob("train-*"))


def test_a_mistake_in_a_task_is_the_users_one_line(project):
    with pytest.raises(UserError, match="^too-fast: .* not finite; set a smaller runs.too-fast.lr\n"):
        run("train", "too-fast")


def test_gpus_that_the_cluster_does_not_have(project, monkeypatch):
    TRAJECTORIES.unlink()
    monkeypatch.setenv("DEVICE", "ray:0.5")
    with pytest.raises(UserError, match="'ray:0.5' needs a GPU, and the cluster has none; allowed: ray"):
        run("buffer", "shapes")


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tasks have no code of the tests


@dataclass(frozen=True)
class Watched(buffer.Experts):
    """Experts that note where they run, and never end on one node."""

    notes: Path = Path()
    doomed: str = ""

    def run(self, experts: list[int]) -> None:
        node = ray.get_runtime_context().get_node_id()
        left_behind = self.folder / "checkpoint"
        with self.notes.open("a") as file:
            file.write(f"{experts[0]} {node} {left_behind.exists()}\n")
        if node == self.doomed:
            left_behind.touch()
            time.sleep(DEADLINE)
        wait_for(lambda: self.doomed in self.notes.read_text())  # so that no node gets all units
        left_behind.unlink(missing_ok=True)
        super().run(experts)


def wait_for(condition) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_a_unit_whose_node_is_lost_runs_again_elsewhere(project, finished, cluster, tmp_path, monkeypatch):
    """The second node is killed while one of three experts runs there; all end, and are what they were."""
    TRAJECTORIES.unlink()
    node = cluster.add_node(**NO_DASHBOARD)
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setattr(buffer, "Experts", partial(Watched, notes=notes, doomed=node.node_id))

    def kill_the_node():
        wait_for(lambda: node.node_id in notes.read_text())
        cluster.remove_node(node, allow_graceful=False)

    killer = Thread(target=kill_the_node)
    killer.start()
    run("buffer", "shapes")
    killer.join()
    assert results(project) == results(finished)
    runs = [note.split() for note in notes.read_text().splitlines()]
    (lost,) = [unit for unit, where, _ in runs if where == node.node_id]
    again = [found for unit, where, found in runs if unit == lost and where != node.node_id]
    assert again == ["True"]  # once, and it has found what the lost task had left
    assert sorted(unit for unit, *_ in runs) == sorted(["0", "1", "2", lost])


# Without the cluster


UNIT = Unit(operations=1e9, bytes=100)


class Writing:
    """Work whose units leave a file each."""

    folder = Path("scratch/work")

    def on(self, device):
        return self

    def run(self, units):
        self.folder.mkdir(parents=True, exist_ok=True)
        for unit in units:
            (self.folder / f"{unit}.txt").write_text(f"unit {unit}")


def test_a_machine_without_the_folder_of_the_work_sends_its_files_and_keeps_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = run_task._function(Writing(), [3, 4], UNIT, 0.0, tmp_path / "absent" / "task")
    assert files == {"3.txt": b"unit 3", "4.txt": b"unit 4"}
    assert not list(tmp_path.iterdir())
    write_files(tmp_path / "here", files)
    assert (tmp_path / "here/3.txt").read_text() == "unit 3"


def test_a_task_needs_no_working_folder_and_leaves_one_that_exists(tmp_path, monkeypatch):
    """Ray deletes folders that its processes were started in."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    files = run_task._function(Writing(), [3], UNIT, 0.0, tmp_path / "absent" / "task")
    assert files == {"3.txt": b"unit 3"}
    assert Path.cwd().exists()


@pytest.mark.parametrize("share, sizes", [(1.0, [4, 2]), (0.5, [2, 2, 2]), (0.1, [1] * 6)])
def test_a_task_takes_as_many_units_at_a_time_as_its_share_of_the_memory_holds(
    share, sizes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.machine.engine.planned_memory", lambda device: 4.5 * UNIT.bytes)
    monkeypatch.setattr("stages.machine.cluster.set_up", lambda device: None)  # there is no GPU
    work = Writing()
    calls = []
    monkeypatch.setattr(work, "run", calls.append)
    run_task._function(work, list(range(6)), UNIT, share, tmp_path / "absent" / "task")
    assert [len(units) for units in calls] == sizes


@pytest.mark.parametrize(
    "gpus, share, operations, sizes",
    [
        (0, 0.0, 1e9, [1] * 10),  # a CPU has one unit at a time
        (2, 1.0, 1e9, [5, 5]),
        (2, 0.5, 1e9, [3, 3, 3, 1]),
        (2, 1.0, 1e12, [2] * 5),  # two units fill a GPU
        (100, 1.0, 1e9, [1] * 10),
    ],
)
def test_units_are_spread_over_all_gpus(gpus, share, operations, sizes, monkeypatch):
    monkeypatch.setattr("stages.machine.cluster.gpus", lambda: gpus)
    lists = parts(list(range(10)), operations, share)
    assert [len(part) for part in lists] == sizes
    assert sum(lists, []) == list(range(10))


# A cluster that a stage starts itself


def processes_in(folder: Path) -> list[str]:
    """The processes whose working directory is below a folder (Linux)."""
    inside = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if Path(os.readlink(link)).is_relative_to(folder):
                inside.append(link.parent.name)
    return inside


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc of Linux")
def test_ctrl_c_ends_the_tasks_and_frees_the_lock(finished, tmp_path, monkeypatch):
    folder = copy_of(finished, tmp_path, monkeypatch)
    settings = Path("suites/shapes.yaml")
    endless = settings.read_text().replace("epochs: 3\n", "epochs: 1000000\n")  # the buffer's
    settings.write_text(endless)
    environment = os.environ | {"DEVICE": "ray:0", "PYTHONPATH": str(ROOT), NICENESS: "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "stages.buffer", "shapes"]
    stage = subprocess.Popen(
        command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: list(folder.glob("scratch/buffer-*/task-*")) or stage.poll() is not None)
    assert stage.poll() is None, stage.stderr.read()
    os.killpg(stage.pid, signal.SIGINT)
    _, messages = stage.communicate(timeout=DEADLINE)
    assert stage.returncode == 130 and messages.startswith(
        "stopped; the next run goes on from scratch/buffer-"
    )
    own = str(os.getpid())  # this process works there too
    wait_for(lambda: processes_in(folder) == [own])
    (lock,) = folder.glob("scratch/buffer-*.lock")
    with FileLock(lock, blocking=False):
        pass
