"""`modelpress ablate` on scikit-learn's digits, as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.integration.project import run, with_params
from tests.integration.toy import environment

MODELPRESS = str(Path(sys.executable).parent / "modelpress")
ASKED = ["crop", "cosine schedule", "pruning", "quantization"]


@pytest.fixture(scope="module")
def project(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate") / "project"
    shutil.copytree(prepared, folder)
    configure(folder, seeds=1)
    return folder


def configure(folder: Path, **values: object) -> None:
    asked = {"techniques": ASKED, "epochs": 2, "train_fraction": 1.0, "bootstrap": 200}
    with_params(folder, tune={"trials": 0}, ablate={**asked, **values})


def kept(folder: Path) -> dict[str, float]:
    """The trainings that are whole, and when each was."""
    found = (folder / ".modelpress/ablate").glob("*/*/metrics.json")
    return {path.parent.name: path.stat().st_mtime for path in found}


def runs_of(folder: Path, kind: str) -> list[Run]:
    """MLflow's runs of a kind, the oldest first."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`modelpress.kind` = '{kind}'"
    return list(client.search_runs(experiments, wanted, order_by=["attributes.start_time ASC"]))


def test_ablate_goes_on_where_it_was_when_it_was_killed_and_shows_every_effect(
    project: Path, api: dict[str, str]
) -> None:
    with subprocess.Popen(
        [MODELPRESS, "ablate"], cwd=project, env=environment(**api), start_new_session=True
    ) as first:
        until = time.monotonic() + 150
        while len(kept(project)) < 2:
            assert time.monotonic() < until and first.poll() is None
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
    before = kept(project)
    said = run(project, MODELPRESS, "ablate", **api)
    after = kept(project)
    assert {name: after[name] for name in before} == before, "what was trained is not trained again"
    assert len(after) == 8
    table = pd.read_csv(project / "data/ablate/effects.csv")
    assert list(zip(table["technique"], table["kind"], strict=True)) == [
        ("crop", "alone"),
        ("crop", "in context"),
        ("cosine schedule", "alone"),
        ("cosine schedule", "in context"),
        ("pruning", "on the network"),
        ("quantization", "on the network"),
    ]
    assert ((table["low"] <= table["points"]) & (table["points"] <= table["high"])).all()
    assert (table["having"] > 0.3).all()
    notes = table.set_index(["technique", "kind"])["note"]
    assert "times the multiply-accumulates" in notes["pruning", "on the network"]
    assert "times smaller" in notes["quantization", "on the network"]
    page = (project / "data/ablate/effects.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "//" not in page, "it loads nothing"
    assert "page: data/ablate/effects.html" in said
    effects = runs_of(project, "effect")
    assert len(effects) == len(table)
    parent = runs_of(project, "ablation")[-1]  # the first was killed
    assert parent.info.status == "FINISHED" and parent.data.params["ablate.epochs"] == "2"
    by_name = {run.info.run_name: run.data.metrics["points"] for run in effects}
    for row in table.itertuples():
        assert by_name[f"{row.technique}, {row.kind}"] == pytest.approx(row.points)
    assert {run.data.tags["mlflow.parentRunId"] for run in effects} == {parent.info.run_id}


def test_only_new_seeds_are_trained_when_more_are_asked_for(project: Path, api: dict[str, str]) -> None:
    before = kept(project)
    configure(project, seeds=2, techniques=["crop"])
    run(project, MODELPRESS, "ablate", **api)
    after = kept(project)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before == {"committed-1", "without-crop-1", "bare-1", "bare-with-crop-1"}


def test_ablate_exits_2_in_one_line_when_a_technique_is_unknown(project: Path, api: dict[str, str]) -> None:
    configure(project, techniques=["magic"])
    said = run(project, MODELPRESS, "ablate", code=2, **api)
    assert "params.yaml: ablate.techniques: no technique is called magic" in said.splitlines()[-1]
    assert "Traceback" not in said
