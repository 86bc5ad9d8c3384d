"""A run and the servers that record it: those that do not answer, that die, that it starts itself, that are there."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flows.serving import servers
from tests.integration.toy import (
    STAGES,
    ask,
    begin,
    environment,
    last_flow_run,
    mlflow_runs,
    modelpress,
    of_kind,
    prefect_server,
    states,
    task_runs,
)

PASSWORD = "s3cret"
STARTING_S = 30  # of a process on a busy machine


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
        done = modelpress(toy, "run", **{**api, variable: f"http://me:{PASSWORD}@127.0.0.1:{port}/api"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{variable}: http://127.0.0.1:{port}/api does not answer" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert time.monotonic() - begun < 15 + STARTING_S
    assert not (toy / "data/train").exists()


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_run_is_refused_in_one_line_when_another_server_answers(
    toy: Path, api: dict[str, str], variable: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        done = modelpress(toy, "run", **{**api, variable: f"http://me:{PASSWORD}@{address}"})
        other.shutdown()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"{variable}: http://{address} does not answer as " in done.stderr
    assert "501" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert not (toy / "data/train").exists()


def test_work_goes_on_and_is_recorded_by_the_next_run_when_the_servers_die(
    toy: Path, reproduced: Path, databases: Path, tmp_path: Path
) -> None:
    shutil.copytree(databases, tmp_path, dirs_exist_ok=True)
    with servers.bind(0) as listener:
        port = listener.getsockname()[1]
    with prefect_server(tmp_path / "prefect") as api, mlflow_server(tmp_path, port) as uri:
        at_once = {"PREFECT_CLIENT_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        process = begin(toy, seconds=4, **api, MLFLOW_TRACKING_URI=uri, **at_once)
    printed, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert "MLflow does not answer" in errors
    assert "Traceback" not in errors
    assert (toy / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()

    with prefect_server(tmp_path / "prefect") as api, mlflow_server(tmp_path, port) as uri:
        modelpress(toy, "run", check=True, **api, MLFLOW_TRACKING_URI=uri)
        runs = ask(api, "/flow_runs/filter", {"sort": "START_TIME_ASC"})
        assert [run["state_name"] for run in runs] == ["Completed", "Cached"]
        ended = {
            name: task["state_name"] for name, task in task_runs(api, runs[0]["id"], len(STAGES)).items()
        }
        assert ended == {name: "Cached" if name.endswith(".dvc") else "Completed" for name in STAGES}
        found = ask(api, "/artifacts/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
        assert "summary" in {artifact["key"] for artifact in found}
        logged = ask(api, "/logs/filter", {"logs": {"flow_run_id": {"any_": [runs[0]["id"]]}}})
        lines = Counter((log["message"], log["task_run_id"] is not None) for log in logged)
        assert lines["train 3/3: loss 0.333", True] == 1, "what it had before is not sent again"
        assert lines["evaluate 3/3: loss 0.333", True] == 1, "what it was not there to hear is sent"
        mirrored = mlflow_runs(toy, uri)
    children = [r for r in mirrored if r.data.tags["modelpress.kind"] == "stage"]
    assert {r.info.run_name: r.info.status for r in children} == dict.fromkeys(STAGES[1:], "FINISHED")
    assert {r.data.metrics["loss"] for r in children} == {0.25}
    assert [r.info.status for r in of_kind(mirrored, "pipeline")] == ["FINISHED", "FINISHED"]
    assert not list((toy / ".modelpress/mlflow").iterdir())
    kept = [
        path.read_bytes()
        for place in (toy, tmp_path / "prefect")
        for path in place.rglob("*")
        if path.is_file()
    ]
    assert not any(PASSWORD in text for text in (printed, errors, str(logged)))
    assert not any(PASSWORD.encode() in content for content in (*kept, (tmp_path / "mlflow.db").read_bytes()))


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server at `port` with its database in `folder`; its address, with a user and a password in it."""
    with chdir(folder):  # where the server's log goes
        server = servers.mlflow_server(port, f"sqlite:///{folder / 'mlflow.db'}")
        server.wait_until_up()
    try:
        yield server.url.replace("//", f"//me:{PASSWORD}@")
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
            assert ui.wait(timeout=120) == 130
    assert not (done / ".modelpress/prefect-server.json").exists()
