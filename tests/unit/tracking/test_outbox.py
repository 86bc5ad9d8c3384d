"""Records wait in a file until MLflow has them: those of a process that was killed, too."""

import json
import logging
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.core.tracking.outbox import KILLED, Outbox, Records, _store

pytestmark = pytest.mark.slow  # records are waited for


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"  # a new one takes seconds


@pytest.fixture
def experiment(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an empty experiment in the store to which MLflow's clients lead."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return str(MlflowClient().create_experiment(tmp_path.name))


def runs(experiment: str) -> dict[str, Run]:
    return {run.info.run_name: run for run in MlflowClient().search_runs([experiment])}


def killed(folder: Path, store: str, sent: list[str | None]) -> Path:
    """The records of a process that was killed while it wrote one, after those in `sent` had been sent."""
    folder.mkdir()
    records = Records(folder / "1.jsonl")
    records.write({"op": "store", "store": store})
    for name, parent in (("run", None), ("train", "run")):
        records.write({"op": "create", "run": name, "name": name, "parent": parent, "tags": {}, "at": 1})
    records.write({"op": "log", "run": "train", "metrics": [["loss", 0.25, 1, 0]], "params": {}, "tags": {}})
    for run_id in sent:
        records.sent(run_id)
    with records.path.open("a", encoding="utf-8") as file:
        file.write('{"op": "log", "ru')
    return records.path


def test_records_are_sent_and_runs_closed_when_their_process_was_killed(
    experiment: str, tmp_path: Path
) -> None:
    parent = MlflowClient().create_run(experiment, run_name="run")
    path = killed(tmp_path / "waiting", _store(), [parent.info.run_id])
    outbox = Outbox(path.parent, experiment)
    assert outbox.close(60) == 0
    found = runs(experiment)
    assert {name: run.info.status for name, run in found.items()} == {"run": "KILLED", "train": "KILLED"}
    assert found["train"].data.metrics == {"loss": 0.25}
    assert found["train"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found["train"].data.tags["modelpress.ended"] == KILLED
    assert list(path.parent.iterdir()) == []


def test_records_are_left_alone_when_they_are_of_another_store(experiment: str, tmp_path: Path) -> None:
    path = killed(tmp_path / "waiting", "another", [])
    assert Outbox(path.parent, experiment).close(60) == 0
    assert runs(experiment) == {}
    assert list(path.parent.iterdir()) == [path]


def test_record_is_told_and_left_out_when_the_store_refuses_it(
    experiment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "waiting", experiment)
    outbox.create("run", "run", None, {})
    outbox.log("run", params={"lr": 0.1})
    outbox.log("run", params={"lr": 0.2})
    outbox.log("run", [("loss", 0.5, 0)])
    outbox.end("run", "FINISHED")
    with caplog.at_level(logging.WARNING):
        assert outbox.close(60) == 0
    assert "run is not mirrored to MLflow: Changing param values is not allowed" in caplog.text
    run = runs(experiment)["run"]
    assert (run.data.params, run.data.metrics, run.info.status) == ({"lr": "0.1"}, {"loss": 0.5}, "FINISHED")


def test_description_links_to_runs_when_it_names_them(experiment: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "waiting", experiment)
    outbox.create("run", "run", None, {})
    outbox.create("train", "train", "run", {"modelpress.key": "k", "modelpress.outcome": "ran"})
    outbox.describe("run", "[]({train}) []({again}) []({lost})", {"again": "k", "lost": "none"})
    outbox.end("run", "FINISHED")
    assert outbox.close(60) == 0
    train = runs(experiment)["train"].info.run_id
    link = f"[{train}](#/experiments/{experiment}/runs/{train})"
    note = runs(experiment)["run"].data.tags["mlflow.note.content"]
    assert note == f"{link} {link} a run without MLflow"


def test_lines_are_valid_json_when_they_are_read_again(tmp_path: Path) -> None:
    path = killed(tmp_path / "waiting", "store", ["a"])
    assert [json.loads(line)["op"] for line in path.read_text().splitlines()[:-1]][-1] == "sent"
    assert Records.read(path).ids == {"run": "a"}
    assert [record["op"] for record in Records.read(path).waiting] == ["create", "log"]


@pytest.mark.parametrize(("pause", "left"), [(1.5, 0), (60, 4)])
def test_end_waits_for_the_last_record_when_the_store_is_slow_but_not_when_it_is_silent(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float, left: int
) -> None:
    outbox = Outbox(tmp_path / "waiting", experiment)
    outbox.create("run", "run", None, {})
    assert outbox.id_of("run", 60)
    log_batch, goes_on = MlflowClient.log_batch, threading.Event()

    def slow(*given: object, **named: object) -> object:
        goes_on.wait(pause)
        return log_batch(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    for step in range(4):
        outbox.log("run", [("loss", 0.5, step)])
    assert outbox.close(4) == left
    goes_on.set()
    if left == 0:
        assert runs(experiment)["run"].data.metrics == {"loss": 0.5}


def test_id_is_waited_for_when_the_records_of_a_killed_process_take_long(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = killed(tmp_path / "waiting", _store(), [])
    records = Records.read(path)
    for step in range(3):
        records.write({**records.waiting[-1], "metrics": [["loss", 0.25, 1, step + 1]]})
    log_batch = MlflowClient.log_batch

    def slow(*given: object, **named: object) -> object:
        time.sleep(1.2)
        return log_batch(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    outbox = Outbox(path.parent, experiment)
    outbox.create("own", "own", None, {})
    assert outbox.id_of("own", 3)
    assert outbox.close(60) == 0
