"""A DVC project whose stages take no time, for tests of what runs stages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from flows.engine import settings
from flows.serving import servers

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
STAGES = ["data/raw/in.txt.dvc", "ingest", "train", "prune@0.5", "prune@0.25", "evaluate"]

PARAMS = """\
# A comment that must survive.
ingest:
  source: data/raw/in.txt   # and this one
train: {epochs: 2, lr: 0.1}
prune:
  ratios: [0.5, 0.25]
quantize: {schemes: [fp32]}
registry:
  name: toy
"""

DVC_YAML = """\
stages:
  ingest:
    cmd: python step.py ingest data/ingest ${ingest.source}
    deps: ["${ingest.source}", step.py]
    params: [ingest]
    outs: [data/ingest]
  train:
    cmd: python step.py train data/train data/ingest
    deps: [data/ingest]
    params: [train]
    outs: [data/train]
  prune:
    matrix:
      ratio: ${prune.ratios}
    cmd: python step.py prune@${item.ratio} data/prune/${item.ratio} data/train
    deps: [data/train]
    meta: {cores: 1}
    outs: ["data/prune/${item.ratio}"]
  evaluate:
    cmd: python step.py evaluate data/evaluate data/prune
    deps: [data/prune]
    outs: [data/evaluate]
"""

# TOY_FAIL=STAGE=CODE lets a stage end with that exit code (negative: a signal, once), TOY_SLEEP=STAGE=SECONDS
# lets it take so long, or until the file `sleeping` is removed.
STEP = """\
import json, os, signal, sys, time
from pathlib import Path

stage, out, *deps = sys.argv[1:]

def asked(name):
    target, _, value = os.environ.get(name, "").rpartition("=")
    return float(value) if target == stage else 0

for i in range(1, 4):
    print(f"{stage.partition('@')[0]} {i}/3: loss {1 / i:.3f}", flush=True)
code = int(asked("TOY_FAIL"))
if code < 0 and not Path("failed-once").exists():
    Path("failed-once").touch()
    os.kill(os.getpid(), -code)
if code > 0:
    print(f"{stage}: this cannot work", file=sys.stderr)
    sys.exit(code)
if seconds := asked("TOY_SLEEP"):
    Path("sleeping").write_text(str(os.getpid()))
    end = time.monotonic() + seconds
    while Path("sleeping").exists() and time.monotonic() < end:
        time.sleep(0.05)
folder = Path(out)
folder.mkdir(parents=True, exist_ok=True)
content = [p.read_bytes() for dep in deps for p in sorted([Path(dep), *Path(dep).rglob("*")]) if p.is_file()]
(folder / "content").write_bytes(stage.encode() + b"".join(content))
(folder / "metrics.json").write_text(json.dumps({"loss": 0.25, "per": {"dense-fp32": {"ok": True}}}))
(folder / "history.csv").write_text("epoch,loss\\n1,1.0\\n2,0.5\\n3,0.25\\n")
if stage == "train":
    (folder / "trials.csv").write_text("number,state,value,epochs,lr\\n0,complete,0.9,3,0.1\\n1,pruned,0.5,1,0.2\\n")
"""


def make_toy(folder: Path) -> Path:
    """A git and DVC repository in `folder`, with one commit and nothing run yet."""
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/in.txt").write_text("raw\n")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "step.py").write_text(STEP)
    # DVC writes no .gitignore of its own into folders that stages read as a whole.
    ignored = [".modelpress", "mlflow.db", "mlruns", "sleeping", "failed-once"]
    ignored += [f"/data/{name}/" for name in ("ingest", "train", "prune", "evaluate")]
    (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "toy@example.org"],
        ["git", "config", "user.name", "toy"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        [sys.executable, "-m", "dvc", "add", "-q", "data/raw/in.txt"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "toy"],
    ):
        run(command, folder)
    return folder


def run(command: list[str], folder: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with this interpreter's tools on the path."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**env), capture_output=True, text=True, timeout=840, check=False
    )
    assert not check or done.returncode == 0, (
        f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done


def modelpress(
    folder: Path, *words: str, check: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run our command line in `folder`."""
    return run([sys.executable, "-m", "flows.cli.main", *words], folder, check, **env)


def environment(**env: str) -> dict[str, str]:
    """The environment of a child of the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **env}


@contextmanager
def prefect_server(home: Path, *, schedules: bool = False) -> Iterator[dict[str, str]]:
    """A Prefect server on a free port with its database in `home`; the variables that lead to it."""
    home.mkdir(parents=True, exist_ok=True)
    given = dict(os.environ)
    try:
        os.environ["PREFECT_HOME"] = str(home)
        settings.apply(home)
        with chdir(home):  # where the server's log goes
            server = servers.prefect_server(0, schedules=schedules)
    finally:
        os.environ.clear()
        os.environ.update(given)
    try:
        with chdir(home):
            server.wait_until_up()
        yield {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"{server.url}/api"}
    finally:
        server.stop()


def make_databases(folder: Path) -> Path:
    """Prefect's and MLflow's databases in `folder`, as their own commands make them."""
    with prefect_server(folder / "prefect"):
        pass
    run([sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{folder / 'mlflow.db'}"], folder)
    return folder


def ask(api: dict[str, str], path: str, body: dict[str, Any] | None = None) -> Any:
    """What Prefect's API says to a POST of `body` to `path`."""
    for _ in range(20):
        response = httpx.post(
            f"{api['PREFECT_API_URL']}{path}", json=body or {}, timeout=120, trust_env=False
        )
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(0.5)  # its database is locked; its own client waits, too
    response.raise_for_status()
    return response.json()


def last_flow_run(api: dict[str, str]) -> dict[str, Any]:
    """The newest flow run."""
    return dict(ask(api, "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0])


def flow_run_of(api: dict[str, str], flow_run: str) -> dict[str, Any]:
    """A flow run by its id."""
    return dict(ask(api, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})[0])


def task_runs(api: dict[str, str], flow_run: str, count: int) -> dict[str, dict[str, Any]]:
    """The task runs of a flow run by name, as soon as the server has recorded `count`, all ended."""
    filters = {"flow_runs": {"id": {"any_": [flow_run]}}}
    for _ in range(1200):
        runs = {run["name"]: run for run in ask(api, "/task_runs/filter", filters)}
        if len(runs) >= count and all(run["state_type"] != "RUNNING" for run in runs.values()):
            return runs
        time.sleep(0.1)
    raise AssertionError(f"{count} task runs were expected, ended: {runs}")


def states(api: dict[str, str], count: int = len(STAGES)) -> dict[str, str]:
    """The states of the newest flow run's tasks, by name."""
    runs = task_runs(api, last_flow_run(api)["id"], count)
    return {name: task["state_name"] for name, task in runs.items()}


def mlflow_runs(folder: Path, uri: str = "") -> list[Run]:
    """MLflow's runs, the oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'modelpress'")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def of_kind(runs: list[Run], kind: str) -> list[Run]:
    """Those of a pipeline, a stage or a trial."""
    return [r for r in runs if r.data.tags["modelpress.kind"] == kind]


def begin(folder: Path, *words: str, seconds: int = 120, **env: str) -> subprocess.Popen[str]:
    """`modelpress run`, returned as soon as its stage `train` sleeps."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", *words],
        cwd=folder,
        env=environment(TOY_SLEEP=f"train={seconds}", **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (folder / "sleeping").exists() and (folder / "sleeping").read_text())
    return process


def wait_for(condition: Any, seconds: float = 240) -> None:
    """Return as soon as `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
