"""Flow runs of this checkout, remembered on disk until Prefect has their end and all that they logged.

A server that dies while a run is at work, or a run that is killed together with it, leaves a flow run Running for
ever: nobody else knows that it is not. The next run here closes it, with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed, Failed

from flows.engine import logs
from flows.engine.lock import Busy, only_run
from flows.engine.settings import STATE
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json, write_json

KILLED = "Its process was killed; the next run in its checkout found nobody at work on it."
AWAY = (httpx.HTTPError, PrefectException, OSError)  # what a server that does not answer raises here
_FOLDER = STATE / "flow-runs"
_KEPT_S = 30 * 24 * 3600.0  # a run that the server of today does not know may be known by that of tomorrow


def named(kind: str) -> str:
    """What a run is called in Prefect and in MLflow: when it began, and what it does."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {kind}"


class FlowRun:
    """The ends of the current flow run and of its task runs, and the artifacts that Prefect would not take."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{flow_run.id}.json"
        self._content: dict[str, Any] = {"state": None, "task_runs": {}, "artifacts": []}
        write_json(self._path, self._content)

    def artifact(self, artifact: ArtifactCreate) -> None:
        """Create an artifact of this run now, or else when the server is back."""
        try:
            with get_client(sync_client=True) as client:
                client.create_artifact(artifact)
        except AWAY:
            self._content["artifacts"].append(artifact.model_dump(mode="json", exclude_unset=True))
            write_json(self._path, self._content)

    def task_ended(self, name: str, task_run_id: UUID, state: State[Any]) -> None:
        """What a task run has come to, in case the server does not hear of it."""
        self._content["task_runs"][str(task_run_id)] = {"name": name, "state": _told(state)}
        write_json(self._path, self._content)

    def ended(self, state: State[Any]) -> None:
        """What the run has come to."""
        self._content["state"] = _told(state)
        write_json(self._path, self._content)


def _told(state: State[Any]) -> dict[str, Any]:
    return {"type": state.type.value, "name": state.name, "message": state.message}


def alone(root: Path, work: Callable[[FlowRun], State[Any]]) -> State[Any]:
    """Do `work` with the run lock of the checkout; within a flow run, whose last state is given.

    Cancelled if another run is at work, whoever started it; Failed, with the line that the error says and no
    traceback, where what was given is bad or a stage has failed.
    """
    global last
    try:
        with only_run(root):
            folder = root / _FOLDER
            _close_left(folder)
            run = FlowRun(folder)
            with logs.keeping(_log(folder / f"{flow_run.id}.json")):
                try:
                    last = work(run)
                except (BadInput, StageFailed) as error:
                    get_run_logger().error(str(error))
                    last = Failed(message=str(error), data=error)
            run.ended(last)
            return last
    except Busy as error:
        get_run_logger().warning(str(error))
        return Cancelled(message=str(error))


last: State[Any] | None = (
    None  # of the flow run that this process has ended, whether Prefect heard of it or not
)


def forget_events() -> None:
    """Drop what waits to be told to Prefect's server as it happened. If that is gone, Prefect tries each event for eight
    seconds before its process ends; the next run tells what has come of it all the same."""
    waiting = EventsWorker.instance()._queue
    with suppress(Empty):
        while True:
            waiting.get_nowait()


def _log(path: Path) -> Path:
    """The file beside a run's `path` that its log is kept in."""
    return path.with_suffix(".log")


def _close_left(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        try:
            with get_client(sync_client=True) as client:
                _close(client, UUID(path.stem), read_json(path))
                logs.send_missing(client, UUID(path.stem), _log(path))
        except ObjectNotFound:  # another server has it
            if time.time() - path.stat().st_mtime < _KEPT_S:
                continue
        except (*AWAY, ValueError, KeyError) as error:
            get_run_logger().warning("%s: %s", path, error)
            continue
        path.unlink()
        _log(path).unlink(missing_ok=True)


def _close(client: SyncPrefectClient, run_id: UUID, left: dict[str, Any]) -> None:
    """Give a flow run the end that it had: what it has told, or that its process was killed."""
    found = client.read_flow_run(run_id)
    for artifact in left["artifacts"]:
        client.create_artifact(ArtifactCreate.model_validate(artifact))
    if found.state is not None and found.state.is_final():
        return
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    known = {str(task_run.id): task_run for task_run in client.read_task_runs(flow_run_filter=mine)}
    for task_run_id, ended in left["task_runs"].items():
        if task_run_id not in known:
            _create_task_run(client, run_id, task_run_id, ended)
    for task_run_id, task_run in known.items():
        if task_run.state is None or not task_run.state.is_final():
            told = left["task_runs"].get(task_run_id, {}).get("state")
            client.set_task_run_state(task_run.id, _state(told), force=True)
    client.set_flow_run_state(run_id, _state(left["state"]), force=True)


def _state(told: dict[str, Any] | None) -> State[Any]:
    """What was told before the process ended; otherwise it was killed."""
    return State.model_validate(told) if told else Crashed(message=KILLED)


def _create_task_run(
    client: SyncPrefectClient, run_id: UUID, task_run_id: str, ended: dict[str, Any]
) -> None:
    about = {
        "id": task_run_id,
        "flow_run_id": str(run_id),
        "name": ended["name"],
        "task_key": ended["name"],
        "dynamic_key": task_run_id,
        "state": ended["state"],
    }
    client.request("POST", "/task_runs/", json=about)
