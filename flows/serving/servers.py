"""The Prefect and MLflow servers of a checkout, on loopback."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from flows.engine.child import Child
from flows.engine.settings import EXPERIMENT, PREFECT_PORT, STATE
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json, write_json

HOST = "127.0.0.1"
START_S = 180.0  # how long a server may take; migrations of a new database included
_RECORD = STATE / "prefect-server.json"
_GRACE_S = 5.0


class Server:
    """A server in a child process. Its output goes to NAME-server.log in STATE."""

    def __init__(
        self,
        name: str,
        port: int,
        command: list[str],
        env: Mapping[str, str],
        health: str,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.url = f"http://{HOST}:{port}"
        self._name, self._health = name, self.url + health
        self.log = STATE / f"{name.lower()}-server.log"
        STATE.mkdir(exist_ok=True)
        with self.log.open("wb") as log:
            self.child = Child(
                command, env={**os.environ, **env}, output=log, pass_fds=pass_fds, grace_s=_GRACE_S
            )

    def wait_until_up(self) -> None:
        """Return when it answers. Raises StageFailed if it ends or does not within START_S."""
        end = time.monotonic() + START_S
        while not answers(self._health):
            code = self.child.poll()
            if code is not None:
                raise StageFailed(f"{self._name}'s server ended with {code}: {_last_line(self.log)}")
            if time.monotonic() > end:
                raise StageFailed(f"{self._name}'s server does not answer: see {self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        self.child.stop()
        self.child.wait()


def prefect_server(port: int | None, *, schedules: bool) -> Server:
    """Prefect's server with its UI, on the database in PREFECT_HOME.

    The port is bound here and handed on: two runs that start at the same time would else both find it
    free, and one would talk to the other's server.

    Args:
        port: where it listens; None is Prefect's usual port if it is free, else any.
        schedules: whether it creates the runs of schedules. Without a worker they would pile up, so the
            server that lives only as long as one run does not.

    Raises:
        BadInput: the port is in use.
    """
    with bind(port) as listener:
        port = int(listener.getsockname()[1])
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--fd", str(listener.fileno()), "--log-level", "error", "--lifespan", "on"]
        env = {
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_API_URL": f"http://{HOST}:{port}/api",
            "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": str(schedules).lower(),
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": str(schedules).lower(),
        }
        return Server("Prefect", port, command, env, "/api/health", (listener.fileno(),))


def mlflow_server(port: int, tracking_uri: str) -> Server:
    """MLflow's server with its UI, on the store at `tracking_uri`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1"]
    command += ["--allowed-hosts", f"localhost:{port},{HOST}:{port}"]
    env = {
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,  # not on the command line, which all users of a machine may read
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # Jobs, which judge answers of language models, are eight processes that take longer to start than the server.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return Server("MLflow", port, command, env, "/health")


def table_of_runs(mlflow: str) -> str:
    """The address of the experiment's table of runs on an MLflow server, with the columns that say most; the
    server's own if there is no experiment yet, or it wants to know who asks."""
    asked = f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
    try:
        with urllib.request.urlopen(asked, timeout=5) as response:
            number = json.load(response)["experiment"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return mlflow
    return f"{mlflow}/#/experiments/{number}/runs?viewStateShareKey={EXPERIMENT}"


def running_prefect() -> str | None:
    """The API address of the server that `modelpress ui` runs in this checkout, if it does."""
    if not _RECORD.is_file():
        return None
    try:
        url = str(read_json(_RECORD)["api"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    return url if answers(f"{url}/health") else None


def record_prefect(url: str | None) -> None:
    """Remember that Prefect's server of this checkout answers at `url`, or that there is none."""
    if url is None:
        _RECORD.unlink(missing_ok=True)
    else:
        write_json(_RECORD, {"api": f"{url}/api"})


def bind(port: int | None) -> socket.socket:
    """A socket that listens on loopback at `port`, or at Prefect's usual port if that is free and else any (None).

    It listens at once: as long as none does, several sockets can be bound to one port, and the server that listens first
    would answer for all. Whoever connects waits until a server accepts.

    Raises:
        BadInput: the port is in use.
    """
    try:
        return _listen(PREFECT_PORT if port is None else port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        if port is not None:
            why = "in use" if error.errno == errno.EADDRINUSE else "not allowed for this user"
            raise BadInput(f"port {port} is {why}: choose another one") from None
        return _listen(0)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"see {log}"
