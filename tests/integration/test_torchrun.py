"""Stages on several ranks of one host, on scikit-learn's digits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.project import metrics, repro, run, with_params

MODELPRESS = str(Path(sys.executable).parent / "modelpress")


@pytest.fixture(scope="module")
def before_train(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all that comes before train has run, without a search."""
    folder = tmp_path_factory.mktemp("train") / "project"
    shutil.copytree(prepared, folder)
    repro(with_params(folder, tune={"trials": 0}), "tune")
    return folder


@pytest.fixture
def project(before_train: Path, tmp_path: Path) -> Path:
    shutil.copytree(before_train, tmp_path / "project")
    return tmp_path / "project"


def test_train_and_prune_learn_when_torchrun_starts_two_ranks(project: Path) -> None:
    folder = project
    printed = repro(folder, "prune@0.5", PET_NPROC_PER_NODE="2")
    assert printed.count("prune 1/") == 1, "one rank speaks"
    pruned = json.loads((folder / "data/prune/0.5/metrics.json").read_text())
    assert pruned["val_accuracy"] > 0.7
    assert metrics(folder, "train")["threads"] == 1
    assert float(str(metrics(folder, "train")["val_accuracy"])) > 0.7


def test_weights_are_those_of_the_unbroken_run_when_a_rank_is_killed(project: Path, tmp_path: Path) -> None:
    whole = with_params(project, train={"epochs": 6})
    repro(whole, "train", PET_NPROC_PER_NODE="2")
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "data/train")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", "train"]
    environment = {
        "PET_NPROC_PER_NODE": "2",
        "PET_MAX_RESTARTS": "3",
    }
    process = subprocess.Popen(
        command,
        cwd=broken,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("train 3/6") for line in process.stdout)
    ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if "RANK" in p.environ()]
    assert len(ranks) == 2
    ranks[1].kill()
    said = process.stdout.read()
    assert process.wait() == 0, said
    assert "going on from the checkpoint of epoch" in said
    assert "train 6/6" in said
    for name in ("model.safetensors", "history.csv"):
        assert (broken / "data/train" / name).read_bytes() == (whole / "data/train" / name).read_bytes()


def test_train_is_refused_in_one_line_when_two_ranks_do_not_divide_the_batch(
    project: Path, api: dict[str, str]
) -> None:
    folder = with_params(project, train={"batch_size": 63})
    printed = run(folder, MODELPRESS, "run", code=2, PET_NPROC_PER_NODE="2", **api).splitlines()
    said = "train: train.batch_size (63) is global and must be a multiple of the 2 ranks"
    assert printed[-1].startswith(f"modelpress: {said}")
    repeated = run(folder, sys.executable, "-m", "dvc", "repro", "train", code=255, PET_NPROC_PER_NODE="2")
    assert repeated.count(said) == 1
    assert "exited with 2" in repeated
    assert "Traceback" not in repeated and "elastic" not in repeated
    assert not (folder / "data/train").exists()


def test_repro_says_which_rank_was_ended_when_nobody_starts_it_again(project: Path) -> None:
    folder = with_params(project, train={"epochs": 200})
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        cwd=folder,
        env={**os.environ, "PET_NPROC_PER_NODE": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("train 1/200") for line in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        next(p for p in started if p.environ().get("RANK") == "1").kill()
        said = process.stdout.read()
    assert [line for line in said.splitlines() if line.startswith("train: ")] == [
        "train: rank 1 was ended by SIGKILL"
    ]
    assert "exited with 137" in said
    assert "Traceback" not in said and "elastic" not in said
