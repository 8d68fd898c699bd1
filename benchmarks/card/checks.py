"""Lines of tests, and of the golden numbers."""

import inspect
import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.card.lines import LeftOut, Line, Options

__all__ = ["golden_lines", "need", "test_lines"]

# Files of tests that need neither dvc nor ray, and a single test, with what they need beside pytest.
TESTS: dict[str, tuple[str, ...]] = {
    "test_problem.py": (),
    "test_graphs.py": (),
    "test_training.py": (),
    "test_distillation.py": ("pandas",),
    "test_backbones.py": ("sklearn",),
    "test_end_to_end.py::test_a_gpu_gives_the_same_numbers": ("kornia", "PIL", "pandas", "sklearn"),
}
GOLDEN = {  # files, and the tests of tests/test_golden.py that compare with them
    "convnet_d3_32": "test_convnet",
    "convnet_d4_64": "test_convnet",
    "convnet_d5_128": "test_convnet",
    "mtt_plain": "test_mtt",
    "mtt_masked": "test_mtt",
    "rtp_bptt": "test_rtp",
    "dc_match": "test_dc",
    "dsa_augment": "test_augmentations",
}


def test_lines(options: Options) -> list[Line]:
    files = list(TESTS)[:1] if options.small else TESTS
    return [Line(f"tests, {file}", partial(run_tests, file, options)) for file in files]


def run_tests(file: str, options: Options) -> dict[str, Any]:
    """Run a file's tests; on a GPU without those that are of the CPU by their name."""
    need("pytest", *TESTS[file])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/{file}"]
    if options.device.type == "cuda":
        command += ["-k", "not cpu"]
    environment = os.environ | {"GOLDEN_DIR": str(options.golden)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    said = done.stdout.strip().splitlines()[-1:]
    if done.returncode:
        broken = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise AssertionError("; ".join(said + broken[:1]))
    return {"said": said[0]}


def need(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise LeftOut(f"needs {', '.join(missing)}")


def golden_lines(options: Options) -> list[Line]:
    return [Line(f"golden, {name}", partial(compare, name, options)) for name in GOLDEN]


def tests_of_golden() -> ModuleType:
    """tests/test_golden.py by its place: an installed package may be called `tests`, too."""
    file = Path(__file__).parents[2] / "tests/test_golden.py"
    spec = spec_from_file_location("test_golden", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(name: str, options: Options) -> dict[str, Any]:
    """The largest relative error beside a golden file, in float32."""
    need("pytest")
    index = options.golden / "index.json"
    if not index.exists():
        raise LeftOut(f"{index} is not here; --golden says where it is")
    tests = tests_of_golden()
    relative_error = tests.relative_error
    errors: list[float] = []

    def noted(ours: Tensor, theirs: Tensor) -> float:
        errors.append(relative_error(ours, theirs))
        return errors[-1]

    def load(name: str) -> dict[str, Tensor]:
        values = load_file(options.golden / f"{name}.safetensors")
        return {key: value.to(options.device) for key, value in values.items()}

    test = getattr(tests, GOLDEN[name])
    words = {"name": name, "golden": load, "golden_index": json.loads(index.read_text())}
    own = {word: words[word] for word in inspect.signature(test).parameters}
    with mock.patch.object(tests, "relative_error", noted):
        try:
            test(**own)
        except AssertionError:
            raise AssertionError(f"relative errors {errors}") from None
    return {"apart": max(errors), "said": f"the largest of {len(errors)} relative errors"}
