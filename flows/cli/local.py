"""The flow run from a terminal, with a Prefect server of its own if none is at hand."""

from __future__ import annotations

import gc
import logging
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.display import Display
from flows.engine.lock import only_run
from flows.serving import services
from tasks.core.common.errors import StageFailed
from tasks.core.common.reachable import shown, without_passwords

_RECORDED_S = 60.0  # how long the server may take to write down what it was told


@dataclass(frozen=True)
class Done:
    """A run that ended well: what it did in a sentence, and its page in Prefect's UI."""

    message: str
    page: str


def run(root: Path, *, force: bool, retries: int, timeout_s: float, watch: bool) -> Done:
    """Run the flow in this process. The current folder must be `root`.

    A server named by PREFECT_API_URL is used, or the one that `modelpress ui` runs; else one is started
    for the time of this run, on the same database.

    Args:
        root: the checkout.
        force, retries, timeout_s: as for the flow.
        watch: show progress bars; otherwise plain lines.

    Raises:
        BadInput, StageFailed: as the flow does.
    """
    gc.disable()  # while a hundred thousand objects are made that all stay
    with only_run(root), services.prefect() as server:
        print(f"watch this run at {_ui()}", flush=True)
        # Both take seconds to import, while the server starts.
        from flows import pipeline

        prepared = pipeline.prepare(root)
        gc.freeze()
        gc.enable()
        if server is not None:
            server.wait_until_up()
        with Display(prepared.plan, watch), _heartbeats(server is None):
            state = _call(pipeline.modelpress, force=force, retries=retries, timeout_s=timeout_s)
        run_id = state.state_details.flow_run_id
        if server is not None:
            _wait_until_recorded(run_id, len(prepared.plan.stages))
        result = state.result(raise_on_failure=False)
        if isinstance(result, BaseException):
            raise result
        return Done(state.message or "", f"{_ui()}/runs/flow-run/{run_id}")


def ablate(root: Path) -> Done:
    """Run the flow `ablate` in this process; as `run`."""
    with only_run(root), services.prefect() as server:
        print(f"watch this run at {_ui()}", flush=True)
        from flows import ablate as flow

        if server is not None:
            server.wait_until_up()
        with _heartbeats(server is None):
            state = _call(flow.ablate)
        run_id = state.state_details.flow_run_id
        if server is not None:
            _wait_until_recorded(run_id, 1)
        result = state.result(raise_on_failure=False)
        if isinstance(result, BaseException):
            raise result
        return Done(state.message or "", f"{_ui()}/runs/flow-run/{run_id}")


def _ui() -> str:
    """Where Prefect's UI is: beside its API, unless it is Prefect's cloud."""
    return shown(os.environ["PREFECT_API_URL"]).removesuffix("/").removesuffix("/api")


def _heartbeats(wanted: bool) -> AbstractContextManager[Any]:
    """Heartbeats tell a server that a run is alive. One that ends with the run has no use for them, and
    their thread ends up to a second late."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return nullcontext() if wanted else temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def _call(flow: Any, **options: Any) -> Any:
    """The state that the flow ends with. One that Prefect's server did not take stands all the same, and the next
    run delivers it."""
    from flows.engine import flow_runs

    logging.raiseExceptions = (
        False  # Prefect would write to the terminal whenever its server does not take the log
    )
    try:
        return flow(return_state=True, **options)
    except flow_runs.AWAY as error:
        said = f"{type(error).__name__}: {without_passwords(' '.join(str(error).split()))}"
        if flow_runs.last is None:
            raise StageFailed(f"Prefect: {said}") from None
        print(
            f"Prefect's server does not answer ({said}): the next run tells it how this one ended", flush=True
        )
        flow_runs.forget_events()
        return flow_runs.last


def _wait_until_recorded(run_id: Any, stages: int) -> None:
    """Wait until the server has the end of every task run: it records behind the client, and what it has
    not recorded when it is stopped is lost."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    end = time.monotonic() + _RECORDED_S
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            runs = client.read_task_runs(flow_run_filter=mine)
            if len(runs) >= stages and not any(r.state is None or r.state.is_running() for r in runs):
                return
            time.sleep(0.05)
