"""Stage tune on scikit-learn's digits: alone, on a Ray cluster, and on hosts that share a PostgreSQL database."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from tasks.core.tuning.studies import STORAGE
from tests.integration.postgresql import PASSWORD, postgresql
from tests.integration.project import repro, run, with_params

MODELPRESS = str(Path(sys.executable).parent / "modelpress")
SPACE = {"lr": {"low": 0.02, "high": 0.2, "log": True}, "dropout": {"low": 0.0, "high": 0.3}}
STAGE = [
    "--data",
    "data/ingest",
    "--policy",
    "data/augment/policy.json",
    "--weights",
    "data/start",
]
TUNE = [sys.executable, "-m", "tasks.tune", *STAGE, "--journal", ".modelpress/tune", "--out", "data/tune"]


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


def configure(folder: Path, **values: Any) -> None:
    """Set keys of section tune, instead of those that are there."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["tune"] = {"epochs": 2, "train_fraction": 0.5, "startup_trials": 3, "space": SPACE, **values}
    text = yaml.safe_dump(params)
    path.write_text(text, encoding="utf-8")
    # What stage recipe would make of it, where nothing is auto; `modelpress tune-worker` reads that.
    settled = folder / "data/recipe/params.yaml"
    settled.unlink()
    settled.write_text(text, encoding="utf-8")


def tune(folder: Path, code: int = 0, **environment: str) -> str:
    return run(folder, *TUNE, code=code, **environment)


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "data/tune/trials.csv")


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "data/tune/metrics.json").read_text(encoding="utf-8"))
    return content


# ---- on this machine


def test_tune_prefers_the_smaller_network_when_it_is_nearly_as_good(project: Path) -> None:
    configure(
        project,
        trials=8,
        sampler="nsga2",
        pruner="none",
        objectives=["accuracy", "macs"],
        max_drop_points=100,
        space={"lr": {"low": 0.02, "high": 0.2}, "width": {"choices": [8, 16, 24]}},
    )
    tune(project)
    tried = trials(project)
    assert set(tried["state"]) == {"complete"}
    assert tried.groupby("width")["macs"].nunique().eq(1).all(), "the same network, the same cost"
    best = yaml.safe_load((project / "data/tune/best.yaml").read_text(encoding="utf-8"))
    assert best["width"] == tried["width"].min(), "any accuracy will do"


def test_tune_begins_no_trial_when_the_minutes_are_spent(project: Path) -> None:
    configure(project, trials=40, sampler="random", pruner="none", max_minutes=0.001, parallel=1)
    said = tune(project)
    assert len(trials(project)) == 1
    assert metrics(project)["not_begun"] == 39
    assert "tune 1/40" in said


def test_tune_learns_from_an_earlier_search_when_start_names_its_trials(
    project: Path, tmp_path: Path
) -> None:
    configure(project, trials=5, sampler="random", pruner="none")
    tune(project)
    shutil.copy(project / "data/tune/trials.csv", tmp_path / "earlier.csv")
    best = yaml.safe_load((project / "data/tune/best.yaml").read_text(encoding="utf-8"))
    with_params(project, start={"trials": str(tmp_path / "earlier.csv")})
    configure(project, trials=3)
    repro(project, "start")
    said = tune(project)
    assert "5 of 5 earlier trials ended well and lie in the space" in said
    assert metrics(project)["earlier"] == 5
    tried = trials(project)
    assert len(tried) == 3
    assert any(row["lr"] == pytest.approx(best["lr"]) for _, row in tried.iterrows()), (
        "its best is tried here"
    )


@pytest.mark.parametrize(
    ("content", "words"), [("a,b\n1,2\n", "no columns state and value"), (None, "cannot be read")]
)
def test_start_is_refused_in_one_line_when_the_trials_are_none(
    content: str | None, words: str, project: Path
) -> None:
    if content is not None:
        (project / "earlier.csv").write_text(content, encoding="utf-8")
    with_params(project, start={"trials": "earlier.csv"})
    start = [sys.executable, "-m", "tasks.start", "--out", "data/start"]
    said = run(project, *start, code=2)
    assert said.startswith("start: start.trials: earlier.csv")
    assert words in said
    assert said.count("\n") == 1


def test_tune_is_refused_in_one_line_when_no_earlier_trial_lies_in_the_space(project: Path) -> None:
    shutil.copytree(project / "data/start", project / "begun")
    (project / "begun/trials.csv").write_text("number,state,value,lr\n0,complete,0.9,0.1\n", encoding="utf-8")
    configure(project, trials=3)
    command = [word.replace("data/start", "begun") for word in TUNE]
    assert "start.trials: no earlier trial" in run(project, *command, code=2)


# ---- on a Ray cluster


def test_trials_on_ray_are_those_of_this_machine_when_seeds_are_equal(project: Path) -> None:
    configure(project, trials=4, pruner="hyperband", epochs=3)
    tune(project)
    alone = (project / "data/tune/trials.csv").read_bytes()
    configure(project, trials=4, pruner="hyperband", epochs=3, executor="ray")
    said = tune(project, RAY_USAGE_STATS_ENABLED="0")
    assert "tune 4/4" in said
    assert (project / "data/tune/trials.csv").read_bytes() == alone


def test_tune_is_refused_in_one_line_when_the_cluster_has_no_such_node(project: Path) -> None:
    configure(project, trials=2, executor="ray", trial_gpus=64)
    said = tune(project, code=2, RAY_USAGE_STATS_ENABLED="0")
    assert "tune: tune.trial_cpus (1), tune.trial_gpus (64): no node" in said
    assert "Traceback" not in said


# ---- on hosts that share a database


@contextmanager
def begun(folder: Path, command: list[str], url: str) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own, killed in the end."""
    environment = {**os.environ, STORAGE: url}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)
        process.wait()


def kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def own(url: str) -> list[FrozenTrial]:
    """The trials of the one study in the database; none as long as there is none."""
    storage = storage_of(url)
    studies = storage.get_all_studies()
    return storage.get_all_trials(studies[0]._study_id) if studies else []


@cache  # each has connections of its own, and a server has a hundred
def storage_of(url: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))


def finished(url: str) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in own(url))


def running(url: str) -> list[FrozenTrial]:
    """The trials that a worker runs, from when their parameters are drawn."""
    return [trial for trial in own(url) if trial.state == TrialState.RUNNING and trial.params]


@pytest.fixture
def empty(database: str) -> Iterator[str]:
    """The database, with no study in the end."""
    yield database
    storage = storage_of(database)
    for summary in storage.get_all_studies():
        optuna.delete_study(study_name=summary.study_name, storage=storage)


def _halted_in_a_trial(worker: subprocess.Popen[str], url: str) -> bool:
    """Whether the worker, who does nothing more if so, has begun a trial beside the leader's."""
    os.killpg(worker.pid, signal.SIGSTOP)
    if len(running(url)) == 2:
        return True
    os.killpg(worker.pid, signal.SIGCONT)
    return False


def test_no_trial_is_lost_or_run_twice_for_nothing_when_a_host_is_killed(
    project: Path, empty: str, tmp_path: Path
) -> None:
    configure(project, trials=10, epochs=4, pruner="none", train_fraction=1.0, parallel=1)
    other = tmp_path / "other host"
    shutil.copytree(project, other)
    with (
        begun(project, TUNE, empty) as leader,
        begun(other, [MODELPRESS, "tune-worker", "--parallel", "1", "--wait", "200"], empty) as worker,
    ):
        assert worker.stdout is not None
        assert "1 trials side by side in tune-" in worker.stdout.readline()
        wait(lambda: finished(empty) > 0 and _halted_in_a_trial(worker, empty))
        kill(worker)
        left = {trial.number for trial in running(empty)}
        said, _ = leader.communicate(timeout=400)
    assert leader.returncode == 0, said
    every = own(empty)
    failed = [trial for trial in every if trial.state == TrialState.FAIL]
    assert len(failed) == 1
    assert failed[0].number in left, "only the trial of the killed host was begun anew"
    again = [trial for trial in every if trial.system_attrs.get("retry_history") == [failed[0].number]]
    assert len(again) == 1
    assert again[0].params == failed[0].params
    tried = trials(project)
    assert len(tried) == 10
    assert set(tried["state"]) == {"complete"}
    assert not tried.duplicated(["lr", "dropout"]).any()
    assert metrics(project)["begun_anew"] == 1
    assert PASSWORD not in said


def test_search_goes_on_without_repeating_its_start_when_the_leader_is_killed(
    project: Path, empty: str
) -> None:
    configure(project, trials=8, epochs=2, pruner="none", train_fraction=1.0, parallel=2)
    with begun(project, TUNE, empty) as leader:
        wait(lambda: finished(empty) >= 4)
        kill(leader)
    done = {trial.number: trial.params for trial in own(empty) if trial.state == TrialState.COMPLETE}
    tune(project, **{STORAGE: empty})
    every = own(empty)
    assert {number: every[number].params for number in done} == done
    tried = trials(project)
    assert len(tried) == 8
    assert not tried.duplicated(["lr", "dropout"]).any(), "no start-up trial is drawn a second time"
    again = tune(project, **{STORAGE: empty})
    assert re.search(r"tune 8/8", again)
    assert len(own(empty)) == len(every), "a search that is over runs nothing"


def test_worker_hands_its_trial_on_at_once_when_it_is_asked_to_stop(project: Path, empty: str) -> None:
    configure(project, trials=3, epochs=60, pruner="none", train_fraction=1.0, parallel=1)
    with begun(project, TUNE, empty) as leader:
        wait(lambda: any(trial.intermediate_values for trial in running(empty)))
        os.kill(leader.pid, signal.SIGTERM)
        leader.communicate(timeout=240)
    states = [trial.state for trial in own(empty)]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.WAITING) == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", f"{STORAGE} is not set"),
        ("postgresql://x:hidden@127.0.0.1:1/y", "x:***@127.0.0.1:1/y"),
        ("the database", "the database holds no tune-"),
    ],
)
def test_tune_worker_ends_in_one_line_when_there_is_no_search(
    url: str, words: str, project: Path, empty: str
) -> None:
    url = empty if url == "the database" else url
    said = run(
        project, MODELPRESS, "tune-worker", "--wait", "0", code=1 if "hidden" in url else 2, **{STORAGE: url}
    )
    assert words in said
    assert said.count("\n") == 1
    assert "hidden" not in said
