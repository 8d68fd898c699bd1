"""Records say what each result was made with, and are kept until it is made anew."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from project import make_project, run

from stages import prepare
from stages.reporting.records import Made, made_elsewhere, made_here, made_table
from stages.runtime import checkpoint
from stages.runtime.checkpoint import scratch
from stages.runtime.files import write_json, write_result
from stages.tools.records import recorded


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    return tmp_path


def main(*names: str, value: int = 0) -> None:
    """A stage of all rows, called `test_records` as this file is."""
    for name in names or ("one", "two"):
        write_result(Path(f"data/test_records/{name}.json"), {"value": value})


def entries(file: str = "test_records") -> list[dict]:
    return json.loads(Path(f"reports/records/{file}.json").read_text())["runs"]


def test_a_record_says_what_a_stage_has_made_and_with_what(project):
    recorded(prepare.main)("shapes")
    (entry,) = entries("prepare/shapes")
    assert {Path(path).parent for path in entry["made"]} == {Path("data/prepare/shapes")}
    for path, digest in entry["made"].items():
        assert digest in Path(path).read_bytes().decode("latin-1")  # the file says it of itself
    assert entry["seed"] == 0
    assert entry["settings"]["params.yaml"]["train"]["repeats"] == 2
    assert "images" in entry["settings"]["suites/shapes.yaml: datasets.shapes"]
    assert "device" not in entry["settings"]["params.yaml"]
    assert entry["packages"]["torch"] and entry["processor"] and entry["cores"] >= 1
    assert entry["seconds"] >= 0 and entry["peak_mib"] > 1


def test_a_file_is_listed_by_the_run_that_made_it_last(project):
    recorded(main)()
    recorded(main)("one")
    first, second = entries()
    assert list(first["made"]) == ["data/test_records/two.json"]
    assert list(second["made"]) == ["data/test_records/one.json"]
    recorded(main)("two")
    assert [list(entry["made"]) for entry in entries()] == [
        ["data/test_records/one.json"],
        ["data/test_records/two.json"],
    ]


def test_a_run_that_makes_nothing_or_fails_leaves_the_records_as_they_are(project):
    recorded(main)()
    before = entries()
    recorded(lambda: None)()

    def failing() -> None:
        main(value=1)
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        recorded(failing)()
    assert entries() == before


def test_seconds_of_attempts_that_were_killed_are_counted(project, monkeypatch):
    earlier = {"earlier_attempts": 0, "earlier_seconds": 0.0}
    monkeypatch.setattr(checkpoint, "_earlier", earlier)
    for _ in range(2):
        with suppress(KeyboardInterrupt), scratch("work", {}, []) as folder:
            begun = (folder / checkpoint.ATTEMPTS).stat().st_mtime
            write_json(folder / "state.json", {})
            # The last checkpoint was written 30 seconds after the attempt had begun.
            subprocess.run(["touch", "-d", f"@{begun + 30}", folder / "state.json"], check=True)
            raise KeyboardInterrupt
        earlier.update(earlier_attempts=0, earlier_seconds=0.0)  # the next attempt is another process
    with scratch("work", {}, []):
        main()
    assert earlier["earlier_attempts"] == 2
    assert earlier["earlier_seconds"] == pytest.approx(60, abs=0.5)


def test_the_commit_is_named_and_whether_the_code_was_changed(project, monkeypatch):
    monkeypatch.setattr("stages.tools.records.commit", lambda: "0123abcd-dirty")
    recorded(main)()
    assert entries()[0]["commit"] == "0123abcd"
    assert entries()[0]["clean"] is False
    monkeypatch.setattr("stages.tools.records.commit", lambda: None)  # no git
    recorded(main)()
    assert (entries()[-1]["commit"], entries()[-1]["clean"]) == (None, None)


def test_the_report_takes_a_record_of_a_file_that_is_still_the_same(project):
    recorded(main)()
    assert {name: [run.stage for run in runs] for name, runs in made_here().items()} == {
        "one": ["test_records"],
        "two": ["test_records"],
    }
    main("one", value=1)  # without a record
    assert list(made_here()) == ["two"]


def test_a_rows_files_are_found_below_its_folder_and_beside_it(project):
    run("code")
    recorded(prepare.main)("shapes")
    (made,) = made_here()["shapes"]
    assert (made.stage, made.name, made.seed, made.names) == ("prepare", "shapes", "0", 1)


def test_pieces_of_a_row_that_ran_elsewhere_become_one_run(tmp_path):
    piece = {
        "stage": "train@a-row",
        "begun": "2026-01-02T03:04:05",
        "seconds": 100.0,
        "peak_mib": 700.0,
        "device": "a card",
        "torch": "2.15.0",
        "commit": "0123abcd",
    }
    later = piece | {"begun": "2026-01-02T04:00:00", "seconds": 50.0, "peak_mib": 800.0}
    write_json(tmp_path / "pieces.json", {"pieces": [piece, later]})
    (made,) = made_elsewhere(tmp_path)["a-row"]
    assert (made.seconds, made.peak_mib, made.begun) == (150.0, 800.0, "2026-01-02T03:04:05")
    assert made.is_clean


def test_the_table_shows_stages_in_their_order_and_escapes_names():
    run = Made("train", "<b>", "2026-01-02T03:04:05", 61.0, 512.0, "a card", "0123abcd4567", False, "2.15.0")
    text = made_table([run, run._replace(stage="distill", is_clean=True)])
    assert text.index("distill") < text.index("train &lt;b&gt;")
    assert "<b>" not in text
    assert "0123abcd45, changed" in text
    assert made_table([]) == ""
