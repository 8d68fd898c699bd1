"""dvc.yaml against the code, the code against its style, and committed results against the committed code."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from project import FOR_ALL_ROWS, ROOT, make_project, markdown_rows, run, suite
from safetensors.numpy import load_file

from stages import code
from stages.reporting.main_readme import BEGIN, END
from stages.settings import project as settings

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = DVC["stages"]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages' `python` is this one
WITHOUT_CODE = ("check", "code")  # these two depend on all of stages/


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def modules(room: str) -> set[Path]:
    return set(code.modules_in(ROOT / "stages" / room))


def closure(names: set[Path]) -> set[Path]:
    return code.closure(ROOT, list(names))


def stage_file(stage: str) -> Path:
    return ROOT / "stages" / f"{stage}.py"


def dvc(folder: Path, *words: str) -> str:
    """The output of a dvc command in a folder."""
    command = [sys.executable, "-m", "dvc", *words]
    environment = os.environ | {"PATH": PATH}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What stages depend on


def test_the_files_of_stages_are_the_stages_of_the_pipeline():
    assert {file.stem for file in modules("")} == STAGES.keys()
    for stage in STAGES:
        assert body(stage)["cmd"].split()[:3] == ["python", "-m", f"stages.{stage}"]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in WITHOUT_CODE])
def test_a_stage_depends_on_its_list_of_modules(stage):
    named = "distill/${item.backbone}" if stage == "distill" else stage
    dependencies = body(stage)["deps"]
    assert [path for path in dependencies if path.startswith("data/code/")] == [f"data/code/{named}.json"]
    assert not [path for path in dependencies if path.endswith(".py")]


def test_the_lists_have_every_module_that_a_stage_loads():
    """Compared with what Python has loaded after importing a stage and the methods that it finds by name.

    What `stages/__init__.py` imports is about how a process ends, and changes no result.
    """
    program = """
import importlib, json, sys
from pathlib import Path
loaded = {}
for name, more in json.loads(sys.argv[1]).items():
    for module in [module for module in sys.modules if module.startswith("stages")]:
        del sys.modules[module]
    for module in [f"stages.{name.split('/')[0]}", *more]:
        importlib.import_module(module)
    files = [sys.modules[module].__file__ for module in list(sys.modules) if module.startswith("stages.")]
    loaded[name] = [str(Path(file).relative_to(Path.cwd())) for file in files if file]
print(json.dumps(loaded))
"""
    lists = code.lists(ROOT)
    found_by_name = {"train": modules("losses"), "architectures": modules("networks")}
    asked = {}
    for name in lists:
        stage, _, backbone = name.partition("/")
        files = [f"stages.backbones.{backbone}"] if backbone else []
        files += [f"stages.{file.parent.name}.{file.stem}" for file in found_by_name.get(stage, ())]
        asked[name] = files
    command = [sys.executable, "-c", program, json.dumps(asked)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    of_every_process = {
        str(file.relative_to(ROOT)) for file in code.imports(ROOT, ROOT / "stages/__init__.py")
    }
    for name, files in json.loads(output).items():
        of_stage = {file for file in files if not file.endswith("__init__.py")}
        assert of_stage - of_every_process <= lists[name].keys(), name


def test_an_edit_re_runs_the_stages_that_import_it_and_no_others(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")

    def changed(module: str) -> set[str]:
        before = code.lists(tmp_path)
        code.imports.cache_clear()
        with (tmp_path / module).open("a") as file:
            file.write("\n# edited\n")
        after = code.lists(tmp_path)
        return {name for name in after if after[name] != before.get(name)}

    unrolled = {f"distill/{backbone}" for backbone in ("mtt", "rtp", "dc", "dsa")}
    assert changed("stages/distillation/unroll.py") - {"check"} == unrolled
    assert changed("stages/reporting/page.py") == {"report"}
    assert changed("stages/losses/focal.py") == {"train", "choices"}
    assert changed("stages/calibrators/early_stopped.py") == {"calibrate", "ablate", "choices"}
    everything = changed("stages/runtime/errors.py")
    assert STAGES.keys() - set(WITHOUT_CODE) - everything == {"distill"} and "distill/dc" in everything


def test_a_changed_row_re_runs_that_row_alone_in_every_expensive_stage(tmp_path):
    """`dvc status` before and after one key of one row is changed, and one row added."""
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("suites", "stages", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name)
    dvc(tmp_path, "init", "--no-scm", "-q")
    unchanged = with_other_params(tmp_path)
    path = tmp_path / "suites/digits.yaml"
    values = yaml.safe_load(path.read_text())
    values["runs"]["digits-dc-ipc1"]["epochs"] = 7
    values["runs"]["digits-new-ipc2"] = values["runs"]["digits-dc-ipc1"] | {"ipc": 2}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = with_other_params(tmp_path) - unchanged
    assert changed == {"train@digits-dc-ipc1", "distill@digits-new-ipc2", "train@digits-new-ipc2"}


def with_other_params(folder: Path) -> set[str]:
    """The stages whose settings are not those of dvc.lock."""
    names = set()
    for stage, changes in json.loads(dvc(folder, "status", "--json")).items():
        for change in changes:
            states = change.get("changed deps", {}) if isinstance(change, dict) else {}
            if any(path.endswith(".yaml") and state != "deleted" for path, state in states.items()):
                names.add(stage)
    return names


def affected_by(section: str) -> set[str]:
    """The stages that depend on a key of this section of params.yaml, and all stages that follow them."""
    affected = set()
    for stage in STAGES:
        keys = [entry for entry in body(stage).get("params", []) if isinstance(entry, str)]
        if any(key.split(".")[0] == section for key in keys):
            affected.add(stage)
    while True:
        outputs = [folder for stage in affected for folder in outs(stage)]
        following = {stage for stage in STAGES if any(needs(stage, folder) for folder in outputs)}
        if following <= affected:
            return affected
        affected |= following


def outs(stage: str) -> list[str]:
    """The outputs of a stage, up to what differs from one of its entries to the next."""
    entries = [*body(stage).get("outs", []), *body(stage).get("metrics", [])]
    paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [path.split("/${")[0] for path in paths]


def needs(stage: str, folder: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for path in body(stage)["deps"])


def test_a_change_of_the_shipped_temperatures_settings_makes_no_set_and_no_network_again():
    """It re-runs the stage `temperature` and what shows it."""
    affected = affected_by("temperature")
    assert {"temperature", "architectures", "report"} <= affected
    kept = {"prepare", "buffer", "distill", "train", "masked", "calibrate", "svd", "features"}
    assert not affected & kept
    assert {"train", "masked", "evaluate", "report"} <= affected_by("train"), "the same search finds these"


# Which settings stages read


class Recorded(dict):
    """Settings that note the way to every key that is looked up in them."""

    def __init__(self, values: dict, way: tuple, noted: set):
        super().__init__(values)
        self.way, self.noted = way, noted

    def __getitem__(self, key):
        value = super().__getitem__(key)
        way = (*self.way, key)
        self.noted.add(way)
        return Recorded(value, way, self.noted) if isinstance(value, dict) else value

    def get(self, key, default=None):
        if key not in self:
            return default
        return self[key]


def test_stages_read_the_settings_that_they_depend_on(tmp_path, monkeypatch):
    """Every stage reads all the keys that dvc.yaml lists for it, and no other key."""
    monkeypatch.chdir(make_project(tmp_path))
    noted: set[tuple] = set()
    read_yaml = settings.read_yaml

    def recorded(path: Path) -> dict:
        values = read_yaml(path)
        return values if path.name == "dvc.yaml" else Recorded(values, (path.name,), noted)

    monkeypatch.setattr(settings, "read_yaml", recorded)
    for stage in ("calibrate", "evaluate", "ablate", "features"):  # what a forked process reads is not noted
        monkeypatch.setattr(
            f"stages.{stage}.on_all_cores", lambda function, items: [function(i) for i in items]
        )
    values = suite()
    order = ["prepare", "buffer", "distill", "train", *FOR_ALL_ROWS]
    for stage in order:
        kind = STAGES[stage]["foreach"].strip("${}") if "foreach" in STAGES[stage] else None
        for name in values[kind] if kind else [None]:
            noted.clear()
            run(stage, *([name] if name else []))
            # Dictionaries on the way to a key are no keys that were read.
            keys = {way for way in noted if not any(way == other[: len(way)] != other for other in noted)}
            item = values[kind][name] if kind else {}
            compare(stage, name, keys, item, kind)


def compare(stage: str, name: str | None, keys: set[tuple], item: dict, kind: str | None) -> None:
    listed = {way for entry in body(stage).get("params", []) for way in ways(entry, name, item)}
    execution = {("params.yaml", "device"), ("params.yaml", "data_root")}
    in_paths = {
        ("shapes.yaml", kind, name, key) for key in re.findall(r"\$\{item\.(\w+)\}", str(body(stage)))
    }
    in_paths |= {("shapes.yaml", "runs", name, key) for _, _, _, key in in_paths}
    for way in keys - execution - in_paths:
        if way[0] == "shapes.yaml" and "suites" in body(stage)["deps"]:
            continue
        assert any(way[: len(other)] == other for other in listed), f"{stage} reads {way}"
    for other in listed:
        assert any(way[: len(other)] == other for way in keys), f"{stage} does not read {other}"


def ways(entry, name: str | None, item: dict) -> list[tuple]:
    """The keys of an entry of `params`, e.g. ("shapes.yaml", "runs", "shapes-mtt-ipc2", "epochs")."""
    if isinstance(entry, str):
        return [("params.yaml", *entry.split("."))]
    (keys,) = entry.values()
    found = []
    for key in keys:
        filled = key.replace("${key}", str(name)).replace("${item.dataset}", item.get("dataset", ""))
        found.append(("shapes.yaml", *filled.split(".")))
    return found


def test_execution_settings_are_no_parameters():
    text = (ROOT / "dvc.yaml").read_text()
    assert "- device" not in text and "data_root" not in text


# What stages import and read


@pytest.mark.parametrize(
    "stage", ["check", "code", "masked", "calibrate", "evaluate", "ablate", "pictures", "analyses", "report"]
)
def test_stages_that_need_no_torch_do_not_import_it(stage):
    program = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_checking_the_settings_takes_no_torch():
    program = """
import sys
from stages.check import check, listed_suites
check(listed_suites())
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_report_imports_no_training_code():
    training = modules("training") | modules("losses") | {stage_file("train"), stage_file("distill")}
    assert not closure({stage_file("report")}) & training


def test_rooms_import_each_other_in_one_direction_only():
    above: dict[str, set[str]] = {}
    for file in (ROOT / "stages").glob("*/*.py"):
        for other in code.imports(ROOT, file):
            if other.parent not in (file.parent, ROOT / "stages"):
                above.setdefault(file.parent.name, set()).add(other.parent.name)
        assert not [other for other in code.imports(ROOT, file) if other.parent == ROOT / "stages"], file
    done: set[str] = set()
    while waiting := above.keys() - done:
        lowest = {room for room in waiting if not (above[room] & waiting)}
        assert lowest, f"rooms that import each other: {sorted(waiting)}"
        done |= lowest


def names_of_test_data(modules_reached: set[Path]) -> set[str]:
    """What a set of modules names of test data: the split, its file, or the test logits of a row."""
    names = set()
    for module in modules_reached:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and node.value in ("test", "test.safetensors"):
                names.add(f"{module.stem}: {node.value}")
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "row.logits":
                names.add(f"{module.stem}: row.logits")
    return names


@pytest.mark.parametrize("stage", ["buffer", "distill", "masked", "calibrate", "temperature"])
def test_what_makes_sets_networks_and_temperatures_names_no_test_data(stage):
    reached = closure({stage_file(stage)} | modules("backbones") | modules("calibrators"))
    assert len(reached) > 30 and not names_of_test_data(reached)


def test_what_is_judged_on_test_data_names_it():
    """The same search finds test data where they are read, so it would find them elsewhere."""
    assert "repeats: test" in names_of_test_data(closure({stage_file("train")}))
    assert "evaluate: row.logits" in names_of_test_data(closure({stage_file("evaluate")}))


def test_a_temperature_needs_neither_images_nor_networks():
    for dependency in ("data/prepare", "data/distill", "data/train"):
        assert dependency not in STAGES["calibrate"]["deps"]


# What is committed


def test_committed_results_belong_to_the_committed_code():
    """`dvc status` finds nothing changed but what a fresh clone does not have."""
    if not (ROOT / "dvc.lock").exists() or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout with a dvc.lock")
    changed = []
    for stage, changes in json.loads(dvc(ROOT, "status", "--json")).items():
        for change in changes:
            groups = change.values() if isinstance(change, dict) else [{stage: change}]
            for files in groups:
                states = files.items() if isinstance(files, dict) else [(stage, files)]
                changed += [f"{stage}: {path} {state}" for path, state in states if not absent(path, state)]
    assert not changed


def absent(path: str, state) -> bool:
    """Whether the state is that of a file below data/ which a fresh clone does not have."""
    return state in ("deleted", "not in cache") and path.startswith("data/")


def test_the_readmes_table_has_the_committed_numbers():
    section = (ROOT / "README.md").read_text().split("## What was found")[1].split("\n## ")[0]
    section = section.split("\n![")[1]  # below the figure
    committed = {}
    for table in ("table1", "table5"):
        committed |= markdown_rows((ROOT / f"reports/tables/{table}.md").read_text())
    shown = markdown_rows(section)
    assert len(shown) >= 5
    for name, cells in shown.items():
        assert cells == {column: committed[name][column] for column in cells}


def test_the_readmes_backbone_is_one_file_and_one_row(tmp_path):
    """Both blocks of "Add a backbone" in a copy of the project give a line of Table 5 by one command.

    The copy's rows are trained for 20 epochs.
    """
    section = (ROOT / "README.md").read_text().split("## Add a backbone")[1].split("\n## ")[0]
    blocks = re.findall(r"\n\n((?:    .*\n|\n)+)", section)
    program, row = (textwrap.dedent(block) for block in blocks)
    (tmp_path / "data").mkdir()
    results = [file.parent.relative_to(ROOT) for file in (ROOT / "reports").glob("*/metrics.json")]
    for name in ("stages", "suites", "reports/benchmarks", *results):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("data/nothing", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "stages/backbones/means.py").write_text(program)
    path = tmp_path / "suites/digits.yaml"
    text = path.read_text().replace("epochs: 300 ", "epochs: 20 ")
    end_of_rows = "\narchitectures:"
    path.write_text(text.replace(end_of_rows, "\n" + textwrap.indent(row, "  ") + end_of_rows))
    dvc(tmp_path, "init", "--no-scm", "-q")
    environment = os.environ | {"PATH": PATH}
    command = [sys.executable, "-m", "stages.tools.row", "digits-means-ipc1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data/distill/digits-means-ipc1"
    lines = (folder / "curve.csv").read_text().split()[1:]
    losses = [float(line.split(",")[1]) for line in lines]
    assert load_file(folder / "set.safetensors")["images"].shape == (10, 1, 8, 8)
    assert len(losses) == 100 and sum(losses[-10:]) < 0.7 * sum(losses[:10])
    lines = markdown_rows((tmp_path / "reports/tables/table5.md").read_text())
    assert lines["digits-means-ipc1"]["MTS"] not in ("missing", "-")
    assert lines["digits-mtt-ipc1"]["MTS"] == "missing"
    assert (tmp_path / "reports/metrics/digits-means-ipc1.json").exists()


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "    pip install uv && uv run dvc repro\n" in readme
    assert "    pip install uv && uv run pytest -n auto\n" in readme
    written = readme.split(BEGIN)[1].split(END)[0]
    assert len(readme.splitlines()) - len(written.splitlines()) <= 135, "a newcomer reads it in one go"


def git_files() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()


def test_nothing_of_one_machine_is_committed():
    files = git_files()
    assert "uv.lock" not in files
    assert not [file for file in files if file.endswith((".pt", ".pkl", ".pickle", ".npy"))]


# The style of the code


@pytest.mark.parametrize("words", [["format", "--check"], ["check"]])
def test_the_code_is_formatted_and_linted(words):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_types_are_right():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_functions_are_short_and_take_few_arguments():
    """At most 45 lines and 6 arguments, `self` aside."""
    for file in (ROOT / "stages").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
                where = f"{file.relative_to(ROOT)}: {node.name}"
                assert len(arguments) <= 6, where
                assert node.end_lineno - node.lineno < 45, where
