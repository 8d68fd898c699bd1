"""A full disk, a read-only folder, too little memory, a wrong clock, ctrl-C and two runs at once.

Each ends in one line, loses nothing and leaves nothing behind, and the next run gives the same results.
Stages run as processes of their own, as they do for DVC.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from project import make_project, run, suite

ROW = "shapes-random-ipc1"
SLOW = "shapes-mtt-ipc2"
YEARS = 10 * 365 * 24 * 3600.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of Unix")

# `python -c` with this runs a stage that saves its state whenever it may.
STAGE = """
import importlib, sys
import stages.distillation.learn, stages.training.loop
from stages.runtime.errors import run_stage

stage, *words = sys.argv[1:]
main = importlib.import_module(f"stages.{stage}").main
stages.distillation.learn.CHECKPOINT_SECONDS = stages.training.loop.CHECKPOINT_SECONDS = 0
sys.argv[1:] = words
"""
RUN = STAGE + "run_stage(main)"
WITHIN_MEMORY = (
    STAGE
    + """
import resource
import tqdm
tqdm.tqdm.monitor_interval = 0  # it would warn that there is no memory for a thread of its own
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**18, used + 2**18))
run_stage(main)
"""
)
# Forked processes, with no PyTorch to wait for.
FORKED = """
import os, sys, time
from pathlib import Path
from stages.machine.cores import on_all_cores
from stages.runtime.errors import run_stage
from stages.runtime.files import replacing

def work(number):
    with replacing(Path(f"{number}.txt")) as temporary:
        temporary.write_text(str(os.getpid()))
        time.sleep(60)

run_stage(lambda: on_all_cores(work, range(20)))
"""

# The same by processes that are spawned, as those of GPUs are; they import what they do.
SPAWNED = """
import sys
sys.path.insert(0, sys.argv[1])
from slow import do_nothing_else
from stages.machine.cores import Start, in_processes
from stages.runtime.errors import run_stage

del sys.argv[1:]
run_stage(lambda: in_processes(do_nothing_else, range(20), start=Start("spawn", 2, "advice")))
"""
SLOW_MODULE = """
import os, time
from pathlib import Path
from stages.runtime.files import replacing

def work(number):
    with replacing(Path(f"{number}.txt")) as temporary:
        temporary.write_text(str(os.getpid()))
        time.sleep(60)

def do_nothing_else():
    return work
"""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
needs_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the processes of the tests have it: sums of several threads are rounded in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with experts, a distilled set, and the networks on another set: nothing was in the way."""
    folder = tmp_path_factory.mktemp("circumstances")
    values = suite()
    values["runs"] = {name: values["runs"][name] for name in (SLOW, ROW)}
    values["runs"][SLOW]["distill"]["iterations"] = 60
    values["runs"][ROW]["epochs"] = 50
    make_project(folder, suites={"shapes": values})
    before = Path.cwd()
    os.chdir(folder)
    try:
        run("prepare", "shapes")
        run("buffer", "shapes")
        run("distill", SLOW)
        run("distill", ROW)
        run("train", ROW)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(made, tmp_path) -> Path:
    """A copy of the project in which the distilled set and the networks have to be made anew."""
    folder = tmp_path / "project"
    copy_unfinished(made, folder)
    return folder


def copy_unfinished(made: Path, folder: Path) -> None:
    shutil.copytree(made, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "scratch")
    shutil.rmtree(folder / "data/distill" / SLOW)
    shutil.rmtree(folder / "data/train")


def begin(folder: Path, code: str, *words: str, before: list[str] | None = None) -> subprocess.Popen:
    """Python in a process group of its own, as a terminal starts it.

    Args:
        before: a command that starts it.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*(before or []), sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """The exit status of a process, and what it and its forked processes have said."""
    try:
        said, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def do(folder: Path, *words: str, code: str = RUN, before: list[str] | None = None) -> tuple[int, str]:
    return ended(begin(folder, code, *words, before=before))


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    """Wait until a file is there, e.g. the first checkpoint."""
    until = time.monotonic() + 60
    while not any(folder.glob(pattern)):
        assert process.poll() is None, ended(process)
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.02)


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*.*") if ".dvc" not in path.parts]


def assert_one_line(said: str, beginning: str) -> None:
    assert said.startswith(beginning)
    assert len(said.splitlines()) == 1, said


def assert_goes_on(folder: Path, made: Path, stage: str, row: str) -> None:
    """The next run ends with the bytes of the run that nothing was in the way of, and leaves no lock."""
    status, said = do(folder, stage, row)
    assert status == 0, said
    assert_same_results(folder, made, stage, row)
    assert not list((folder / "scratch").glob(f"{stage}*"))


def assert_same_results(folder: Path, made: Path, stage: str, row: str) -> None:
    results = list((made / "data" / stage / row).iterdir())
    assert results
    for result in results:
        assert (folder / "data" / stage / row / result.name).read_bytes() == result.read_bytes()
    assert not temporary_files(folder)


# ctrl-C and SIGTERM


def test_ctrl_c_twice_in_a_distillation(project, made):
    process = begin(project, RUN, "distill", SLOW)
    wait_for(project, "scratch/distill-*/state.safetensors", process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    status, said = ended(process)
    assert status == 130
    assert_one_line(said, "stopped; the next run goes on from scratch/distill-shapes-mtt-ipc2-")
    assert list(project.glob("scratch/distill-*/state.safetensors"))
    assert not temporary_files(project)
    assert_goes_on(project, made, "distill", SLOW)


@needs_cores
def test_sigterm_to_a_stage_ends_its_processes_and_the_next_run_goes_on(project, made):
    process = begin(project, RUN, "train", ROW)
    wait_for(project, "scratch/train-*/part-*.safetensors", process)
    process.terminate()
    status, said = ended(process)  # it would wait for forked processes, which have its output
    assert status == 143
    assert_one_line(said, "stopped; the next run goes on from scratch/train-")
    assert not temporary_files(project)
    assert_goes_on(project, made, "train", ROW)


@pytest.fixture(params=["fork", "spawn"])
def method(request) -> str:
    return request.param


def forked(folder: Path, method: str) -> tuple[subprocess.Popen, list[int]]:
    """A process, and the numbers of those that it has forked or spawned, each of which is writing a file."""
    if method == "fork":
        process = begin(folder, FORKED)
    else:
        modules = folder.with_name(f"{folder.name}-modules")
        modules.mkdir()
        (modules / "slow.py").write_text(SLOW_MODULE)
        process = begin(folder, SPAWNED, str(modules))
    wait_for(folder, ".0.*.txt", process)
    wait_for(folder, ".1.*.txt", process)
    numbers = [int(path.name.split(".")[2]) for path in folder.glob(".*.txt")]
    return process, numbers


def are_gone(numbers: list[int]) -> bool:
    """Whether no process of these numbers runs, within some seconds; a dead one may still be listed."""
    for _ in range(200):
        states = []
        for number in numbers:
            stat = Path(f"/proc/{number}/stat")
            with suppress(FileNotFoundError):
                states.append(stat.read_text().rpartition(")")[2].split()[0])
        if set(states) <= {"Z", "X"}:
            return True
        time.sleep(0.02)
    return False


@needs_cores
@pytest.mark.parametrize("pause", [0, 0.01, 0.1])
def test_ctrl_c_twice_is_said_once_by_all_processes_together(tmp_path, pause, method):
    process, numbers = forked(tmp_path, method)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == (130, "stopped\n")
    assert are_gone(numbers)
    assert not list(tmp_path.iterdir())


@needs_cores
def test_forked_processes_end_with_a_stage_that_is_killed(tmp_path, method):
    process, numbers = forked(tmp_path, method)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert are_gone(numbers)


@needs_cores
def test_a_forked_process_that_is_killed_for_memory_is_named(tmp_path, method):
    process, numbers = forked(tmp_path, method)
    os.kill(numbers[0], signal.SIGKILL)
    status, said = ended(process)
    assert status == 1
    assert_one_line(said, "error: a process of this stage was killed, probably because memory ran out")
    assert are_gone(numbers)


@needs_cores
def test_ctrl_c_while_a_process_is_spawned_does_not_reach_it(tmp_path):
    """It imports its modules for seconds, and would answer by a traceback; the stage answers for all."""
    modules = tmp_path / "modules"
    folder = tmp_path / "folder"
    modules.mkdir()
    folder.mkdir()
    slow_import = "import os, time\nopen(f'begun-{os.getpid()}', 'w').close()\ntime.sleep(1)\n"
    (modules / "slow.py").write_text(slow_import + SLOW_MODULE)
    process = begin(folder, SPAWNED, str(modules))
    spawned: list[int] = []
    until = time.monotonic() + 60
    while not spawned:
        assert time.monotonic() < until
        begun = [int(path.name.removeprefix("begun-")) for path in folder.glob("begun-*")]
        spawned = [number for number in begun if number != process.pid]
        time.sleep(0.01)
    os.kill(spawned[0], signal.SIGINT)
    wait_for(folder, ".0.*.txt", process)
    wait_for(folder, ".1.*.txt", process)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == (130, "stopped\n")


def test_ctrl_c_before_a_stage_has_begun_is_silent(project):
    imports = "import sys, time; sys.argv = ['-m']; import stages; print(1, flush=True); time.sleep(60)"
    process = begin(project, imports)
    assert process.stdout and process.stdout.readline() == "1\n"
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == (-signal.SIGINT, "")


# A full disk, a read-only folder, too little memory


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 16 MiB in memory; False where the system lets the tests mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    is_mounted = shutil.which("mount") is not None and not subprocess.run(command).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def stopped_at_a_checkpoint(project: Path, obstruct: Callable[[subprocess.Popen], object]) -> str:
    """What a distillation says that something gets in the way of, after its first checkpoint."""
    process = begin(project, RUN, "distill", SLOW)
    wait_for(project, "scratch/distill-*/state.safetensors", process)
    obstruct(process)
    status, said = ended(process)
    assert status == 1
    assert not temporary_files(project)
    (checkpoint,) = project.glob("scratch/distill-*/state.safetensors")
    place = checkpoint.parent.relative_to(project)
    assert said.endswith(f"; the next run goes on from {place}\n")
    return said


@needs_linux
def test_a_full_disk_keeps_the_last_checkpoint(made, tmp_path):
    """Where no disk can be mounted, a limit of the size of files stands for it."""
    project = tmp_path / "project"
    ballast = project / "ballast"

    def fill(_process: subprocess.Popen) -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(2**20)):
                pass

    def limit(process: subprocess.Popen) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))

    with small_disk(project) as is_mounted:
        copy_unfinished(made, project)
        said = stopped_at_a_checkpoint(project, fill if is_mounted else limit)
        assert_one_line(said, "error: ")
        assert ("No space left on device" if is_mounted else "File too large") in said
        ballast.unlink(missing_ok=True)
        assert_goes_on(project, made, "distill", SLOW)


def test_a_read_only_folder_is_named(project, made, monkeypatch):
    as_owner = []
    if os.geteuid() == 0:  # permissions do not bind it
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv where the tests run as root")
        as_owner = ["setpriv", "--bounding-set", "-dac_override"]
    project.chmod(0o555)
    status, said = do(project, "distill", SLOW, before=as_owner)
    project.chmod(0o755)
    assert status == 1
    assert_one_line(said, "error: [Errno 13] Permission denied: 'scratch")
    monkeypatch.chdir(project)
    run("distill", SLOW)
    assert_same_results(project, made, "distill", SLOW)


@needs_linux
def test_too_little_memory_is_said(project, made, monkeypatch):
    status, said = do(project, "distill", SLOW, code=WITHIN_MEMORY)
    assert status == 1
    assert_one_line(said, "error: not enough memory. ")
    monkeypatch.chdir(project)
    run("distill", SLOW)
    assert_same_results(project, made, "distill", SLOW)


# A clock that was set back


def test_files_from_the_future_are_as_good_as_others(project, made):
    process = begin(project, RUN, "train", ROW)
    wait_for(project, "scratch/train-*/*.safetensors", process)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    later = time.time() + YEARS
    for path in project.rglob("*"):
        os.utime(path, (later, later))
    assert_goes_on(project, made, "train", ROW)


# DVC


def test_ctrl_c_under_dvc_and_two_runs_at_once(project, made):
    """DVC ends after ctrl-C, refuses a second run, and the first one's result is as always."""
    dvc = "from dvc.cli import main; sys.exit(main({}))"
    repro = "import sys; " + dvc.format(["repro"])
    stage = {
        "cmd": f"{sys.executable} -m stages.distill {SLOW} && while [ ! -e seen ]; do sleep 0.1; done",
        "deps": ["data/prepare", "data/buffer"],
        "outs": [f"data/distill/{SLOW}/set.safetensors", f"data/distill/{SLOW}/curve.csv"],
    }
    (project / "dvc.yaml").write_text(
        yaml.safe_dump({"vars": ["suites/shapes.yaml"], "stages": {"distill": stage}})
    )
    assert do(project, code="import sys; " + dvc.format(["init", "--no-scm", "-q"]))[0] == 0

    process = begin(project, repro)
    wait_for(project, "scratch/distill-*/attempts.json", process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    status, said = ended(process)
    assert status != 0
    assert said.count("stopped; the next run goes on from scratch/distill-") == 1
    assert "Traceback" not in said

    (attempts,) = project.glob("scratch/distill-*/attempts.json")
    attempts.unlink()
    first = begin(project, repro)
    wait_for(project, "scratch/distill-*/attempts.json", first)
    status, said = do(project, code=repro)
    assert status != 0
    assert "is busy, it is being blocked by" in said
    assert "Traceback" not in said
    (project / "seen").touch()
    assert ended(first)[0] == 0
    assert_same_results(project, made, "distill", SLOW)
    status, said = do(project, code=repro)
    assert status == 0
    assert "up to date" in said
