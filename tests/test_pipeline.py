"""dvc.yaml against the code: stages depend on exactly what they import, and committed results on the committed code."""

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
from safetensors.numpy import load_file

from stages import code

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WITHOUT_CODE = ("check", "code")  # these two depend on all of stages/


def methods(folder: str) -> set[str]:
    return {str(f.relative_to(ROOT)) for f in (ROOT / folder).glob("*.py") if f.stem != "__init__"}


def closure(modules: set[str]) -> set[str]:
    return code.closure(ROOT, modules)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in WITHOUT_CODE])
def test_a_stage_depends_on_the_code_that_it_runs(stage):
    body = STAGES[stage].get("do", STAGES[stage])
    named = "distill/${item.backbone}" if stage == "distill" else stage
    assert [dep for dep in body["deps"] if dep.startswith("data/code/")] == [f"data/code/{named}.json"]
    assert not [dep for dep in body["deps"] if dep.endswith(".py")]
    assert body["cmd"].split()[:3] == ["python", "-m", f"stages.{stage}"]


def test_the_lists_have_every_module_that_a_stage_loads():
    """Held against what Python itself has loaded after importing the stage and the methods that it finds by name."""
    lists = code.lists(ROOT)
    run = """
import importlib, json, sys
from pathlib import Path
found = {}
for name, more in json.loads(sys.argv[1]).items():
    for loaded in [module for module in sys.modules if module.startswith("stages")]:
        del sys.modules[loaded]
    for module in [f"stages.{name.split('/')[0]}", *more]:
        importlib.import_module(module)
    found[name] = [str(Path(file).relative_to(Path.cwd())) for module in list(sys.modules) if module.startswith("stages.") and (file := sys.modules[module].__file__)]
print(json.dumps(found))
"""
    by_name = {"train": methods("stages/losses"), "architectures": methods("stages/networks")}
    asked = {name: [f"stages.distillers.{name.split('/')[1]}"] if "/" in name else sorted(m[:-3].replace("/", ".") for m in by_name.get(name, [])) for name in lists}
    loaded = json.loads(subprocess.run([sys.executable, "-c", run, json.dumps(asked)], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    for name, modules in loaded.items():
        modules = {module for module in modules if not module.endswith("__init__.py")}
        assert modules <= lists[name].keys(), name
        later = lists[name].keys() - modules
        assert later <= {"stages/masked.py", *closure({"stages/masked.py"})}, f"{name}: only what calibrate imports at need is not loaded at once"


def test_an_edit_re_runs_the_stages_that_import_it_and_no_others(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")

    def changed(module: str) -> set[str]:
        before = code.lists(tmp_path)
        code.imports.cache_clear()
        with (tmp_path / module).open("a") as file:
            file.write("\n# edited\n")
        after = code.lists(tmp_path)
        return {name for name in after if after[name] != before.get(name)}

    assert changed("stages/shared/unroll.py") == {f"distill/{backbone}" for backbone in ("mtt", "rtp", "dc", "dsa")}
    assert changed("stages/page.py") - {"page"} == {"report"}
    assert changed("stages/losses/focal.py") == {"train"}
    assert changed("stages/calibrators/early_stopped.py") - {"standalone", "check"} == {"calibrate", "ablate"}
    everything = changed("stages/shared/errors.py")
    assert STAGES.keys() - WITHOUT_CODE - everything == {"distill"} and "distill/dc" in everything


@pytest.mark.parametrize("stage", ["calibrate", "evaluate", "ablate", "pictures", "analyses", "report"])
def test_stages_that_need_no_torch_do_not_import_it(stage):
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_report_imports_no_training_code():
    assert not closure({"stages/report.py"}) & ({"stages/train.py", "stages/distill.py", "stages/shared/training.py"} | methods("stages/losses"))


def test_only_what_may_reads_the_test_split():
    """Walk the code of the stages that make sets, networks and temperatures, with all that it imports, for calls that read test data."""
    data = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage in ("buffer", "distill", "masked", "calibrate"):
        modules = closure({f"stages/{stage}.py"} | methods("stages/distillers") | methods("stages/calibrators"))
        readers = {module for module in modules for node in ast.walk(ast.parse((ROOT / module).read_text())) if isinstance(node, ast.Constant) and node.value in ("test", "test.safetensors")}
        assert readers <= {"stages/shared/sources.py"}, "which makes the split"
        assert not any("logits" in dep for dep in data[stage]["do"]["deps"])
    assert all("data/prepare" not in dep for dep in data["calibrate"]["do"]["deps"]), "a temperature needs no images"


def test_training_passes_test_labels_on_and_no_further():
    uses = [line.strip() for line in (ROOT / "stages/train.py").read_text().splitlines() if "test.labels" in line]
    assert uses == ['write_tensors(folder / "logits.safetensors", logits | {"labels": test.labels})']
    assert not [line for line in (ROOT / "stages/shared/repeats.py").read_text().splitlines() if "test" in line and "labels" in line]


def test_execution_settings_are_no_parameters():
    text = (ROOT / "dvc.yaml").read_text()
    assert "- device" not in text and "execution" not in text


def test_committed_results_belong_to_the_committed_code():
    """`dvc status` finds nothing changed: what is absent (data/ in a fresh clone) may be absent, nothing may differ."""
    if not (ROOT / "dvc.lock").exists() or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout with a dvc.lock")
    run = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    changed = [
        f"{stage}: {path} {state}"
        for stage, groups in json.loads(run.stdout).items()
        for group in groups
        for files in (group.values() if isinstance(group, dict) else [{stage: group}])
        for path, state in (files.items() if isinstance(files, dict) else [(stage, files)])
        if not (state in ("deleted", "not in cache") and path.startswith("data/"))
    ]
    assert not changed


@pytest.mark.parametrize("table", ["table1", "table5"])
def test_the_readme_shows_the_committed_tables(table):
    lines = [line for line in (ROOT / f"reports/{table}.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) > 4 and "\n".join(lines) in (ROOT / "README.md").read_text()


def test_the_readmes_backbone_is_one_file_and_one_row(tmp_path):
    """Paste both blocks of "Add a backbone" into a copy of the project, and let DVC build the new row's set."""
    blocks = re.findall(r"\n\n((?:    .*\n|\n)+)", (ROOT / "README.md").read_text().split("## Add a backbone")[1].split("\n## ")[0])
    code, row = (textwrap.dedent(block) for block in blocks)
    (tmp_path / "data").mkdir()
    for name in ("stages", "suites", "data/nothing", "params.yaml", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / "stages/distillers/means.py").write_text(code)
    suite = tmp_path / "suites/digits.yaml"
    suite.write_text(suite.read_text().replace("\nruns:\n", "\nruns:\n" + textwrap.indent(row, "  ") + "\n"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages' `python` is this one
    for command in ("init --no-scm -q", "repro -q distill@digits-means-ipc1"):
        run = subprocess.run([sys.executable, "-m", "dvc", *command.split()], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path})
        assert run.returncode == 0, run.stderr
    made = load_file(tmp_path / "data/distill/digits-means-ipc1/set.safetensors")
    losses = [float(line.split(",")[1]) for line in (tmp_path / "data/distill/digits-means-ipc1/curve.csv").read_text().split()[1:]]
    assert made["images"].shape == (10, 1, 8, 8) and len(losses) == 100 and sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "    pip install uv && uv run dvc repro\n" in readme and "    pip install uv && uv run pytest\n" in readme


def test_nothing_of_one_machine_is_committed():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert "uv.lock" not in files
    assert not [f for f in files if f.endswith((".pt", ".pkl", ".pickle", ".npy"))]
