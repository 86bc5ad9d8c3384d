"""What Prefect, DVC and MLflow cost beside the stages themselves.

    python benchmarks/orchestration.py [--rounds 2] [--cached-rounds 7]

Cold: `modelpress run` in a fresh clone, against the same stage functions called one after another in one
process, in turn. All of Fashion-MNIST, but one epoch of everything: what orchestration costs does not grow
with the epochs, so its seconds are set against the run at the committed defaults that
benchmarks/results/pipeline.json holds.

Cached: `modelpress run` when nothing has changed, against `dvc repro` and the start of a Prefect server,
which are what it cannot do without.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from common import RESULTS, ratio, write_result

from flows.engine import settings
from flows.serving import servers
from tasks.core.common.files import read_json

ROOT = Path(__file__).parents[1]
RAW = Path("data/raw/fashion-mnist")
SHORT = (
    *("tune.trials=2", "tune.epochs=1", "train.epochs=1", "prune.epochs=1"),
    *("press.trials=4", "press.finetunes=1"),
)
MODELPRESS = [sys.executable, "-m", "flows.cli.main", "run"]
REPRO = [sys.executable, "-m", "dvc", "repro"]
COLD_TARGET, CACHED_TARGET = 1.1, 1.5


def call(command: list[str], folder: Path) -> None:
    """Run a command in a clone, on the clone's own code."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def clone(folder: Path) -> Path:
    """A clone of the last commit with the raw data and a small budget, in which nothing has run."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    shutil.copytree(ROOT / RAW, folder / RAW)
    (folder / "dvc.lock").unlink()
    from flows.cli import overrides

    _, changed = overrides.apply(folder, list(SHORT))
    overrides.write(folder, changed)
    return folder


def commands(folder: Path) -> list[str]:
    """The command lines of all stages, in an order in which they can run."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with Repo(str(folder)) as repo:
        steps = plan_repro(get_active_graph(repo.index.graph), list(repo.stage.collect("dvc.yaml")))
        return [step.cmd for step in steps if step.cmd]


def in_one_process(lines: list[str]) -> None:
    """Call the stages' functions, as their command lines do, here and now."""
    for line in lines:
        words = shlex.split(line)
        module = words.index("-m") + 1
        sys.argv = words[module:]
        runpy.run_module(words[module], run_name="__main__")


def cold(scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of both sides, round by round. The last clone of the flow is left in `scratch`/flow."""
    seconds: dict[str, list[float]] = {"modelpress run": [], "one process": []}
    for i in range(rounds):
        for side in list(seconds)[:: 1 if i % 2 else -1]:
            folder = clone(scratch / ("flow" if side == "modelpress run" else "plain"))
            command = MODELPRESS
            if side == "one process":
                with chdir(folder):
                    command = [sys.executable, __file__, "--stages", json.dumps(commands(folder))]
            start = time.perf_counter()
            call(command, folder)
            seconds[side].append(time.perf_counter() - start)
            print(f"{side}: {seconds[side][-1]:.1f} s", flush=True)
    return seconds


def cached(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of a run in which nothing changed, and of its parts on their own, in turn."""
    seconds: dict[str, list[float]] = {"modelpress run": [], "dvc repro": [], "start of Prefect's server": []}
    with chdir(folder):
        settings.apply(folder)
        for i in range(rounds + 1):  # the first does not count
            for side in list(seconds)[:: 1 if i % 2 else -1]:
                start = time.perf_counter()
                if side == "modelpress run":
                    call(MODELPRESS, folder)
                elif side == "dvc repro":
                    call(REPRO, folder)
                else:
                    server = servers.prefect_server(None, schedules=False)
                    server.wait_until_up()
                if i > 0:
                    seconds[side].append(time.perf_counter() - start)
                if side.startswith("start"):
                    server.stop()  # not a part of its start
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {side: round(statistics.median(values), 2) for side, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="of cold runs")
    parser.add_argument("--cached-rounds", type=int, default=7)
    parser.add_argument("--stages", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stages:
        in_one_process(json.loads(args.stages))
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        short = cold(scratch, args.rounds)
        again = cached(scratch / "flow", args.cached_rounds)
    cost_s = statistics.median(
        flow - plain for flow, plain in zip(short["modelpress run"], short["one process"], strict=True)
    )
    run_s = read_json(RESULTS / "pipeline.json")["run_s"]
    parts = [
        repro + server
        for repro, server in zip(again["dvc repro"], again["start of Prefect's server"], strict=True)
    ]
    cold_ratio, cached_ratio = run_s / (run_s - cost_s), ratio(again["modelpress run"], parts)
    payload = {
        "cold": {
            "ratio": round(cold_ratio, 3),
            "target_ratio": COLD_TARGET,
            "passed": cold_ratio <= COLD_TARGET,
            "orchestration_s": round(cost_s, 1),
            "run_s": run_s,
            "short_run_s": medians(short),
            "short_run": list(SHORT),
        },
        "cached": {
            "ratio": cached_ratio,
            "target_ratio": CACHED_TARGET,
            "passed": cached_ratio["median"] <= CACHED_TARGET,
            "seconds": medians(again),
        },
    }
    print(json.dumps(payload, indent=2))
    print(write_result("orchestration", payload, ("prefect", "dvc", "mlflow")))


if __name__ == "__main__":
    main()
