"""A search in step: its trials train side by side, and all wait for each other after every epoch.

So the same seed gives the same trials whatever the clocks of the workers say, and a search that was killed ends as
if it had not been.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import optuna
from optuna.trial import Trial, TrialState

from tasks.core.common.errors import BadInput
from tasks.core.common.journal import cut_off
from tasks.core.common.progress import Progress
from tasks.core.config.tune_params import TuneParams
from tasks.core.tuning.local_workers import local_workers
from tasks.core.tuning.search_inputs import Search
from tasks.core.tuning.studies import chosen, diverge, ended, go_on, note, own_trials, result, take
from tasks.core.tuning.trials import Answer, Worker

SECONDS = "seconds"  # that earlier runs of the search have taken


@dataclass
class _Running:
    trial: Trial
    worker: Worker
    reported: int  # epochs, before the search was cut off
    epoch: int = 0


def search(study: optuna.Study, about: Search) -> None:
    """Run the trials of `study`, `tune.parallel` side by side.

    Raises:
        BadInput: the values of a trial cannot be used with these data.
        StageFailed: a worker has died.
    """
    params, pending = about.params, cut_off(study)
    total = len(own_trials(study))
    began = time.monotonic() - study.user_attrs.get(SECONDS, 0.0)
    with Progress("tune", total) as progress, _workers(min(params.parallel, total), about) as idle:
        if done := len(ended(study)):
            progress.reach(done, "from the journal")
        running: list[_Running] = []
        while True:
            while idle and (pending or not _spent(began, params) or not (running or ended(study))):
                trial = go_on(study, pending.pop(0), params) if pending else take(study, params)
                if trial is None:
                    break
                worker = idle.pop(0)
                worker.begin(chosen(trial, about))
                running.append(_Running(trial, worker, len(study.trials[trial.number].intermediate_values)))
            if not running:
                return
            for entry in list(running):  # in the order of their numbers, not of their clocks
                entry.epoch += 1
                if _over(study, entry, entry.worker.answer(), params):
                    running.remove(entry)
                    idle.append(entry.worker)
                    study.set_user_attr(SECONDS, time.monotonic() - began)
                    progress.step(note(study, entry.trial.number))


def _workers(count: int, about: Search) -> AbstractContextManager[list[Worker]]:
    if about.params.executor == "local":
        return local_workers(count, about.task)
    from tasks.core.tuning.ray_workers import ray_workers

    return ray_workers(count, about.task, about.params)


def _spent(began: float, params: TuneParams) -> bool:
    return params.max_minutes is not None and time.monotonic() - began > 60 * params.max_minutes


def _over(study: optuna.Study, entry: _Running, answer: Answer, params: TuneParams) -> bool:
    """Report what an epoch gave; whether the trial is over."""
    trial, worker = entry.trial, entry.worker
    if answer.refused:
        raise BadInput(answer.refused)
    if answer.accuracy is None:
        diverge(study, trial)
        return True
    last = entry.epoch == params.epochs
    if len(params.objectives) == 1:
        if entry.epoch > entry.reported:
            trial.report(answer.accuracy, entry.epoch)
        if not last and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    if last:
        study.tell(trial, result(answer.accuracy, answer.macs, params))
    else:
        worker.proceed()
    return last
