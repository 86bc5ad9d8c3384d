"""The flow on a toy DVC project, with a real Prefect server, real DVC and a real MLflow store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.integration.toy import (
    STAGES,
    ask,
    begin,
    flow_run_of,
    last_flow_run,
    mlflow_runs,
    modelpress,
    of_kind,
    run,
    states,
    task_runs,
    wait_for,
)

DVC = [sys.executable, "-m", "dvc"]


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_run_gives_the_lock_of_dvc_repro_and_then_only_cached_stages(
    toy: Path, reproduced: Path, api: dict[str, str]
) -> None:
    first = modelpress(toy, "run", check=True, **api)
    assert (toy / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()
    assert states(api) == {name: "Cached" if name.endswith(".dvc") else "Completed" for name in STAGES}
    assert "[train] train 3/3: loss 0.333" in first.stdout
    assert "recomputed" not in first.stdout
    flow_run = last_flow_run(api)
    _check_order(task_runs(api, flow_run["id"], len(STAGES)))

    second = modelpress(toy, "run", check=True, **api)
    assert "Nothing changed: nothing was recomputed." in second.stdout
    assert set(states(api).values()) == {"Cached"}
    assert last_flow_run(api)["state_name"] == "Cached"
    assert (toy / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()

    _check_mlflow(toy, flow_run)
    _check_artifacts(api, flow_run)


def _check_order(runs: dict[str, dict[str, Any]]) -> None:
    """Stages that need one core run beside each other, where there are two; the others run alone."""
    one, other = runs["prune@0.5"], runs["prune@0.25"]
    beside = one["start_time"] < other["end_time"] and other["start_time"] < one["end_time"]
    assert beside == (len(os.sched_getaffinity(0)) > 1)
    assert runs["train"]["start_time"] > runs["ingest"]["end_time"]


def _check_mlflow(toy: Path, flow_run: dict[str, Any]) -> None:
    runs = mlflow_runs(toy)
    first, second = of_kind(runs, "pipeline")
    assert len(runs) == 1 + len(STAGES[1:]) + 2 + 1, (
        "a run, a stage that ran each, two trials, and one run more"
    )
    assert {r.info.status for r in runs if r.info.run_name != "train trial 1"} == {"FINISHED"}
    assert first.data.tags["prefect.flow_run_id"] == flow_run["id"]
    assert first.info.run_name == flow_run["name"]
    commit = run(["git", "rev-parse", "HEAD"], toy).stdout.strip()
    assert first.data.tags["mlflow.source.git.commit"] == commit
    assert first.data.tags["modelpress.git_dirty"] == "false"
    assert first.data.tags["modelpress.dvc_lock"] == second.data.tags["modelpress.dvc_lock"]

    def children(parent: Run) -> dict[str, Run]:
        return {
            r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        }

    made = children(first)
    assert sorted(made) == sorted(STAGES[1:])
    assert {r.data.tags["modelpress.outcome"] for r in made.values()} == {"ran"}
    for parent, outcome in ((first, "ran"), (second, "unchanged")):
        said = parent.data.tags["mlflow.note.content"]
        for name, child in made.items():
            assert f"| {name} | {outcome} | [{child.info.run_id}](#/experiments/" in said
    train = made["train"]
    assert train.data.params == {"train.epochs": "2", "train.lr": "0.1"}
    assert train.data.metrics["loss"] == 0.25
    assert train.data.metrics["per.dense-fp32.ok"] == 1.0
    assert any(name.startswith("system/cpu") for name in train.data.metrics)
    client = MlflowClient(f"sqlite:///{toy / 'mlflow.db'}")
    curve = client.get_metric_history(made["evaluate"].info.run_id, "history/loss")
    assert [(m.step, m.value) for m in curve] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    trials = children(train)
    assert {name: (r.info.status, r.data.params, r.data.metrics["value"]) for name, r in trials.items()} == {
        "train trial 0": ("FINISHED", {"lr": "0.1"}, 0.9),
        "train trial 1": ("KILLED", {"lr": "0.2"}, 0.5),
    }


def _check_artifacts(api: dict[str, str], flow_run: dict[str, Any]) -> None:
    found = ask(api, "/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
    artifacts = {a["key"]: a for a in found}
    assert artifacts["progress-train"]["data"] == 100.0
    assert artifacts["progress-train"]["description"] == "train 3/3: loss 0.333"
    prune = task_runs(api, flow_run["id"], len(STAGES))["prune@0.5"]
    assert f"| [prune@0.5](/runs/task-run/{prune['id']}) | ran |" in artifacts["summary"]["data"]


def test_run_restores_a_stage_when_its_output_is_missing(done: Path, api: dict[str, str]) -> None:
    lock = (done / "dvc.lock").read_bytes()
    shutil.rmtree(done / "data/train")
    modelpress(done, "run", check=True, **api)
    assert states(api)["train"] == "Restored"
    assert states(api)["evaluate"] == "Cached"
    assert (done / "data/train/content").is_file()
    assert (done / "dvc.lock").read_bytes() == lock
    (parent,) = of_kind(mlflow_runs(done), "pipeline")
    assert "| train | restored | a run without MLflow |" in parent.data.tags["mlflow.note.content"]


def test_run_changes_params_as_dvc_does_and_drops_stale_candidates_when_overridden(
    done: Path, tmp_path: Path, api: dict[str, str]
) -> None:
    same = tmp_path / "same"
    shutil.copytree(done, same)
    words = ["-S", "prune.ratios=[0.25]", "-S", "train.lr=1e-3", "-S", "+registry={name: a b}"]
    run([*DVC, "exp", "run", "-q", *words], same)
    output = modelpress(done, "run", *words, check=True, **api).stdout
    assert (done / "params.yaml").read_bytes() == (same / "params.yaml").read_bytes()
    assert not (done / "data/prune/0.5").exists()
    assert "prune@0.25" in output
    assert "prune@0.5" not in output


def test_flow_is_red_and_dependants_are_not_run_when_a_stage_fails(toy: Path, api: dict[str, str]) -> None:
    failed = modelpress(toy, "run", TOY_FAIL="prune@0.5=1", **api)
    assert failed.returncode == 1
    assert (
        "prune@0.5 failed with exit code 1: prune@0.5: this cannot work (not run: evaluate)" in failed.stderr
    )
    assert "Traceback" not in failed.stderr + failed.stdout
    flow_run = last_flow_run(api)
    assert flow_run["state_type"] == "FAILED"
    runs = task_runs(api, flow_run["id"], len(STAGES))
    assert runs["prune@0.5"]["state_type"] == "FAILED"
    message = runs["prune@0.5"]["state"]["message"]
    assert "prune 3/3: loss 0.333" in message
    assert "this cannot work" in message
    assert runs["prune@0.25"]["state_name"] == "Completed"
    assert runs["evaluate"]["state_name"] == "NotReady"
    logged = ask(api, "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    assert any("this cannot work" in line["message"] for line in logged)
    assert not any("Traceback" in line["message"] for line in logged)
    status = {r.info.run_name: r.info.status for r in mlflow_runs(toy)}
    assert (status["prune@0.5"], status["prune@0.25"]) == ("FAILED", "FINISHED")
    assert [r.info.status for r in of_kind(mlflow_runs(toy), "pipeline")] == ["FAILED"]

    again = modelpress(toy, "run", check=True, **api)
    assert "[train] unchanged" in again.stdout
    assert {n: s for n, s in states(api).items() if s == "Completed"}.keys() == {"prune@0.5", "evaluate"}


def test_run_exits_2_with_the_stage_s_line_when_its_input_is_bad(toy: Path, api: dict[str, str]) -> None:
    done = modelpress(toy, "run", TOY_FAIL="ingest=2", **api)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "ingest: this cannot work" in done.stderr


def test_stage_is_tried_again_when_a_signal_killed_it(toy: Path, api: dict[str, str]) -> None:
    modelpress(toy, "run", check=True, TOY_FAIL="train=-9", **api)
    runs = task_runs(api, last_flow_run(api)["id"], len(STAGES))
    assert (runs["train"]["state_name"], runs["train"]["run_count"]) == ("Completed", 2)
    assert runs["ingest"]["run_count"] == 1


def test_stage_fails_when_it_takes_longer_than_the_timeout(done: Path, api: dict[str, str]) -> None:
    """Nothing but `train` runs, so that no other stage can be too slow for a short timeout."""
    ended = modelpress(done, "run", "-S", "train.lr=0.2", "--timeout", "6", TOY_SLEEP="train=120", **api)
    assert ended.returncode == 1
    assert "train took longer than 6 s" in ended.stderr
    wait_for(lambda: has_ended(int((done / "sleeping").read_text())))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_lives_on_and_nothing_is_half_written_when_a_run_is_stopped(
    toy: Path, api: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = begin(toy, **api)
    sleeper = int((toy / "sleeping").read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code
    assert "Traceback" not in errors
    wait_for(lambda: has_ended(sleeper))
    assert not (toy / "data/train").exists()


def test_second_run_is_refused_until_the_first_is_killed_and_then_goes_on(
    toy: Path, reproduced: Path, api: dict[str, str]
) -> None:
    process = begin(toy, **api)
    sleeper = int((toy / "sleeping").read_text())
    before = (toy / "params.yaml").read_bytes()
    refused = modelpress(toy, "run", "-S", "train.epochs=9", **api)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert f"another run is at work in {toy} (process {process.pid})" in refused.stderr
    assert (toy / "params.yaml").read_bytes() == before

    killed = last_flow_run(api)
    process.kill()
    process.communicate(timeout=240)
    wait_for(lambda: has_ended(sleeper))
    assert not (toy / "data/train").exists()
    assert {r.info.run_name for r in mlflow_runs(toy) if r.info.status == "RUNNING"} == {
        killed["name"],
        "train",
    }
    modelpress(toy, "run", check=True, **api)
    assert (toy / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()
    assert flow_run_of(api, killed["id"])["state_name"] == "Crashed"
    assert "killed" in flow_run_of(api, killed["id"])["state"]["message"]
    assert task_runs(api, killed["id"], 3)["train"]["state_name"] == "Crashed"
    left = [r for r in mlflow_runs(toy) if "modelpress.ended" in r.data.tags]
    assert {(r.info.run_name, r.info.status) for r in left} == {
        (killed["name"], "KILLED"),
        ("train", "KILLED"),
    }
    assert not [r for r in mlflow_runs(toy) if r.info.status == "RUNNING"]


def test_status_names_what_would_run_when_a_parameter_changed(done: Path) -> None:
    params = done / "params.yaml"
    params.write_text(params.read_text().replace("lr: 0.1", "lr: 0.2"))
    pending = json.loads(modelpress(done, "status", "--json", check=True).stdout)["pending"]
    assert pending == ["train", "prune@0.5", "prune@0.25", "evaluate"]
