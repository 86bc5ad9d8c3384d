"""`modelpress ui` and `modelpress deploy`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from flows.serving import servers
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.reachable import reach, shown, without_passwords

POOL = "local"
SILENT, SILENT_S = "modelpress: a run is silent", 90  # three heartbeats, of which prefect.yaml sets the pace


def ui(prefect_port: int, mlflow_port: int) -> None:
    """Run both servers on loopback until interrupted. The current folder must be the checkout.

    An MLflow that is a server already (MLFLOW_TRACKING_URI) is only named.

    Raises:
        BadInput: a port is in use.
        StageFailed: a server ended or does not answer.
    """
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    remote = tracking.startswith(("http://", "https://"))
    if not remote:
        servers.bind(mlflow_port).close()
    with ExitStack() as stack:
        running = [servers.prefect_server(prefect_port, schedules=True)]
        stack.callback(running[0].stop)
        if not remote:
            running.append(servers.mlflow_server(mlflow_port, tracking))
            stack.callback(running[1].stop)
        for server in running:
            server.wait_until_up()
        prefect = running[0].url
        servers.record_prefect(prefect)
        stack.callback(servers.record_prefect, None)
        print(
            f"Prefect: {prefect}\nMLflow:  {servers.table_of_runs(shown(tracking) if remote else running[1].url)}"
        )
        print(f"scheduled runs: PREFECT_API_URL={prefect}/api prefect worker start --pool {POOL}")
        print("Ctrl-C stops both", flush=True)
        while all(server.child.poll() is None for server in running):
            time.sleep(0.2)
        raise StageFailed(f"a server has ended: see {' and '.join(str(server.log) for server in running)}")


def deploy(root: Path) -> None:
    """Register the deployments of prefect.yaml, without a question. Raises StageFailed."""
    with prefect() as server:
        if server is not None:
            server.wait_until_up()
        _prefect_cli("work-pool", "create", POOL, "--type", "process", "--overwrite")
        _prefect_cli("deploy", "--all", "--prefect-file", str(root / "prefect.yaml"))
        _close_silent_runs()


def _close_silent_runs() -> None:
    """Have Prefect mark a flow run Crashed when it has been silent for SILENT_S: a worker that was killed with its
    host says nothing any more."""
    from prefect import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    ends = ("Completed", "Cached", "Failed", "Cancelled", "Crashed")
    automation = AutomationCore(
        name=SILENT,
        description="A run gives a sign of life every 30 s, until it ends.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message=f"No sign of life for {SILENT_S} s."
            )
        ],
    )
    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(SILENT):
            client.delete_automation(old.id)
        client.create_automation(automation)


@contextmanager
def prefect() -> Iterator[servers.Server | None]:
    """A Prefect server for the block, in PREFECT_API_URL: the one that is named there, the one that
    `modelpress ui` runs here, or one of its own, which is given and may still be starting.

    Raises:
        BadInput: the one that is named does not answer, or is none of Prefect's.
    """
    if os.environ.get("PREFECT_API_URL"):
        reach("PREFECT_API_URL", "/health")
        _check_api()
    found = os.environ.get("PREFECT_API_URL") or servers.running_prefect()
    if found:
        os.environ["PREFECT_API_URL"] = found
        yield None
        return
    server = servers.prefect_server(None, schedules=False)
    os.environ["PREFECT_API_URL"] = f"{server.url}/api"
    try:
        yield server
    finally:
        server.stop()
        del os.environ["PREFECT_API_URL"]


def _check_api() -> None:
    """Raises BadInput unless what answers at PREFECT_API_URL is Prefect's API, in a version that this client speaks."""
    from prefect import get_client

    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
    except RuntimeError as error:
        answer = getattr(error.__cause__ or error.__context__, "response", None)
        said = (
            f"{answer.status_code} {answer.reason_phrase}"
            if answer is not None
            else without_passwords(str(error))
        )
        raise BadInput(
            f"PREFECT_API_URL: {shown(os.environ['PREFECT_API_URL'])} does not answer as Prefect's API does ({said}): "
            "the URL of a server of Prefect ends in /api"
        ) from None


def _prefect_cli(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        raise StageFailed(f"prefect {' '.join(words[:2])}: {lines[-1].strip()}")
