"""The log of a flow run, kept on disk until Prefect's server has all of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.logging.handlers import APILogHandler

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")  # whose records the server is sent
_PAGE = 200  # lines: the most that the server gives, and few enough for one request to it


class _Kept(APILogHandler):
    """Writes what the server would be sent, a line a record."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(json.dumps(self.prepare(record)) + "\n")
            self._file.flush()
        except Exception:  # as its parent does: no log ends the run that it tells of
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        logging.Handler.close(self)


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Write the records of this process's flow run to `path` as well, for the length of the block."""
    handler = _Kept(path)
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()


def send_missing(client: SyncPrefectClient, run_id: UUID, path: Path) -> None:
    """Give the server the lines of `path`, if there is such a file, that it does not have."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [LogCreate.model_validate(_record(line)) for line in lines if line.endswith("}")]
    there = {(log.timestamp, log.message) for log in _sent(client, run_id)}
    missing = [log for log in kept if (log.timestamp, log.message) not in there]
    for start in range(0, len(missing), _PAGE):
        client.create_logs(missing[start : start + _PAGE])


def _record(line: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    record.pop("__payload_size__")
    return record


def _sent(client: SyncPrefectClient, run_id: UUID) -> Iterator[Any]:
    """What the server has of a flow run's log."""
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    for page in count():
        logs = client.read_logs(mine, limit=_PAGE, offset=page * _PAGE)
        yield from logs
        if len(logs) < _PAGE:
            return
