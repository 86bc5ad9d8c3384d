"""The mirror of a pipeline run in MLflow. The files under data/ are the truth; nothing is read back.

One parent run a pipeline run, a child a stage, a grandchild a trial of tune or press; the description of press
plots its front. A stage that DVC did not have to run gets a child too, whose tag `modelpress.made_by` is the id
of the run that made its outputs. An ablation is a parent run as well, with a child an effect.
Parameters come from dvc.lock alone; the environment is never logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import read_json
from tasks.core.tracking.front import front_note
from tasks.core.tracking.records import (
    batches,
    clean,
    curves,
    dataset,
    finite,
    flatten,
    git,
    lock_entry,
    lock_params,
    rows,
)
from tasks.core.tracking.registered import reason

log = logging.getLogger(__name__)

SAMPLING_S = 5  # of CPU, memory, disk and network, while a stage runs
_METRICS_A_BATCH, _PARAMS_A_BATCH = 1000, 100  # MLflow's limits
# Columns of trials.csv that are outcomes; the others are what was tried.
_MEASURED = ("value", "epochs", "accuracy", "latency_ms", "speedup", "size_bytes", "hypervolume")
_EFFECT = ("points", "low", "high", "having", "lacking")  # columns of effects.csv that are numbers
_TRIAL_STATUS = {"complete": "FINISHED", "pruned": "KILLED"}  # FAILED otherwise
_new_monitor: Any = SystemMetricsMonitor  # without types


@dataclass
class _StageRun:
    run_id: str
    monitor: Any  # MLflow's SystemMetricsMonitor


class Tracker:
    """Mirrors one pipeline run. Safe to call from several threads.

    Once the parent run exists, a failure of MLflow is a warning in the log, not one of the pipeline.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        """Open the store at MLFLOW_TRACKING_URI, creating database and experiment if there are none:
        once, before anything runs in parallel.

        Raises:
            StageFailed: it cannot be opened.
        """
        self._root, self._lock = root, threading.Lock()
        self._stages: dict[str, _StageRun] = {}
        self._parent, self._closed = "", False
        try:
            self._client = MlflowClient()
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except MlflowException as error:
            raise StageFailed(f"MLflow's store cannot be opened: {reason(error)}") from None

    def start(self, unchanged: Iterable[str], kind: str = "pipeline") -> str:
        """Create the parent run, unless it exists; its id. The stages that are `unchanged` for certain get
        their children in the background. Raises StageFailed."""
        if self._parent:
            return self._parent
        tags = {"modelpress.kind": kind, **git(self._root)}
        try:
            run = self._client.create_run(self._experiment, tags=tags)
        except MlflowException as error:
            raise StageFailed(f"MLflow's store refuses a run: {reason(error)}") from None
        self._parent = run.info.run_id
        self._background = threading.Thread(target=self._mirror_unchanged, args=(list(unchanged),))
        self._background.start()
        return self._parent

    def attach(self, name: str, flow_run_id: str) -> None:
        """Name the parent run after the flow run that it mirrors."""
        with self._mirroring("run"):
            self._log(self._parent, tags={"mlflow.runName": name, "prefect.flow_run_id": flow_run_id})

    def _mirror_unchanged(self, stages: list[str]) -> None:
        for stage in stages:
            self.stage_ended(stage, "unchanged", None)

    def stage_started(self, stage: str) -> None:
        """A child run for `stage`, with the machine's metrics from now on."""
        with self._mirroring(stage):
            if self._closed:
                return
            run_id = self._create(stage, self._parent, {"modelpress.kind": "stage"})
            monitor = _new_monitor(run_id, sampling_interval=SAMPLING_S)
            monitor.start()
            self._stages[stage] = _StageRun(run_id, monitor)

    def stage_ended(self, stage: str, outcome: str, folder: Path | None) -> None:
        """Close the child run of `stage`.

        Args:
            stage: its name; a child run is created if it was not started.
            outcome: `ran`, `restored`, `unchanged` or `failed`.
            folder: what it wrote; metrics.json, history.csv and trials.csv in it are logged if it `ran`.
        """
        with self._mirroring(stage):
            if self._closed:
                return
            open_run = self._stages.pop(stage, None)
            if open_run is not None:
                _finish(open_run.monitor)
            entry = lock_entry(self._root, stage)
            key = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
            tags = {"modelpress.kind": "stage", "modelpress.outcome": outcome}
            if outcome != "failed":
                tags["modelpress.key"] = key
            if outcome in ("restored", "unchanged"):
                tags["modelpress.made_by"] = self._maker(key)
            if open_run is None:
                run_id = self._create(stage, self._parent, tags)
            else:
                run_id = open_run.run_id
                self._log(run_id, tags=tags)
            if outcome == "ran":
                self._log(run_id, params=flatten(lock_params(entry)))
                if folder is not None:
                    self._log_folder(run_id, folder)
            self._client.set_terminated(run_id, "FAILED" if outcome == "failed" else "FINISHED")

    def log_summary(self, folder: Path, data: Path) -> None:
        """The selected model's numbers (`folder`/metrics.json) and the data set (`data`/dataset.json) on the
        parent run."""
        with self._mirroring("summary"):
            metrics = folder / "metrics.json"
            if metrics.is_file():
                self._log_metrics(self._parent, metrics)
            if (data / "dataset.json").is_file():
                self._client.log_inputs(self._parent, datasets=[dataset(data)])

    def log_effects(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """What an ablation found (`folder`/effects.csv and metrics.json), and what was `asked` of it."""
        with self._mirroring("effects"):
            self._log(self._parent, params=flatten({"ablate": asked}))
            self._log_metrics(self._parent, folder / "metrics.json")
            now = int(time.time() * 1000)
            for row in rows(folder / "effects.csv"):
                tags = {"modelpress.kind": "effect", "modelpress.verdict": row["verdict"]}
                run_id = self._create(f"{row['technique']}, {row['kind']}", self._parent, tags)
                self._log(run_id, [Metric(key, float(row[key]), now, 0) for key in _EFFECT])
                self._client.set_terminated(run_id)

    def end(self, ok: bool) -> None:
        """Close the parent run, and children that were left open. A second call does nothing."""
        if not self._parent or self._closed:
            return
        self._background.join()
        with self._mirroring("run"):
            self._closed = True
            for left in self._stages.values():
                _finish(left.monitor)
                self._client.set_terminated(left.run_id, "KILLED")
            self._stages.clear()
            lock = self._root / "dvc.lock"
            if lock.is_file():
                digest = hashlib.sha256(lock.read_bytes()).hexdigest()
                self._client.set_tag(self._parent, "modelpress.dvc_lock", digest)
            self._client.set_terminated(self._parent, "FINISHED" if ok else "FAILED")

    @contextmanager
    def _mirroring(self, what: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except MlflowException as error:
                log.warning("%s is not mirrored to MLflow: %s", what, reason(error))

    def _create(self, name: str, parent: str, tags: Mapping[str, str]) -> str:
        tags = {**tags, "mlflow.parentRunId": parent}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _maker(self, key: str) -> str:
        """The run that made the outputs described by `key`; `unknown` if it was made without MLflow, as
        by a plain `dvc repro`."""
        runs = self._client.search_runs(
            [self._experiment],
            f"tags.`modelpress.key` = '{key}' and tags.`modelpress.outcome` = 'ran'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return str(runs[0].info.run_id) if runs else "unknown"

    def _log(
        self,
        run_id: str,
        metrics: list[Metric] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        for some in batches(metrics or [], _METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=some)
        for pairs in batches((params or {}).items(), _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=[Param(clean(k), str(v)) for k, v in pairs])
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def _log_folder(self, run_id: str, folder: Path) -> None:
        if (folder / "metrics.json").is_file():
            self._log_metrics(run_id, folder / "metrics.json")
        if (folder / "trials.csv").is_file():
            self._log_trials(run_id, rows(folder / "trials.csv"))
        elif (folder / "history.csv").is_file():
            self._log(run_id, metrics=curves(folder / "history.csv"))
        if (folder / "dataset.json").is_file():
            self._client.log_inputs(run_id, datasets=[dataset(folder)])

    def _log_metrics(self, run_id: str, path: Path) -> None:
        now = int(time.time() * 1000)
        numbers = {k: finite(v) for k, v in flatten(read_json(path)).items()}
        self._log(run_id, [Metric(clean(k), v, now, 0) for k, v in numbers.items() if v is not None])

    def _log_trials(self, stage_run: str, trials: list[dict[str, str]]) -> None:
        runs = [self._log_trial(stage_run, trial) for trial in trials]
        if trials and "front" in trials[0]:
            addresses = [f"#/experiments/{self._experiment}/runs/{run_id}" for run_id in runs]
            note = front_note(list(zip(trials, addresses, strict=True)))
            self._log(stage_run, tags={"mlflow.note.content": note})

    def _log_trial(self, stage_run: str, trial: Mapping[str, str]) -> str:
        fields = dict(trial)
        number, state = fields.pop("number"), fields.pop("state")
        now = int(time.time() * 1000)
        measured = {k: finite(fields.pop(k, "")) for k in _MEASURED}
        run_id = self._create(
            f"trial {number}", stage_run, {"modelpress.kind": "trial", "optuna.state": state}
        )
        self._log(
            run_id,
            [Metric(k, v, now, 0) for k, v in measured.items() if v is not None],
            {k: v for k, v in fields.items() if v},
        )
        self._client.set_terminated(run_id, _TRIAL_STATUS.get(state, "FAILED"))
        return run_id


def _finish(monitor: Any) -> None:
    """Stop sampling; the last sample is logged even if the stage was shorter than the interval."""
    monitor.finish()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()
