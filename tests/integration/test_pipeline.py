"""The whole pipeline on scikit-learn's digits, as a user of DVC runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml

from tests.integration.project import make_project, metrics, repro, run, with_data

MODELPRESS = str(Path(sys.executable).parent / "modelpress")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A project in which `dvc repro` has run."""
    folder = with_data(tmp_path_factory.mktemp("repro") / "project", digits)
    repro(folder)
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "a run")
    return folder


def test_repro_selects_a_model_that_predicts_when_it_has_run(done: Path) -> None:
    selected = metrics(done, "select")
    keys = ("selected", "accuracy", "accuracy_dense", "drop_points", "drop_points_ci95", "speedup_b1")
    assert all(key in selected for key in (*keys, "size_ratio"))
    assert float(str(selected["accuracy_dense"])) > 0.8
    model = onnxruntime.InferenceSession((done / "data/select/model.onnx").read_bytes())
    images = np.load(done / "data/ingest/test_images.npy")
    labels = np.load(done / "data/ingest/test_labels.npy")
    logits = model.run(None, {"image": images})[0]
    assert (logits.argmax(1) == labels).mean() == pytest.approx(selected["accuracy"])
    assert json.loads((done / "data/select/labels.json").read_text())[3] == "digit 3"


def test_repro_makes_every_candidate_when_it_has_run(done: Path) -> None:
    table = pd.read_csv(done / "data/select/candidates.csv").set_index("candidate")
    quantized = {"dense-fp32", "dense-int8", "prune-0.5-fp32", "prune-0.5-int8"}
    assert set(table.index) == {*quantized, *metrics(done, "press")["candidates"]}  # type: ignore[misc]
    assert "press-1" in table.index
    assert table.loc["prune-0.5-fp32", "parameters"] < 0.5 * table.loc["dense-fp32", "parameters"]
    assert table.loc["dense-int8", "size_bytes"] < 0.6 * table.loc["dense-fp32", "size_bytes"]
    assert (table["p50_ms_b1_t1"] > 0).all()
    assert table["selected"].sum() == 1
    for name in quantized:
        described = json.loads((done / "data/quantize" / name / "metrics.json").read_text())
        assert (described["nodes_int8"] > 0) == name.endswith("int8")


def test_repro_runs_nothing_when_nothing_has_changed(done: Path) -> None:
    assert "Running stage" not in repro(done)
    assert "up to date" in run(done, sys.executable, "-m", "dvc", "status")


def test_repro_runs_only_what_depends_on_it_when_a_param_changes(done: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(done, changed)
    params = yaml.safe_load((changed / "params.yaml").read_text())
    params["select"]["max_drop_points"] = 4.0
    (changed / "params.yaml").write_text(yaml.safe_dump(params))
    printed = repro(changed)
    ran = {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}
    assert ran - {"evaluate"} == {"recipe", "press", "select", "report"}  # latencies of press may differ


def test_dvc_shows_plots_when_asked(done: Path) -> None:
    run(done, sys.executable, "-m", "dvc", "plots", "show")
    assert (done / "dvc_plots" / "index.html").exists()


@pytest.fixture(scope="module")
def clone(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second clone of the project, after `dvc push` and `git push`. Nothing has been pulled from DVC's remote yet."""
    folder = tmp_path_factory.mktemp("clone")
    run(done, "git", "init", "-q", "--bare", str(folder / "origin.git"))
    dvc(done, "remote", "add", "-q", "--default", "team", str(folder / "remote"))
    run(done, "git", "commit", "-qam", "the team's remote")
    run(done, "git", "push", "-q", str(folder / "origin.git"), "HEAD:refs/heads/main")
    dvc(done, "push", "-q")
    run(folder, "git", "clone", "-q", "--branch", "main", "origin.git", "clone")
    return folder / "clone"


def dvc(folder: Path, *words: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *words)


def test_clone_shows_metrics_in_a_terminals_width_when_nothing_was_pulled(clone: Path) -> None:
    shown = dvc(clone, "metrics", "show")
    heads, row = shown.splitlines()
    assert heads.split() == ["Path", "accuracy", "drop_points", "size_ratio", "speedup", "val_accuracy"]
    assert float(row.split()[1]) > 0.8
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    assert "accuracy" in dvc(clone, "metrics", "diff", "HEAD~2")
    assert row.split()[1] in dvc(clone, "exp", "show", "--csv")


def test_clone_runs_nothing_when_pulled(clone: Path) -> None:
    dvc(clone, "pull", "-q")
    assert "Running stage" not in repro(clone)
    assert "up to date" in dvc(clone, "status")
    assert not run(clone, "git", "status", "--porcelain"), (
        "dvc.lock and the metrics are as they were committed"
    )


def test_experiment_goes_on_from_the_journal_when_run_in_a_temporary_workspace(
    done: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "temp"
    shutil.copytree(done, folder)
    printed = dvc(folder, "exp", "run", "--temp", "-n", "laxer", "-S", "select.max_drop_points=4.0")
    ran = re.findall(r"^Running stage '(.+)':$", printed, re.MULTILINE)
    assert set(ran) - {"evaluate"} == {"recipe", "press", "select", "report"}
    assert "from the journal" in printed
    assert "drop_points" in dvc(folder, "exp", "diff", "HEAD", "laxer")
    assert not run(folder, "git", "status", "--porcelain")


def _killed_after(folder: Path, stage: str, line: str) -> None:
    """Start a stage and kill it and all its children as soon as it prints `line`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", stage],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = next((text for text in process.stdout if text.startswith(line)), None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert seen is not None, f"{stage} never printed {line!r}"
    time.sleep(1)  # children of the killed group let go of their files


@pytest.mark.parametrize(("stage", "line"), [("tune", "tune 1/3"), ("train", "train 2/4")])
def test_stage_ends_as_if_unbroken_when_killed_in_the_middle_and_run_again(
    stage: str, line: str, done: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(done, folder)
    _killed_after(folder, stage, line)
    assert not (folder / "data" / stage).exists(), "nothing half-written"
    assert any((folder / ".modelpress" / stage).iterdir()), "something to go on from"
    repro(folder, "--single-item", "--force", stage)  # DVC would else restore it from its cache
    for path in (done / "data" / stage).iterdir():
        other = folder / "data" / stage / path.name
        assert path.read_bytes() == other.read_bytes(), path.name


@pytest.mark.parametrize("line", ["press 3/", "press 5/"])  # while it searches, and while it trains
def test_press_goes_on_with_what_it_had_when_killed_and_run_again(
    line: str, done: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(done, folder)
    shutil.rmtree(folder / ".modelpress" / "press")
    _killed_after(folder, "press", line)
    assert not (folder / "data" / "press").exists(), "nothing half-written"
    printed = repro(folder, "--single-item", "--force", "press")
    kept = int(line[6]) if line == "press 3/" else 4
    assert f"press {kept}/6: from the journal" in printed
    trials = pd.read_csv(folder / "data/press/trials.csv")
    assert list(trials["number"]) == [0, 1, 2, 3]
    assert "press-1" in metrics(folder, "press")["candidates"]  # type: ignore[operator]
    assert (folder / "data/press/1/model.onnx").exists()


TIMED = ("press", "evaluate", "select", "report")  # what a clock decides differs from run to run


def test_flow_gives_the_lock_and_the_bytes_of_repro_when_run_on_the_same_data(
    done: Path, digits: Path, tmp_path: Path, api: dict[str, str]
) -> None:
    folder = with_data(tmp_path / "flow", digits)
    printed = run(folder, MODELPRESS, "run", **api)
    assert "prune-0.5-int8" in printed
    one, two = (yaml.safe_load((p / "dvc.lock").read_text())["stages"] for p in (done, folder))
    assert set(one) == set(two)
    for stage in set(one) - set(TIMED):  # a lock holds the hash of every byte that a stage wrote
        assert one[stage] == two[stage], stage
    exact = [json.loads((p / "data/evaluate/accuracy.json").read_text()) for p in (done, folder)]
    # Which designs press finds depends on the clock.
    one, two = ({n: v for n, v in found.items() if not n.startswith("press-")} for found in exact)
    assert one == two
    assert "Running stage" not in repro(folder), "dvc repro finds nothing left to do after the flow"
    before = (folder / "dvc.lock").read_bytes()
    assert "nothing was recomputed" in run(folder, MODELPRESS, "run", **api).lower()
    assert (folder / "dvc.lock").read_bytes() == before


def test_run_is_refused_in_one_line_when_dvc_cannot_hash_a_file(digits: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(digits, images)
    (images / "digit 1/loop.png").symlink_to("loop.png")
    folder = make_project(tmp_path / "looped", images)
    for command in ("run", "status"):
        done = subprocess.run([MODELPRESS, command], cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"{images}: DVC cannot hash digit 1/loop.png (link that loops): remove" in done.stderr
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.epochs=none", ["train.epochs", "integer"]),
        ("+train.speed=3", ["train.speed", "unknown key"]),
        ("ingest.source=nowhere", ["nowhere", "no such"]),
    ],
)
def test_run_is_refused_in_one_line_when_a_param_is_wrong(
    change: str, words: list[str], digits: Path, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "wrong", digits)
    printed = run(folder, MODELPRESS, "run", "-S", change, code=2)
    assert len(printed.strip().splitlines()) == 1, printed
    assert all(word in printed for word in words), printed
    assert not (folder / "data").exists()
