"""The mirror of a pipeline run in MLflow. The files under data/ are the truth; nothing is read back.

One parent run a pipeline run, a child a stage that ran, a grandchild a trial of tune or press; the description of
press plots its front, that of the parent says what came of every stage and links to the runs that made what is
there. An ablation is a parent run as well, with a child an effect.
Parameters come from dvc.lock alone; the environment is never logged.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json
from tasks.core.common.reachable import reach, shown
from tasks.core.tracking.front import front_note
from tasks.core.tracking.outbox import Outbox
from tasks.core.tracking.records import (
    curves,
    dataset,
    finite,
    flatten,
    git,
    lock_params,
    rows,
)
from tasks.core.tracking.registered import reason
from tasks.core.tracking.system_metrics import Monitor
from tasks.core.tracking.view import share

RUN = "run"  # the parent, among the names that Outbox has for runs
WAITING = Path(".modelpress", "mlflow")  # records that MLflow has not got yet
SEND_S = 15.0  # how long the beginning and the end of a run wait for an MLflow that takes nothing
# Columns of trials.csv that are outcomes; the others are what was tried.
_MEASURED = (
    *("value", "epochs", "accuracy", "latency_ms", "speedup", "size_bytes", "size_ratio", "hypervolume"),
    *("loss", "gain", "error"),
)
_EFFECT = ("points", "low", "high", "having", "lacking")  # columns of effects.csv that are numbers
_TRIAL_STATUS = {"complete": "FINISHED", "pruned": "KILLED"}  # FAILED otherwise
Entries = Mapping[str, Mapping[str, Any]]


class Tracker:
    """Mirrors one pipeline run. Safe to call from several threads.

    Once the parent run exists, nothing here waits for MLflow before `end`, and a failure of MLflow is a warning in
    the log, not one of the pipeline.
    """

    def __init__(self, root: Path, experiment: str, locked: Callable[[], Entries] = dict) -> None:
        """Open the store at MLFLOW_TRACKING_URI, creating database and experiment if there are none:
        once, before anything runs in parallel.

        Args:
            root: the checkout.
            experiment: its name in MLflow.
            locked: what dvc.lock holds of each stage, by its name, at the time of the call.

        Raises:
            BadInput: there is a server, but it does not answer, or is none of MLflow's.
            StageFailed: the store cannot be opened.
        """
        reach("MLFLOW_TRACKING_URI", "/health")
        self._root, self._lock, self._locked = root, threading.Lock(), locked
        self._monitors: dict[str, Monitor] = {}
        self._outcomes: dict[str, str] = {}
        self._outbox: Outbox | None = None
        self._closed = False
        self._said: list[str] = []
        try:
            client = MlflowClient()
            found = client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else client.create_experiment(experiment)
            share(client, found or client.get_experiment(self._experiment))
        except MlflowException as error:
            store = os.environ.get("MLFLOW_TRACKING_URI", "")
            if store.startswith(("http://", "https://")):
                said = f"MLFLOW_TRACKING_URI: {shown(store)} does not answer as MLflow does"
                raise BadInput(f"{said}: {reason(error)}") from None
            raise StageFailed(f"MLflow's store cannot be opened: {reason(error)}") from None

    def start(self, name: str, kind: str = "pipeline") -> str:
        """Create the parent run, unless it exists; its id in MLflow. Raises StageFailed."""
        if self._outbox is None:
            self._outbox = Outbox(self._root / WAITING, self._experiment)
            self._outbox.create(RUN, name, None, {"modelpress.kind": kind, **git(self._root)})
        run_id = self._outbox.id_of(RUN, SEND_S)
        if run_id is None:
            raise StageFailed(f"MLflow's store has taken nothing for {SEND_S:g} s")
        return run_id

    def attach(self, flow_run_id: str) -> None:
        """Name the flow run that the parent run mirrors."""
        self._box.log(RUN, tags={"prefect.flow_run_id": flow_run_id})

    @property
    def _box(self) -> Outbox:
        assert self._outbox is not None, "start comes first"
        return self._outbox

    def stage_started(self, stage: str) -> None:
        """A child run for `stage`, with the machine's metrics from now on."""
        with self._lock:
            if self._closed:
                return
            self._box.create(stage, stage, RUN, {"modelpress.kind": "stage"})
            self._monitors[stage] = Monitor(lambda metrics: self._box.log(stage, metrics))

    def stage_ended(self, stage: str, outcome: str, folder: Path | None) -> None:
        """What came of `stage`.

        Args:
            stage: its name.
            outcome: `ran`, `restored`, `unchanged` or `failed`.
            folder: what it wrote; metrics.json, history.csv and trials.csv in it are logged if it `ran`.
        """
        with self._lock:
            if self._closed:
                return
            self._outcomes[stage] = outcome
            monitor = self._monitors.pop(stage, None)
            if monitor is not None:
                monitor.finish()
            if monitor is None:
                return
            tags = {"modelpress.outcome": outcome}
            if outcome == "ran":
                entry = self._locked().get(stage, {})
                tags["modelpress.key"] = _key(entry)
                self._box.log(stage, params=flatten(lock_params(entry)))
                if folder is not None:
                    self._log_folder(stage, folder)
            self._box.log(stage, tags=tags)
            self._box.end(stage, "FAILED" if outcome == "failed" else "FINISHED")

    def log_summary(self, folder: Path, data: Path, said: str) -> None:
        """The selected model's numbers (`folder`/metrics.json), the data set (`data`/dataset.json) and what is
        `said` of them in a sentence, on the parent run."""
        self._said = [said]
        if (folder / "metrics.json").is_file():
            self._log_metrics(RUN, folder / "metrics.json")
            found = read_json(folder / "metrics.json")
            self._box.log(RUN, tags={"selected": found["selected"], "verdict": found["verdict"]})
        if (data / "dataset.json").is_file():
            self._box.use(RUN, dataset(data))

    def log_effects(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """What an ablation found (`folder`/effects.csv and metrics.json), and what was `asked` of it."""
        self._box.log(RUN, params=flatten({"ablate": asked}))
        self._log_metrics(RUN, folder / "metrics.json")
        for row in rows(folder / "effects.csv"):
            name = f"{row['technique']}, {row['kind']}"
            self._box.create(
                name, name, RUN, {"modelpress.kind": "effect", "modelpress.verdict": row["verdict"]}
            )
            self._box.log(name, [(key, float(row[key]), 0) for key in _EFFECT])
            self._box.end(name, "FINISHED")

    def end(self, ok: bool) -> None:
        """Close the parent run, and children that were left open. A second call does nothing."""
        with self._lock:
            if self._outbox is None or self._closed:
                return
            self._closed = True
            for stage, monitor in self._monitors.items():
                monitor.finish()
                self._box.end(stage, "KILLED")
            lock = self._root / "dvc.lock"
            if lock.is_file():
                digest = hashlib.sha256(lock.read_bytes()).hexdigest()
                self._box.log(RUN, tags={"modelpress.dvc_lock": digest})
            self._describe()
            self._box.end(RUN, "FINISHED" if ok else "FAILED")
        if left := self._box.close(SEND_S):
            said = f"MLflow does not answer: {left} records wait in {WAITING}, and the next run sends them"
            print(said, file=sys.stderr, flush=True)

    def _describe(self) -> None:
        """What came of every stage, with links to the runs that made what is there now."""
        if not self._outcomes:
            return
        entries = self._locked()
        kept = [stage for stage, outcome in self._outcomes.items() if outcome in ("restored", "unchanged")]
        made_by = {stage: _key(entries.get(stage, {})) for stage in kept}
        lines = ["| stage | outcome | made by |", "|---|---|---|"]
        for stage, outcome in self._outcomes.items():
            lines.append(f"| {stage} | {outcome} | []({{{stage}}}) |")
        self._box.describe(RUN, "\n".join([*self._said, "", *lines]), made_by)

    def _log_folder(self, run: str, folder: Path) -> None:
        if (folder / "metrics.json").is_file():
            self._log_metrics(run, folder / "metrics.json")
        if (folder / "trials.csv").is_file():
            self._log_trials(run, folder)
        elif (folder / "history.csv").is_file():
            self._box.log(run, curves(folder / "history.csv"))
        if (folder / "dataset.json").is_file():
            self._box.use(run, dataset(folder))

    def _log_metrics(self, run: str, path: Path) -> None:
        numbers = {name: finite(value) for name, value in flatten(read_json(path)).items()}
        self._box.log(run, [(name, value, 0) for name, value in numbers.items() if value is not None])

    def _log_trials(self, stage: str, folder: Path) -> None:
        trials = rows(folder / "trials.csv")
        addresses = [f"{{{self._log_trial(stage, trial)}}}" for trial in trials]
        if trials and "front" in trials[0]:
            objective = read_json(folder / "metrics.json")["objective"]
            self._box.describe(stage, front_note(list(zip(trials, addresses, strict=True)), objective))

    def _log_trial(self, stage: str, trial: Mapping[str, str]) -> str:
        fields = dict(trial)
        number, state = fields.pop("number"), fields.pop("state")
        measured = {k: finite(fields.pop(k, "")) for k in _MEASURED}
        run = f"{stage} trial {number}"
        self._box.create(run, run, stage, {"modelpress.kind": "trial", "optuna.state": state})
        self._box.log(
            run,
            [(name, value, 0) for name, value in measured.items() if value is not None],
            {k: v for k, v in fields.items() if v},
        )
        self._box.end(run, _TRIAL_STATUS.get(state, "FAILED"))
        return run


def _key(entry: Mapping[str, Any]) -> str:
    """What dvc.lock holds of a stage, in short: equal keys are equal inputs, parameters and outputs."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
