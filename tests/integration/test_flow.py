"""The flow on a toy DVC project, with a real Prefect server, real DVC and a real MLflow store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.serving import servers
from tests.integration.toy import (
    ask,
    environment,
    flow_run_of,
    last_flow_run,
    modelpress,
    prefect_server,
    run,
    task_runs,
)

DVC = [sys.executable, "-m", "dvc"]
STARTING_S = 15  # of a process on a busy machine
STAGES = ["data/raw/in.txt.dvc", "ingest", "train", "prune@0.5", "prune@0.25", "evaluate"]


def states(api: dict[str, str], count: int = len(STAGES)) -> dict[str, str]:
    runs = task_runs(api, last_flow_run(api)["id"], count)
    return {name: task["state_name"] for name, task in runs.items()}


def mlflow_runs(folder: Path, uri: str = "") -> list[Run]:
    client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'modelpress'")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def of_kind(runs: list[Run], kind: str) -> list[Run]:
    return [r for r in runs if r.data.tags["modelpress.kind"] == kind]


def begin(folder: Path, *words: str, seconds: int = 120, **env: str) -> subprocess.Popen[str]:
    """`modelpress run`, returned as soon as its stage `train` sleeps."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", *words],
        cwd=folder,
        env=environment(TOY_SLEEP=f"train={seconds}", **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (folder / "sleeping").exists() and (folder / "sleeping").read_text())
    return process


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


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


def test_stage_fails_when_it_takes_longer_than_the_timeout(toy: Path, api: dict[str, str]) -> None:
    done = modelpress(toy, "run", "--timeout", "6", TOY_SLEEP="train=120", **api)
    assert done.returncode == 1
    assert "train took longer than 6 s" in done.stderr
    wait_for(lambda: has_ended(int((toy / "sleeping").read_text())))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_lives_on_and_nothing_is_half_written_when_a_run_is_stopped(
    toy: Path, api: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = begin(toy, **api)
    sleeper = int((toy / "sleeping").read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
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
    process.communicate(timeout=60)
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


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("listens", [True, False])
def test_run_is_refused_in_one_line_when_a_server_does_not_answer(
    toy: Path, api: dict[str, str], variable: str, listens: bool
) -> None:
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if not listens:
            silent.close()
        done = modelpress(toy, "run", **{**api, variable: f"http://me:s3cret@127.0.0.1:{port}/api"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{variable}: http://127.0.0.1:{port}/api does not answer" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert time.monotonic() - begun < 15 + STARTING_S
    assert not (toy / "data/train").exists()


def test_work_goes_on_and_is_recorded_by_the_next_run_when_the_servers_die(
    toy: Path, reproduced: Path, tmp_path: Path
) -> None:
    (tmp_path / "mlflow").mkdir()
    with servers.bind(0) as listener:
        port = listener.getsockname()[1]
    with prefect_server(tmp_path / "prefect") as api, mlflow_server(tmp_path / "mlflow", port) as uri:
        at_once = {"PREFECT_CLIENT_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        process = begin(toy, seconds=4, **api, MLFLOW_TRACKING_URI=uri, **at_once)
    errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    assert "MLflow does not answer" in errors
    assert "Traceback" not in errors
    assert (toy / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()

    with prefect_server(tmp_path / "prefect") as api, mlflow_server(tmp_path / "mlflow", port) as uri:
        modelpress(toy, "run", check=True, **api, MLFLOW_TRACKING_URI=uri)
        runs = ask(api, "/flow_runs/filter", {"sort": "START_TIME_ASC"})
        assert [run["state_name"] for run in runs] == ["Completed", "Cached"]
        ended = {
            name: task["state_name"] for name, task in task_runs(api, runs[0]["id"], len(STAGES)).items()
        }
        assert ended == {name: "Cached" if name.endswith(".dvc") else "Completed" for name in STAGES}
        found = ask(api, "/artifacts/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
        assert "summary" in {artifact["key"] for artifact in found}
        mirrored = mlflow_runs(toy, uri)
    children = [r for r in mirrored if r.data.tags["modelpress.kind"] == "stage"]
    assert {r.info.run_name: r.info.status for r in children} == dict.fromkeys(STAGES[1:], "FINISHED")
    assert {r.data.metrics["loss"] for r in children} == {0.25}
    assert [r.info.status for r in of_kind(mirrored, "pipeline")] == ["FINISHED", "FINISHED"]
    assert not list((toy / ".modelpress/mlflow").iterdir())


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server at `port` with its database in `folder`; its address."""
    with chdir(folder):  # where the server's log goes
        server = servers.mlflow_server(port, f"sqlite:///{folder / 'mlflow.db'}")
        server.wait_until_up()
    try:
        yield server.url
    finally:
        server.stop()


def test_run_is_in_the_ui_afterwards_when_it_had_a_server_of_its_own(done: Path) -> None:
    first = modelpress(done, "run", check=True)
    (line,) = [line for line in first.stdout.splitlines() if "this one: " in line]
    run_id = line.rstrip(")").rpartition("/")[2]
    with prefect_server(done / ".modelpress/prefect") as api:
        assert last_flow_run(api)["id"] == run_id
        assert set(states(api).values()) == {"Cached"}


def test_run_uses_the_server_of_modelpress_ui_when_it_is_up(done: Path) -> None:
    with servers.bind(0) as one, servers.bind(0) as other:
        prefect, mlflow = one.getsockname()[1], other.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "flows.cli.main",
        "ui",
        f"--prefect-port={prefect}",
        f"--mlflow-port={mlflow}",
    ]
    with subprocess.Popen(command, cwd=done, env=environment(), stdout=subprocess.PIPE, text=True) as ui:
        try:
            assert ui.stdout is not None
            lines = [ui.stdout.readline() for _ in range(4)]
            assert lines[0] == f"Prefect: http://127.0.0.1:{prefect}\n"
            output = modelpress(done, "run", check=True).stdout
            assert f"watch this run at http://127.0.0.1:{prefect}\n" in output
        finally:
            ui.send_signal(signal.SIGINT)
            assert ui.wait(timeout=30) == 130
    assert not (done / ".modelpress/prefect-server.json").exists()


def test_status_names_what_would_run_when_a_parameter_changed(done: Path) -> None:
    params = done / "params.yaml"
    params.write_text(params.read_text().replace("lr: 0.1", "lr: 0.2"))
    pending = json.loads(modelpress(done, "status", "--json", check=True).stdout)["pending"]
    assert pending == ["train", "prune@0.5", "prune@0.25", "evaluate"]
