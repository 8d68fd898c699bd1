"""Mistakes of the user end in a line or two that name the key, the value and what is allowed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import outside
from project import ROOT
from safetensors.torch import load_file

from stages import check
from stages.machine.device import pick_device
from stages.runtime.errors import UserError
from stages.runtime.files import write_result
from stages.settings.plain_yaml import load_plain
from stages.settings.project import listed_suites
from stages.settings.rows import Row
from stages.tools.row import first_stages

ROW = "digits-mtt-ipc1"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the settings, and a function that changes one key of one file in it."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "suites", tmp_path / "suites")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEVICE", raising=False)

    def change(file: str, key: str, value=None, new_name=None):
        path = tmp_path / file
        values = yaml.safe_load(path.read_text())
        *parents, last = key.split("/")
        section = values
        for parent in parents:
            section = section[parent]
        if new_name:
            section[new_name] = section.pop(last)
        else:
            section[last] = value
        path.write_text(yaml.safe_dump(values))

    return change


def mistake():
    with pytest.raises(UserError) as caught:
        check.main()
    text = str(caught.value)
    assert len(text.splitlines()) <= 2 and "Traceback" not in text
    return text


def test_a_name_stands_in_one_suite_alone(project):
    """Else the settings of one row would silently be used for the other's."""
    project("suites/tinyimagenet.yaml", "runs/tinyimagenet-random-ipc1", new_name="digits-random-ipc1")
    project("dvc.yaml", "vars", ["suites/digits.yaml", "suites/tinyimagenet.yaml"])
    text = mistake()
    assert text.startswith("suites/tinyimagenet.yaml: runs.digits-random-ipc1 is in suites/digits.yaml too; ")
    assert text.endswith("names are unique over all suites")


def test_the_settings_as_they_are_pass(project):
    check.main()
    assert Path("data/check/passed").exists()


SUITE = "suites/digits.yaml"
RUN = f"runs/{ROW}"
COPY = "runs/digits-mtt-ipc10-teacher"  # it has the set of another row


@pytest.mark.parametrize(
    "file, key, value, expected",
    [
        ("params.yaml", "mask_ratio", 1.0, ["params.yaml", "mask_ratio", "1.0", "less than 1"]),
        ("params.yaml", "mask_ratio", -0.1, ["mask_ratio", "-0.1", "greater than or equal to 0"]),
        ("params.yaml", "mask_ratio", "0.3", ["mask_ratio", "'0.3'", "valid number"]),
        ("params.yaml", "train/repeats", 0, ["train.repeats", "0", "greater than or equal to 1"]),
        (
            "params.yaml",
            "train/losses",
            ["cross_entropy", "focle"],
            ["train.losses", "'focle'", "focal", "mixup"],
        ),
        ("params.yaml", "train/losses", ["focal"], ["train.losses", "cross_entropy is missing"]),
        ("params.yaml", "calibrate/bounds", [2.0, 3.0], ["calibrate.start", "1.5", "[2.0, 3.0]"]),
        ("params.yaml", "device", "gpu", ["device: 'gpu' is unknown", "auto, cpu, cuda, cuda:<number>, mps"]),
        ("params.yaml", "calibrate/lr", float("nan"), ["calibrate.lr", "nan"]),
        (SUITE, f"{RUN}/ipc", 0, ["suites/digits.yaml", f"{ROW}.ipc", "0", "greater than or equal to 1"]),
        (SUITE, f"{RUN}/ipc", 1000, [f"{ROW}.ipc", "1000", "allowed: 1 to 87"]),
        (SUITE, f"{RUN}/ipc", None, [f"{ROW}.ipc", "None", "a number >= 1"]),
        (SUITE, f"{RUN}/suite", "cifar10", [f"{ROW}.suite", "'cifar10'", "allowed: digits"]),
        (SUITE, "buffers/digits/suite", "digit", ["buffers.digits.suite", "'digit'", "allowed: digits"]),
        (SUITE, "datasets/digits/suite", "digit", ["datasets.digits.suite", "'digit'", "allowed: digits"]),
        (SUITE, f"{RUN}/augment", "yes", [f"{ROW}.augment", "'yes'", "valid boolean"]),
        (SUITE, f"{RUN}/dataset", "digit", [f"{ROW}.dataset", "'digit'", "allowed: digits"]),
        (
            SUITE,
            f"{RUN}/backbone",
            "mttt",
            [f"{ROW}.backbone", "'mttt'", "dc, dsa, file, full, kmeans, mtt, random, rtp"],
        ),
        (SUITE, f"{RUN}/reads", "buffer/digit", [f"{ROW}.reads", "'buffer/digit'", "buffer/digits"]),
        (SUITE, f"{RUN}/reads", "nothing", [f"{ROW}.reads", "expert trajectories", "buffer/<name>"]),
        (SUITE, f"{RUN}/mdt", [0, 1.5], [f"{ROW}.mdt", "1.5", "less than 1"]),
        (SUITE, f"{RUN}/lr", "learn", [f"{ROW}.lr", "'learn'"]),
        (
            SUITE,
            f"{RUN}/train",
            {"decay": 0},
            [f"{ROW}.train.decay: unknown key; allowed here:", "weight_decay"],
        ),
        (SUITE, f"{RUN}/train", {"batch": 0}, [f"{ROW}.train.batch", "0", "greater than or equal to 1"]),
        (SUITE, f"{RUN}/budget", "full", [f"{ROW}.budget", "'full'", "'published', 'reduced' or 'quick'"]),
        (SUITE, f"{RUN}/budget", "reduced", [f"{ROW}.budget_note: missing", "what is reduced"]),
        (SUITE, f"{RUN}/budget_note", "4 experts", [f"{ROW}.budget_note: '4 experts'", "budget: reduced"]),
        (
            SUITE,
            f"{RUN}/made_by",
            "dc",
            [f"{ROW}.made_by: 'dc' with backbone 'mtt'", "backbone 'file' alone"],
        ),
        (
            SUITE,
            f"{COPY}/made_by",
            "full",
            ["teacher.made_by: 'full' is unknown; allowed: dc, dsa, kmeans, mtt, random, rtp"],
        ),
        (SUITE, f"{COPY}/made_by", "dc", ["teacher.made_by: 'dc', but the row reads", "allowed: 'mtt'"]),
        (SUITE, f"{COPY}/made_by", None, ["teacher.made_by: None, but the row reads", "allowed: 'mtt'"]),
        (SUITE, f"{COPY}/ipc", 1, ["teacher.ipc: 1, but the row reads", "allowed: 10"]),
        (SUITE, f"{COPY}/mdt", 0.1, ["teacher.mdt: 0.1, but the row reads", "allowed: 0"]),
        (SUITE, f"{COPY}/dataset", "digits-rotated", ["teacher.dataset: 'digits-rotated', but", "'digits'"]),
        (
            SUITE,
            f"{COPY}/reads",
            "distill/digits-mtt",
            ["'distill/digits-mtt' is unknown", "distill/digits-dc-ipc1"],
        ),
        (SUITE, f"{COPY}/reads", "distill/digits-full", ["'distill/digits-full' is unknown; allowed: "]),
        (
            SUITE,
            f"{COPY}/reads",
            "distill/digits-mtt-ipc10-teacher",
            ["'distill/digits-mtt-ipc10-teacher' is unknown; allowed: "],
        ),
        (
            SUITE,
            "runs/digits-dc-ipc1/reads",
            "distill/digits-mtt-ipc1",
            ["digits-dc-ipc1.reads: 'distill/digits-mtt-ipc1' with backbone 'dc'", "backbone 'file' alone"],
        ),
        (
            SUITE,
            "runs/digits-dc-ipc1/distill/mask_after_augmentation",
            True,
            ["digits-dc-ipc1.distill: mask_after_augmentation: unknown key"],
        ),
        (SUITE, "runs/digits-random-ipc1/distill", {"sets": 0}, ["digits-random-ipc1.distill: sets: 0"]),
        (SUITE, f"{RUN}/distill/lr_img", -1, [f"{ROW}.distill", "lr_img", "-1", "greater than 0"]),
        (
            SUITE,
            f"{RUN}/distill/max_start_epoch",
            30,
            ["max_start_epoch - 1 + expert_epochs", "buffer/digits has"],
        ),
        (SUITE, f"{RUN}/distill/lr_image", 1, ["lr_image", "unknown key", "allowed here", "lr_img"]),
        (
            SUITE,
            f"{RUN}/color",
            "red",
            [f"{ROW}.color: unknown key; allowed here:", "backbone", "epochs", "mask_ratio"],
        ),
        (
            SUITE,
            "datasets/digits/network/width2",
            3,
            ["datasets.digits.network.width2: unknown key; allowed here: width, depth"],
        ),
        (
            SUITE,
            "datasets/digits/images/whitening",
            "pca",
            ["datasets.digits.images.whitening", "'pca'", "'zca' or 'none'"],
        ),
        ("params.yaml", "ablate/ratios", [0.1, 1], ["ablate.ratios.1", "1", "less than 1"]),
        (
            SUITE,
            "svd/digits-full/dataset",
            "digits-rotated",
            ["svd.digits-full.dataset", "'digits-rotated'", "allowed: digits"],
        ),
        (SUITE, "svd/digits-full/drop", [0, 1.2], ["svd.digits-full.drop.1", "1.2", "less than 1"]),
        (
            SUITE,
            "features/digits-full/outside",
            "cifar10",
            ["features.digits-full.outside", "'cifar10'", "allowed: digits, digits-rotated"],
        ),
        (
            SUITE,
            "features/digits-full/losses",
            ["cross_entropy", "focle"],
            ["features.digits-full.losses", "'focle'", "focal"],
        ),
        (
            SUITE,
            "features/digits-full/losses",
            ["focal"],
            ["features.digits-full.losses", "without cross_entropy"],
        ),
        (
            SUITE,
            "datasets/digits-rotated/images/quarter_turns",
            4,
            ["datasets.digits-rotated.images.quarter_turns", "4", "0, 1, 2 or 3"],
        ),
        (
            SUITE,
            "datasets/digits/images/source",
            "data/no-such",
            ["images.source", "'data/no-such'", "train/<class>"],
        ),
    ],
)
def test_a_wrong_value_is_refused(project, file, key, value, expected):
    project(file, key, value)
    text = mistake()
    for part in expected:
        assert part in text, text


@pytest.mark.parametrize("lr", ["learned", "teacher"])
@pytest.mark.parametrize("backbone", ["dc", "dsa", "rtp", "random", "kmeans"])
def test_a_backbone_without_a_step_size_cannot_be_asked_for_it(project, backbone, lr):
    row = f"digits-{backbone}-ipc1"
    project(SUITE, f"runs/{row}/lr", lr)
    expected = f"{row}.lr: '{lr}', but sets of backbone '{backbone}' have no step size; allowed: a number > 0"
    assert mistake() == f"{SUITE}: runs.{expected}"


@pytest.mark.parametrize("lr", ["learned", "teacher"])
def test_all_images_have_no_step_size(project, lr):
    project(SUITE, "runs/digits-full/lr", lr)
    assert "sets of backbone 'full' have no step size" in mistake()


def test_a_row_with_the_set_of_a_row_without_a_step_size_has_none_either(project):
    project(SUITE, f"{COPY}/reads", "distill/digits-dc-ipc10")
    project(SUITE, f"{COPY}/made_by", "dc")
    assert "teacher.lr: 'teacher', but sets of backbone 'dc' have no step size" in mistake()
    project(SUITE, f"{COPY}/lr", 0.05)
    check.main()


def test_a_row_may_have_what_it_trains_otherwise_and_a_budget(project):
    project(SUITE, f"{RUN}/train", {"batch": 640, "weight_decay": 0, "momentum": 0.5, "drop": False})
    project(SUITE, f"{RUN}/budget", "reduced")
    project(SUITE, f"{RUN}/budget_note", "4 experts instead of 100")
    project(SUITE, f"{RUN}/distill/mask_after_augmentation", True)
    check.main()


@pytest.mark.parametrize(
    "file, key, misspelt",
    [
        ("params.yaml", "mask_ratio", "mask_ratoi"),
        ("params.yaml", "train/holdout", "hold_out"),
        ("params.yaml", "calibrate/max_iter", "maxiter"),
        (SUITE, f"{RUN}/mask_ratio", "maskratio"),
        (SUITE, "datasets/digits/network/width", "widht"),
        (SUITE, "buffers", "buffer"),
    ],
)
def test_a_misspelt_key_is_refused(project, file, key, misspelt):
    project(file, key, new_name=misspelt)
    text = mistake()
    assert (
        file in text
        and f"{misspelt}: unknown key; allowed here: " in text
        and key.rsplit("/")[-1] in text.split("allowed here")[1]
    )


def test_a_file_that_is_not_yaml(project):
    Path("params.yaml").write_text("seed: [0\n")
    assert mistake().startswith("params.yaml: not YAML")


def test_stages_print_the_mistake_and_no_traceback(project):
    project("params.yaml", "seed", "zero")
    run = subprocess.run(
        [sys.executable, "-m", "stages.check"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (
        run.returncode == 1
        and run.stderr == "error: params.yaml: seed: 'zero' is not allowed: Input should be a valid integer\n"
    )


def test_only_listed_suites_are_shown(project):
    assert [path.stem for path in listed_suites()] == ["digits"]
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("# - suites/cifar10.yaml", "- suites/cifar10.yaml"))
    assert [path.stem for path in listed_suites()] == ["digits", "cifar10"]


def test_a_set_from_elsewhere_has_to_be_there(project):
    row = yaml.safe_load(Path(SUITE).read_text())["runs"][ROW] | {
        "backbone": "file",
        "reads": "sets/mine",
        "distill": {},
    }
    project(SUITE, RUN, row)
    assert (
        mistake() == f"{SUITE}: runs.{ROW}.reads: 'sets/mine', but there is no folder data/sets/mine; "
        "allowed: one below data/"
    )
    Path("data/sets/mine").mkdir(parents=True)
    check.main()


def write_lock(stage: str, key: str, value) -> None:
    """What DVC notes of a stage that it has run."""
    made = {"params": {SUITE: {key: value}}}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {stage: made}}))


def test_pictures_need_not_be_here_where_they_were_prepared_with_these_settings(project):
    """As in a clone that has pulled what `prepare` has made of a colleague's pictures."""
    images = {"source": "/of/a/colleague"}
    project(SUITE, "datasets/digits/images", images)
    unknown = f"{SUITE}: datasets.digits.images.source: '/of/a/colleague' is no data set"
    assert mistake().startswith(unknown)
    write_result(Path("data/prepare/digits/info.json"), {"counts": {"train": [5, 3]}})
    assert mistake().startswith(unknown), "nothing says what these were made of"
    write_lock("prepare@digits", "datasets.digits.images", {"source": "/of/another"})
    assert mistake().startswith(unknown)
    write_lock("prepare@digits", "datasets.digits.images", images)
    assert mistake().endswith("is above the smallest class of digits; allowed: 1 to 3")
    write_result(Path("data/prepare/digits/info.json"), {"counts": {"train": [90] * 10}})
    check.main()


def test_trajectories_need_not_be_here_where_they_were_taken_in_with_these_settings(project):
    imported = {"suite": "digits", "dataset": "digits", "files": "/of/a/colleague", "epochs": 50}
    project(SUITE, "buffers/digits", imported)
    unknown = "buffers.digits.files: '/of/a/colleague' has no replay_buffer"
    assert unknown in mistake()
    write_lock("buffer@digits", "buffers.digits", imported | {"epochs": 20})
    assert unknown in mistake()
    write_lock("buffer@digits", "buffers.digits", imported)
    check.main()


def test_a_row_alone_asks_for_the_images_from_outside_that_it_is_shown(project):
    assert first_stages(Row("digits-mtt-ipc10")) == ["train@digits-mtt-ipc10", "prepare@digits-rotated"]
    assert first_stages(Row("digits-mtt-ipc1")) == ["train@digits-mtt-ipc1"]


NO_DEVICES = [
    "gpu",
    "cuda:99",
    "cuda:999",
    "meta",
    "",
    "rays",
    "ray:",
    "ray:2",
    "ray:-1",
    "ray:1e-3",
    "ray:cpu",
]


@pytest.mark.parametrize("name", NO_DEVICES)
def test_unknown_devices(name, monkeypatch):
    monkeypatch.delenv("DEVICE", raising=False)
    with pytest.raises(UserError, match="allowed: auto, cpu"):
        pick_device(name)


@pytest.mark.parametrize("name", ["ray", "ray:0", "ray:0.25", "ray:1"])
def test_ray_is_an_extra(name, monkeypatch):
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    expected = f"device: '{name}' needs the package Ray, .* `uv sync --extra ray` or `pip install ray`$"
    with pytest.raises(UserError, match=expected):
        pick_device(name)


@pytest.mark.parametrize("name", ["ray:2", "ray:", "rays", "cuda:-1"])
def test_check_refuses_what_no_stage_takes(name, project):
    project("params.yaml", "device", name)
    allowed = "auto, cpu, cuda, cuda:<number>, mps, ray, ray:<share of a GPU, 0 to 1>"
    assert mistake() == f"params.yaml: device: {name!r} is unknown; allowed: {allowed}"


@pytest.mark.parametrize("name", ["ray", "ray:0", "ray:0.25", "ray:1", "cuda:1", "mps", "auto"])
def test_check_accepts_devices_that_this_machine_need_not_have(name, project):
    project("params.yaml", "device", name)
    check.main()


# The suites against the paper and the public settings

SUITES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "suites").glob("*.yaml"))}


def test_every_row_of_the_papers_tables_has_a_row():
    rows = set()
    for suite in SUITES.values():
        for row in suite["runs"].values():
            if row["mdt"] == 0 and row.get("budget") != "quick":
                rows.add((row["suite"], row["backbone"], row["ipc"]))
    paper = yaml.safe_load((ROOT / "stages/reporting/paper.yaml").read_text())
    for table in paper.values():
        for entry in table["rows"]:
            assert (entry["dataset"], entry["backbone"], entry["ipc"]) in rows


@pytest.mark.parametrize(
    "suite, ipc",
    [
        ("cifar10", 10),
        ("cifar10", 50),
        ("cifar100", 50),
        ("tinyimagenet", 10),
        ("tinyimagenet", 50),
        ("imagenette", 10),
    ],
)
def test_rows_of_tables_2_and_3_differ_by_their_masks_alone(suite, ipc):
    """MDT_ds comes with MTS at 0.1: Section 5.3 of the paper."""
    rows = SUITES[suite]["runs"]
    plain = rows[f"{suite}-mtt-ipc{ipc}"]
    assert rows[f"{suite}-mtt-ipc{ipc}-mdt"] == plain | {"mdt": 0.1}
    assert rows[f"{suite}-mtt-ipc{ipc}-mdtds"] == plain | {"mdt": [0, 0.1], "mask_ratio": 0.1}


def all_rows() -> dict[str, dict]:
    rows = {}
    for suite in SUITES.values():
        rows |= suite["runs"]
    return rows


@pytest.mark.parametrize("backbone", ["mtt", "dc", "dsa"])
def test_every_row_of_mdt_ds_has_mts_at_the_mask_ratio_of_the_paper(backbone):
    ratios = {}
    for name, row in all_rows().items():
        if isinstance(row["mdt"], list) and backbone in (row["backbone"], row.get("made_by")):
            ratios[name] = row["mask_ratio"]
    assert set(ratios.values()) == {0.1}, ratios


def test_rows_say_their_budget():
    """Quick rows by their name, reduced ones by the counts that differ from the publication."""
    for name, row in all_rows().items():
        budget = row.get("budget")
        distill = row["distill"]
        assert (budget == "quick") == name.endswith("-quick"), name
        if name.endswith(("-cpu", "-20", "-20-mdt", "-20-mdtds")):
            assert budget == "reduced"
            count = (
                f"{row['epochs']} epochs"
                if row["backbone"] == "full"
                else f"{distill['iterations']} iterations"
            )
            assert f"{count} instead of" in row["budget_note"]
        if row["backbone"] in ("random", "kmeans") or row["suite"] == "digits":
            assert budget is None, name
        if budget == "published" and row["backbone"] in ("mtt", "dc", "dsa"):
            assert distill["iterations"] == (5000 if row["backbone"] == "mtt" else 1000), name


def test_rows_with_published_settings_round_as_the_public_code_does():
    """To TF32, by PyTorch's default. Real images as references and sets that were released are in float32."""
    rounded = 0
    for name, row in all_rows().items():
        distill, suite = row["distill"], SUITES[row["suite"]]
        found = {row["train"].get("precision", "float32")}
        if row["backbone"] in ("mtt", "rtp", "dc", "dsa"):
            found.add(distill.get("precision", "float32"))
        if row["reads"].startswith("buffer/"):
            found.add(suite["buffers"][row["reads"].removeprefix("buffer/")].get("precision", "float32"))
        method = row.get("made_by", row["backbone"])
        budget = row.get("budget")
        of_publication = budget == "published" or (budget is None and method == "mtt") or method == "rtp"
        if of_publication and row["suite"] != "digits" and "source" not in distill:
            assert found == {"tf32"}, name
            rounded += 1
        else:
            assert "tf32" not in found, name
    assert rounded > 80


def test_rows_that_have_run_are_not_in_tf32():
    """Their results were made on a CPU, with other settings than TF32."""
    names: list[str] = []
    for file in (ROOT / "reports").glob("*/metrics.json"):
        names += json.loads(file.read_text())["rows"]
    rows = all_rows()
    assert {"cifar10-mtt-ipc1-20", "cifar10-random-ipc1", "cifar10-dc-ipc1-released"} <= set(names)
    for name in names:
        assert "tf32" not in (rows[name]["train"].get("precision"), rows[name]["distill"].get("precision"))


def test_the_notes_of_reduced_rows_have_the_number_of_their_experts():
    suite = SUITES["cifar10"]
    counted = 0
    for row in suite["runs"].values():
        if row.get("budget") == "reduced" and row["reads"].startswith("buffer/"):
            buffer = suite["buffers"][row["reads"].removeprefix("buffer/")]
            assert row["budget_note"].startswith(f"{buffer['experts']} experts instead of 100")
            counted += 1
    assert counted == 10


PUBLISHED_MTT = [
    *[("cifar10", ipc) for ipc in (1, 10, 50)],
    *[("cifar100", ipc) for ipc in (1, 10, 50)],
    ("tinyimagenet", 50),
    *[("imagenette", ipc) for ipc in (1, 10)],
    ("digits", 10),
]


@pytest.mark.parametrize("suite, ipc", PUBLISHED_MTT)
def test_mtts_sets_are_trained_on_at_both_step_sizes(suite, ipc):
    rows = SUITES[suite]["runs"]
    name = f"{suite}-mtt-ipc{ipc}"
    changed = {
        "backbone": "file",
        "made_by": "mtt",
        "reads": f"distill/{name}",
        "lr": "teacher",
        "distill": {},
    }
    assert rows[f"{name}-teacher"] == rows[name] | changed


def test_sets_that_are_committed_say_how_they_were_made():
    rows = SUITES["cifar10"]["runs"]
    committed = [name for name in rows if name.endswith("-set")]
    assert len(committed) == 5
    for name in committed:
        row = rows[name]
        source = rows[row["reads"].removeprefix("sets/")]
        assert row["made_by"] == source["backbone"]
        for key in (
            "dataset",
            "ipc",
            "mdt",
            "epochs",
            "lr",
            "augment",
            "mask_ratio",
            "budget",
            "budget_note",
        ):
            assert row[key] == source[key], (name, key)


def test_mtts_rows_have_the_public_settings():
    """The table of settings.md, which was put together from the public code, row by row."""
    text = (outside("PAPER_DIR", "paper") / "settings.md").read_text()
    names = {
        "CIFAR-10": "cifar10",
        "CIFAR-100": "cifar100",
        "Tiny": "tinyimagenet",
        "ImageNette": "imagenette",
    }
    keys = ("syn_steps", "expert_epochs", "max_start_epoch", "lr_img", "lr_lr", "lr_teacher")
    lines = re.findall(r"^\| ([\w-]+), (\d+) \|" + r" ([^|]+?) \|" * 8 + "$", text, re.MULTILINE)
    assert len(lines) == 11
    for name, ipc, *cells in lines:
        suite = SUITES[names[name]]
        row = suite["runs"][f"{names[name]}-mtt-ipc{ipc}"]
        distill = row["distill"]
        *numbers, batch, zca = [cell.split()[0] for cell in cells]
        assert [float(number) for number in numbers] == [float(distill[key]) for key in keys], (name, ipc)
        assert distill["batch_syn"] == (None if batch == "all" else int(batch))
        assert distill["iterations"] == 5000
        images = suite["datasets"][row["dataset"]]["images"]
        assert images["whitening"] == ("zca" if zca == "yes" else "none")
        assert suite["buffers"][row["reads"].removeprefix("buffer/")]["experts"] == 100
        assert row["lr"] == "learned" and row["epochs"] == 1000
        assert row["budget"] == "published"


def test_mtts_other_published_settings_have_rows_too():
    """The settings that the table of settings.md has in brackets."""
    suite = SUITES["cifar10"]
    rows = suite["runs"]
    small = rows["cifar10-mtt-ipc10"]
    large = small["distill"] | {"lr_img": 1e4, "lr_lr": 1e-4, "lr_teacher": 0.01}
    assert rows["cifar10-mtt-ipc10-large-lr"] == small | {"distill": large}
    whitened = rows["cifar10-mtt-ipc50"]
    plain = rows["cifar10-mtt-ipc50-plain"]
    assert plain["distill"] == whitened["distill"] | {"max_start_epoch": 40, "lr_img": 1000}
    assert plain["dataset"] == suite["buffers"]["cifar10-plain"]["dataset"] == "cifar10-plain"
    assert suite["buffers"]["cifar10-plain"]["experts"] == 100


@pytest.mark.parametrize("ipc, changes", [(5, {}), (30, {"syn_steps": 40, "max_start_epoch": 30})])
def test_rows_of_figure_10_have_the_settings_of_the_first_authors_fork(ipc, changes):
    """https://github.com/DongyaoZhu/mtt-distillation, runs.sh."""
    rows = SUITES["cifar100"]["runs"]
    assert rows[f"cifar100-mtt-ipc{ipc}"]["distill"] == rows["cifar100-mtt-ipc10"]["distill"] | changes


@pytest.mark.parametrize("suite, ipc", [("cifar10", 50), ("cifar100", 10)])
@pytest.mark.parametrize("backbone", ["dc", "dsa"])
def test_dc_and_dsa_have_a_whitened_row_too(suite, ipc, backbone):
    """Appendix A.1 of the paper has whitened images for both; their public code has not."""
    rows = SUITES[suite]["runs"]
    plain = rows[f"{suite}-{backbone}-ipc{ipc}"]
    whitened = rows[f"{suite}-{backbone}-ipc{ipc}-zca"]
    assert whitened == plain | {"dataset": suite}
    datasets = SUITES[suite]["datasets"]
    assert datasets[whitened["dataset"]]["images"]["whitening"] == "zca"


def test_images_of_dc_and_dsa_are_normalised_as_in_their_code():
    moments = {
        "cifar10": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
        "cifar100": {"mean": [0.5071, 0.4866, 0.4409], "std": [0.2673, 0.2564, 0.2762]},
    }
    for suite, expected in moments.items():
        images = SUITES[suite]["datasets"][f"{suite}-plain"]["images"]
        assert images == {"source": suite, "whitening": "none"} | expected


@pytest.mark.parametrize("ipc, loops", [(1, (1, 1)), (10, (10, 50)), (50, (50, 10))])
def test_dc_and_dsa_have_the_published_loops(ipc, loops):
    for backbone, epochs, augment in (("dc", 300, False), ("dsa", 1000, True)):
        row = SUITES["cifar10"]["runs"][f"cifar10-{backbone}-ipc{ipc}"]
        loops_of_row = (row["distill"]["outer_loops"], row["distill"]["inner_loops"])
        assert (row["distill"]["iterations"], loops_of_row) == (1000, loops)
        assert (row["epochs"], row["augment"], row["lr"], row["mask_ratio"]) == (epochs, augment, 0.01, 0.8)
        assert SUITES["cifar10"]["datasets"][row["dataset"]]["images"]["whitening"] == "none"


def test_sets_that_are_committed_fit_their_rows():
    """Every row that reads such a set finds one of its size, with the step size that it trains at."""
    rows = {}
    for suite in SUITES.values():
        rows |= {name: row for name, row in suite["runs"].items() if row["reads"].startswith("sets/")}
    assert rows
    for name, row in rows.items():
        tensors = load_file(ROOT / "data" / row["reads"] / "set.safetensors")
        images = tensors["images"]
        assert tensors["labels"].bincount().tolist() == [row["ipc"]] * 10
        assert images.shape == (10 * row["ipc"], 3, 32, 32), name
        assert bool(images.isfinite().all()) and float(images.float().std()) > 0.1
        if row["lr"] == "learned":
            assert 0 < float(tensors["step_size"]) < 1
        else:
            assert "step_size" not in tensors, name


@pytest.mark.parametrize("written, value", [("1e-05", 1e-5), ("1e-2", 0.01), ("5E4", 5e4), ("-.5e+1", -5.0)])
def test_numbers_as_dvc_writes_them_are_numbers(written, value):
    """`dvc exp run -S train.weight_decay=0.00001` writes 1e-05."""
    assert load_plain(f"key: {written}") == {"key": value}


@pytest.mark.parametrize("written", ["1e", "e5", "abc", "1e5x", "v1e-5"])
def test_words_that_look_like_numbers_stay_words(written):
    assert load_plain(f"key: {written}") == {"key": written}
