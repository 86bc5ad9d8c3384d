"""The flow `ablate`: every technique on and off, at equal budget, over several seeds.

Each training is a Prefect task run on one core, as many side by side as there are cores. What was trained is kept in
.modelpress/ablate under a name that says what it is of, so that a run that was killed, or asks for more seeds, goes on.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.engine import settings
from flows.engine.flow_runs import alone, named
from flows.engine.stage import Children, command, reproduce
from tasks.core.ablation.effects import METRICS, folder
from tasks.core.ablation.techniques import COMMITTED, Plan, plan
from tasks.core.common.files import fingerprint, read_json
from tasks.core.config.params_file import load_asked, load_pipeline, read_yaml
from tasks.core.tracking.mirror import Tracker

PARAMS, RECIPE = Path("params.yaml"), Path("data/recipe/params.yaml")
BEST, OUT = Path("data/tune/best.yaml"), Path("data/ablate")
INPUTS = ("--settings", str(RECIPE), "--best", str(BEST))
BEFORE = ("ingest", "recipe", "augment", "start", "tune")  # stages that give what the trainings begin with
SECTIONS = ("augment", "start", "train", "prune", "quantize")


@flow(
    name="ablate",
    flow_run_name=lambda: named("ablation"),
    task_runner=ThreadPoolTaskRunner(max_workers=len(os.sched_getaffinity(0))),  # type: ignore[arg-type]
    persist_result=False,
)
def ablate() -> State[Path]:
    """Measure the techniques of section `ablate`; the folder of the table and the page."""
    root = settings.find_root(Path.cwd())
    settings.apply(root)
    return alone(root, lambda _: _ablate(root))


def _ablate(root: Path) -> State[Path]:
    children, ok = Children(), False
    tracker = Tracker(root, settings.EXPERIMENT)
    tracker.start(flow_run.name, "ablation")
    tracker.attach(flow_run.id)
    try:
        for name in BEFORE:
            before.with_options(name=name, task_run_name=name)(name, children)
        planned, runs = _planned(root)
        _train(planned, runs, children)
        write.with_options(name="effects", task_run_name="effects")(runs, children)
        tracker.log_effects(OUT, load_asked(PARAMS).pipeline.ablate.model_dump())
        ok = True
    finally:
        children.stop()
        children.wait()
        tracker.end(ok)
    return Completed(message=f"{OUT / 'effects.html'}", data=OUT)


def _planned(root: Path) -> tuple[Plan, Path]:
    """What there is to train, and where it is kept."""
    asked = load_asked(PARAMS).pipeline.ablate
    committed, best = load_pipeline(RECIPE).model_dump(), read_yaml(BEST)
    planned = plan(committed, best, asked.techniques)
    for name, reason in planned.left_out.items():
        get_run_logger().info("left out: %s: %s", name, reason)
    code = {
        str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(root.glob("tasks/**/*.py"))
    }
    budget = {key: getattr(asked, key) for key in ("epochs", "train_fraction")}
    about = [{name: committed[name] for name in SECTIONS}, budget, best, code]
    key = fingerprint(
        *about, read_json(Path("data/ingest/dataset.json")), read_json(Path("data/start/start.json"))
    )
    kept = settings.STATE / "ablate"
    for other in kept.glob("*") if kept.exists() else ():
        if other.name != key:
            shutil.rmtree(other)  # of other params, data or code: nothing goes on from it
    (kept / key).mkdir(parents=True, exist_ok=True)
    return planned, kept / key


def _train(planned: Plan, runs: Path, children: Children) -> None:
    """All trainings, side by side; those on a finished network after that network."""
    numbers = range(load_asked(PARAMS).pipeline.ablate.seeds)
    futures: dict[tuple[str, int], Any] = {}
    for variant in planned.variants:
        for number in numbers:
            after = [futures[COMMITTED, number]] if variant.network else []
            named: Any = train.with_options(name=variant.name, task_run_name=f"{variant.name}, {number}")
            futures[variant.name, number] = named.submit(variant.name, number, runs, children, wait_for=after)
    for done, ((name, number), future) in enumerate(futures.items(), 1):
        accuracy = future.result()
        print(f"ablate {done}/{len(futures)}: {name}, {number}: {accuracy:.2%}", flush=True)


@task(cache_policy=NO_CACHE, persist_result=False)
def before(name: str, children: Children) -> State[str]:
    """Bring a stage up to date."""
    outcome = reproduce(name, children, get_run_logger().info)
    return Completed(name="Cached" if outcome == "unchanged" else "Completed", data=outcome)


@task(cache_policy=NO_CACHE, persist_result=False)
def train(variant: str, number: int, runs: Path, children: Children) -> State[float]:
    """Train a variant once, unless that is done; its accuracy."""
    out = folder(runs, variant, number)
    cached = (out / METRICS).exists()
    if not cached:
        arguments = [
            "--data",
            "data/ingest",
            "--weights",
            "data/start",
            "--variant",
            variant,
            "--number",
            str(number),
        ]
        network = ["--network", str(folder(runs, COMMITTED, number))]
        _run("ablate", [*INPUTS, *arguments, *network, "--out", str(out)], children, get_run_logger().info)
    accuracy = float(read_json(out / METRICS)["accuracy"])
    return Completed(name="Cached" if cached else "Completed", message=f"{accuracy:.2%}", data=accuracy)


@task(cache_policy=NO_CACHE, persist_result=False)
def write(runs: Path, children: Children) -> None:
    """The table and the page."""
    _run("effects", [*INPUTS, "--runs", str(runs), "--out", str(OUT)], children, get_run_logger().info)


def _run(name: str, arguments: list[str], children: Children, on_line: Callable[[str], None]) -> None:
    command(name, [sys.executable, "-m", f"tasks.{name}", *arguments], children, on_line)
