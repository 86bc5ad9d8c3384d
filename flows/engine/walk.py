"""Walk the graph: every stage a Prefect task run, siblings at the same time."""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed

from flows.engine.dag import Plan, Stage
from flows.engine.flow_runs import AWAY, FlowRun
from flows.engine.stage import Children, Killed, Outcome, reproduce
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.progress import LINE
from tasks.core.tracking.mirror import Tracker

Outcomes = dict[str, Outcome]

# The name of the task run's state in Prefect's UI.
STATE_NAMES: dict[Outcome, str] = {"ran": "Completed", "restored": "Restored", "unchanged": "Cached"}
_NAMED = 3  # so many stages that were not run are named, more are counted
_UPDATE_S = 1.0  # at most one update of a progress artifact in this time
_AWAY_S = 60.0  # how long none is tried after the server has not taken one
_away_until = 0.0
_LOG_S = 10.0  # at most one line of progress in Prefect's log in this time; the terminal shows them all


@dataclass(frozen=True)
class Walked:
    """What came of the stages, in their order, and the task runs that they were."""

    outcomes: Outcomes
    task_runs: dict[str, PrefectFuture[Outcome]]


def capacity() -> int:
    """How many cores stages may ask for at once: those of this machine, MODELPRESS_JOBS times (by default
    once). A stage that does not say how many it needs computes on all: two that train on two cores take six
    times as long as one after the other. Raises BadInput."""
    given = os.environ.get("MODELPRESS_JOBS", "1")
    if not given.isdecimal() or int(given) < 1:
        raise BadInput(f"MODELPRESS_JOBS: must be a whole number above 0 (got {given!r})")
    return int(given) * _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def walk(
    plan: Plan,
    flow_run: FlowRun,
    tracker: Tracker,
    children: Children,
    *,
    force: bool,
    retries: int,
    timeout_s: float,
) -> Walked:
    """Bring the stages up to date in their order; call within a flow run.

    A stage is asked of DVC when it changed or one before it did something. When one fails, its siblings
    still run to their end, and those after it are not run (state NotReady).

    Returns:
        What happened to every stage, and its task run.

    Raises:
        BadInput: stages failed, all because of what the user gave.
        StageFailed: stages failed; the message names them and says what was not run.
    """
    free = capacity()
    waiting = list(plan.stages)
    futures: dict[str, PrefectFuture[Outcome]] = {}
    results: dict[str, Outcome | BaseException | None] = {}  # None: not run
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    busy: dict[str, int] = {}  # the cores of those that run

    def start(stage: Stage, ask: bool) -> None:
        run: Any = _task.with_options(name=stage.name, task_run_name=stage.name, retries=retries)
        future = run.submit(
            stage, ask, tracker, children, force, timeout_s, wait_for=[futures[name] for name in stage.after]
        )
        futures[stage.name] = future
        future.add_done_callback(lambda _: finished.put(stage.name))

    while waiting or len(results) < len(futures):
        for stage in list(waiting):
            if not all(name in results for name in stage.after):
                continue
            before = [results[name] for name in stage.after]
            blocked = not all(isinstance(result, str) for result in before)
            ask = force or stage.changed or any(result in ("ran", "restored") for result in before)
            if ask and not blocked:
                cores = min(stage.cores or _cores(), _cores())
                if cores > free:
                    continue
                free -= cores
                busy[stage.name] = cores
            waiting.remove(stage)
            start(stage, ask)
        name = finished.get()
        free += busy.pop(name, 0)
        results[name] = _result(futures[name])
        flow_run.task_ended(name, futures[name].task_run_id, futures[name].state)
    _raise_failures(results)
    ended = {name: result for name, result in results.items() if isinstance(result, str)}
    return Walked({stage.name: ended[stage.name] for stage in plan.stages}, futures)


def _result(future: PrefectFuture[Outcome]) -> Outcome | BaseException | None:
    """How a stage ended; every future is read, or the flow would be green over a failed stage."""
    future.wait()
    if future.state.is_pending():
        return None
    result: Outcome | BaseException = future.result(raise_on_failure=False)
    return result


def _raise_failures(results: dict[str, Outcome | BaseException | None]) -> None:
    errors = {name: r for name, r in results.items() if isinstance(r, BaseException)}
    if not errors:
        return
    skipped = [name for name, result in results.items() if result is None]
    firsts = [str(error).partition("\n")[0] for error in errors.values()]
    named = ", ".join(skipped) if len(skipped) <= _NAMED else f"{len(skipped)} stages"
    note = f" (not run: {named})" if skipped else ""
    kind = BadInput if all(isinstance(error, BadInput) for error in errors.values()) else StageFailed
    raise kind("; ".join(firsts) + note)


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    return isinstance(state.data, Killed)


@task(cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=_worth_retrying)
def _task(
    stage: Stage, ask: bool, tracker: Tracker, children: Children, force: bool, timeout_s: float
) -> State[Outcome]:
    log = get_run_logger()
    if not ask:
        log.info("unchanged", extra={"outcome": "unchanged"})
        if not stage.tracks_data:
            tracker.stage_ended(stage.name, "unchanged", None)
        return Completed(name=STATE_NAMES["unchanged"], message="DVC: nothing changed", data="unchanged")
    log.info("started", extra={"outcome": "started"})
    progress = _progress(stage.name)
    logged = -_LOG_S

    def on_line(line: str) -> None:
        """Log what the stage has printed, and show its progress."""
        nonlocal logged
        match, now = LINE.match(line), time.monotonic()
        last = match is not None and match["done"] == match["total"]
        send = match is None or last or now - logged > _LOG_S
        if match is not None and send:
            logged = now
        log.info(line, extra={"send_to_api": send})
        progress(line)

    if not stage.tracks_data:
        tracker.stage_started(stage.name)
    outcome: Outcome | Literal["failed"] = "failed"
    try:
        outcome = reproduce(stage.name, children, on_line, force=force, timeout_s=timeout_s)
    except Killed:
        raise  # Prefect tries it again
    except (BadInput, StageFailed) as error:
        return Failed(message=str(error), data=error)
    finally:
        log.info(outcome, extra={"outcome": outcome})
        if not stage.tracks_data:
            tracker.stage_ended(stage.name, outcome, _folder(stage))
    return Completed(name=STATE_NAMES[outcome], message=f"DVC: {outcome}", data=outcome)


def _folder(stage: Stage) -> Path | None:
    """Where the stage wrote: its output, or the folder that its output files lie in."""
    if not stage.outs:
        return None
    return stage.outs[0] if stage.outs[0].is_dir() else stage.outs[0].parent


def _progress(stage: str) -> Callable[[str], None]:
    """Shows lines such as `train 3/10: loss 0.4` as a progress artifact of the task run, as long as the server
    takes it."""
    key = "progress-" + re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
    artifact: UUID | None = None
    updated = 0.0

    def on_line(line: str) -> None:
        """Update the artifact, if the line tells progress and the last update is a while ago."""
        nonlocal artifact, updated
        global _away_until
        match = LINE.match(line)
        if match is None or time.monotonic() < _away_until:
            return
        done, total = int(match["done"]), max(1, int(match["total"]))
        if artifact is not None and time.monotonic() - updated < _UPDATE_S and done < total:
            return
        updated = time.monotonic()
        percent, description = min(100.0, 100 * done / total), line
        try:
            if artifact is None:
                artifact = create_progress_artifact(percent, key=key, description=description)  # type: ignore[assignment]
            else:
                update_progress_artifact(artifact, percent, description=description)
        except AWAY:
            _away_until = time.monotonic() + _AWAY_S

    return on_line
