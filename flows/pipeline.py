"""The flow: DVC's graph walked by Prefect, one task run a stage.

DVC is the only cache; Prefect caches nothing. What changed is asked once, and DVC is started only for
the stages that changed and those after them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts
from flows.engine import dag, settings
from flows.engine.flow_runs import FlowRun, alone, named
from flows.engine.stage import Children
from flows.engine.walk import Outcomes, walk
from flows.registry.register import Registered, register
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params_file import Pipeline, load_asked
from tasks.core.tracking.mirror import Tracker

INGEST, SELECT = Path("data/ingest"), Path("data/select")
_THREADS = 64  # more than stages that run at once: those are limited by the number of cores


@dataclass(frozen=True)
class Prepared:
    """What a run knows before it asks Prefect for anything."""

    params: Pipeline
    plan: dag.Plan
    tracker: Tracker


_prepared: list[Prepared] = []


def prepare(root: Path) -> Prepared:
    """Read the graph and open MLflow for the next run of the flow in this process, for instance while
    Prefect's server is starting. Hold the run lock. Raises BadInput or StageFailed."""
    _prepared[:] = [_read(root)]
    return _prepared[0]


@flow(
    name="modelpress",
    flow_run_name=lambda: named("pipeline"),
    task_runner=ThreadPoolTaskRunner(max_workers=_THREADS),  # type: ignore[arg-type]
    persist_result=False,
)
def modelpress(force: bool = False, retries: int = 1, timeout_s: float = 0.0) -> State[Outcomes]:
    """Bring every stage of dvc.yaml up to date, then register what was selected.

    Args:
        force: run every stage, changed or not.
        retries: how often a stage that was killed by a signal is tried again.
        timeout_s: a stage that takes longer is ended and has failed; 0 is never.
    """
    root = settings.find_root(Path.cwd())
    settings.apply(root)
    return alone(root, lambda run: _tracked(root, run, force=force, retries=retries, timeout_s=timeout_s))


def _tracked(root: Path, run: FlowRun, **options: Any) -> State[Outcomes]:
    prepared = _prepared.pop() if _prepared else _read(root)
    run_id = prepared.tracker.start(flow_run.name)
    prepared.tracker.attach(flow_run.id)
    children, ok = Children(), False
    try:
        state = _run(root, prepared, run, run_id, children, **options)
        ok = True
    finally:
        prepared.tracker.end(ok)
    return state


def _read(root: Path) -> Prepared:
    params = load_asked(Path("params.yaml")).pipeline
    tracker = Tracker(root, settings.EXPERIMENT, partial(dag.locked, root))
    return Prepared(params, dag.read(root, clean=True), tracker)


def _run(
    root: Path, prepared: Prepared, run: FlowRun, run_id: str, children: Children, **options: Any
) -> State[Outcomes]:
    log = get_run_logger()
    for path in prepared.plan.removed:
        log.info("removed %s: no such candidate in params.yaml any more", path)
    started = time.monotonic()
    try:
        walked = walk(prepared.plan, run, prepared.tracker, children, **options)
    finally:
        children.stop()  # on Ctrl-C, a cancellation or a crash, nothing goes on in the background
        children.wait()
        dag.settle_lock(root, prepared.plan)
    prepared.tracker.log_summary(root / SELECT, root / INGEST, artifacts.headline(root / SELECT))
    registered: Registered | None = None
    if (root / SELECT / "model.onnx").is_file():
        # A task that returns a state gives that state back; what it carries is the state's result.
        after = list(walked.task_runs.values())
        state = _register(root, prepared.params.registry.name, run_id, wait_for=after, return_state=True)
        registered = state.result()
    artifacts.create(run, root / SELECT, walked, registered, time.monotonic() - started)
    nothing = all(outcome == "unchanged" for outcome in walked.outcomes.values())
    message = "Nothing changed: nothing was recomputed." if nothing else artifacts.sentence(walked.outcomes)
    log.info(message)
    return Completed(name="Cached" if nothing else "Completed", message=message, data=walked.outcomes)


@task(name="register", task_run_name="register", cache_policy=NO_CACHE, persist_result=False)
def _register(root: Path, name: str, run_id: str) -> Any:
    """Register the selected model; see flows/registry/register.py. Returns its Registered."""
    try:
        result = register(root / SELECT, name, run_id)
    except (BadInput, StageFailed) as error:
        return Failed(message=str(error), data=error)
    get_run_logger().info(result.sentence)
    return Completed(name="Completed" if result.changed else "Cached", message=result.sentence, data=result)
