"""What is to be recorded in MLflow, in a file until it is: a server that is away loses nothing and delays nobody.

Each record is a line of JSON that says which run it is about. A thread sends them in their order; while the store
does not answer it waits, and what is left when the process ends is sent by the next one. A run whose process was
killed is closed then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tasks.core.tracking.records import batches, clean
from tasks.core.tracking.registered import reason

log = logging.getLogger(__name__)

RETRY_S = 2.0  # between two tries while the store does not answer
KILLED = "Its process was killed; the next run in its checkout closed it."
_METRICS_A_BATCH, _PARAMS_A_BATCH = 1000, 100  # MLflow's limits
# What MLflow calls a failure that is not one of what it was asked for.
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")


class Outbox:
    """The records of one process, in a file of `folder`. Safe to call from several threads.

    A run has a name of ours, `run`, until MLflow has given it its id.
    """

    def __init__(self, folder: Path, experiment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._client, self._experiment = MlflowClient(), experiment
        self._left = [Records.read(path) for path in sorted(folder.glob("*.jsonl"))]
        self._own = Records(folder / f"{time.time_ns()}.jsonl")
        self._own.write({"op": "store", "store": _store()})
        self._changed = threading.Condition()
        self._closing = False
        self._sent = 0
        self._thread = threading.Thread(target=self._deliver, name="mlflow-outbox", daemon=True)
        self._thread.start()

    def create(self, run: str, name: str, parent: str | None, tags: Mapping[str, str]) -> None:
        """A run called `name` in MLflow, beneath the run `parent`."""
        self._put(
            {"op": "create", "run": run, "name": name, "parent": parent, "tags": dict(tags), "at": _now()}
        )

    def log(
        self,
        run: str,
        metrics: Iterable[tuple[str, float, int]] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics (name, value, step), parameters and tags of a run."""
        now = _now()
        self._put(
            {
                "op": "log",
                "run": run,
                "metrics": [[clean(name), value, now, step] for name, value, step in metrics],
                "params": {clean(k): str(v) for k, v in (params or {}).items()},
                "tags": dict(tags or {}),
            }
        )

    def use(self, run: str, dataset: Mapping[str, str]) -> None:
        """The data set that a run has used: the fields of MLflow's Dataset."""
        self._put({"op": "use", "run": run, "dataset": dict(dataset)})

    def describe(self, run: str, text: str, made_by: Mapping[str, str] | None = None) -> None:
        """The description of a run. In `text`, {NAME} becomes the address of the run whose tag modelpress.key is
        `made_by`[NAME], and {RUN} that of the run RUN; []({NAME}) a link to it."""
        self._put({"op": "describe", "run": run, "text": text, "made_by": dict(made_by or {})})

    def end(self, run: str, status: str) -> None:
        """Close a run: FINISHED, FAILED or KILLED."""
        self._put({"op": "end", "run": run, "status": status, "at": _now()})

    def id_of(self, run: str, seconds: float) -> str | None:
        """The id that MLflow gave to `run`; None if it refuses it, or has taken no record for `seconds`: those that
        another process has left come first."""
        with self._changed:
            self._wait(lambda: run in self._own.ids or run in self._own.refused, seconds)
            return self._own.ids.get(run)

    def close(self, seconds: float) -> int:
        """Wait until all is sent, or nothing has been for `seconds`; how many records are left in the file."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._wait(lambda: not self._own.waiting, seconds)
            left = len(self._own.waiting)
        if not left:
            self._thread.join(seconds)
        return left

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Until `done`, or nothing has been sent for `seconds`: a store that is slow but answers is waited for."""
        goes_on = True
        while not done() and goes_on:
            before = self._sent
            goes_on = self._changed.wait_for(lambda: self._sent > before, seconds)  # noqa: B023 (used at once)

    def _put(self, record: dict[str, Any]) -> None:
        with self._changed:
            self._own.write(record)
            self._changed.notify_all()

    def _deliver(self) -> None:
        for records in self._left:
            if records.store == _store():
                records.close_runs()
                self._send_all(records)
                records.path.unlink()
        while True:
            self._send_all(self._own)
            with self._changed:
                if self._closing and not self._own.waiting:
                    self._own.path.unlink(missing_ok=True)
                    return
                self._changed.wait_for(lambda: self._own.waiting or self._closing)

    def _send_all(self, records: Records) -> None:
        """Send what waits, in its order; what the store refuses is told and left out."""
        while records.waiting:
            record = records.waiting[0]
            try:
                run_id = self._send(record, records.ids)
            except MlflowException as error:
                if error.error_code in _AWAY:
                    time.sleep(RETRY_S)
                    continue
                log.warning("%s is not mirrored to MLflow: %s", record["run"], reason(error))
                run_id = None
                if record["op"] == "create":
                    records.refused.add(record["run"])
            with self._changed:
                records.sent(run_id)
                self._sent += 1
                self._changed.notify_all()

    def _send(self, record: dict[str, Any], ids: Mapping[str, str]) -> str | None:
        """One record; the id of the run that it created, if it did."""
        client, run = self._client, record["run"]
        if record["op"] == "create":
            tags = dict(record["tags"])
            if record["parent"]:
                tags["mlflow.parentRunId"] = ids.get(record["parent"], "")
            made = client.create_run(self._experiment, record["at"], tags, record["name"])
            return str(made.info.run_id)
        if run not in ids:
            return None  # it was refused, which has been told
        run_id = ids[run]
        match record["op"]:
            case "log":
                for some in batches(record["metrics"], _METRICS_A_BATCH):
                    client.log_batch(run_id, metrics=[Metric(*metric) for metric in some])
                for pairs in batches(record["params"].items(), _PARAMS_A_BATCH):
                    client.log_batch(run_id, params=[Param(*pair) for pair in pairs])
                if record["tags"]:
                    client.log_batch(run_id, tags=[RunTag(*pair) for pair in record["tags"].items()])
            case "use":
                used = DatasetInput(
                    Dataset(**record["dataset"]), [InputTag("mlflow.data.context", "training")]
                )
                client.log_inputs(run_id, datasets=[used])
            case "describe":
                client.set_tag(run_id, "mlflow.note.content", self._note(record, ids))
            case "end":
                client.set_terminated(run_id, record["status"], record["at"])
        return None

    def _note(self, record: dict[str, Any], ids: Mapping[str, str]) -> str:
        address = f"#/experiments/{self._experiment}/runs/"
        text = str(record["text"])
        makers = {name: self._maker(key) for name, key in record["made_by"].items()}
        for name, run_id in {**ids, **makers}.items():
            linked = f"[{run_id}]({address}{run_id})" if run_id else "a run without MLflow"
            text = text.replace(f"[]({{{name}}})", linked).replace(f"{{{name}}}", address + run_id)
        return text

    def _maker(self, key: str) -> str:
        """The run that made the outputs described by `key`; empty if it was made without MLflow, as by a plain
        `dvc repro`."""
        wanted = f"tags.`modelpress.key` = '{key}' and tags.`modelpress.outcome` = 'ran'"
        order = ["attributes.start_time DESC"]
        runs = self._client.search_runs([self._experiment], wanted, max_results=1, order_by=order)
        return str(runs[0].info.run_id) if runs else ""


class Records:
    """A file of records: those that wait, and the ids that MLflow gave to the runs of those that were sent."""

    def __init__(self, path: Path) -> None:
        self.path, self.store = path, ""
        self.waiting: deque[dict[str, Any]] = deque()
        self.ids: dict[str, str] = {}
        self.refused: set[str] = set()
        self._open: set[str] = set()  # runs that nobody has closed

    @classmethod
    def read(cls, path: Path) -> Records:
        """What a process has left behind. A line that it could not finish is left out."""
        records = cls(path)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                records._enter(json.loads(line))
            except (ValueError, KeyError, IndexError):
                break
        return records

    def write(self, record: dict[str, Any]) -> None:
        self._enter(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def sent(self, run_id: str | None) -> None:
        """The first that waits was sent, and created the run `run_id` if it did."""
        self.write({"op": "sent", "id": run_id})

    def close_runs(self) -> None:
        """End the runs that the process has left open."""
        for run in sorted(self._open):
            self.write(
                {"op": "log", "run": run, "metrics": [], "params": {}, "tags": {"modelpress.ended": KILLED}}
            )
            self.write({"op": "end", "run": run, "status": "KILLED", "at": _now()})

    def _enter(self, record: dict[str, Any]) -> None:
        match record["op"]:
            case "store":
                self.store = record["store"]
                return
            case "sent":
                done = self.waiting.popleft()
                if record["id"]:
                    self.ids[done["run"]] = record["id"]
                return
            case "create":
                self._open.add(record["run"])
            case "end":
                self._open.discard(record["run"])
        self.waiting.append(record)


def _store() -> str:
    """The store that MLflow uses, told from others without its password."""
    return hashlib.sha256(mlflow.get_tracking_uri().encode()).hexdigest()


def _now() -> int:
    """Milliseconds."""
    return int(time.time() * 1000)
