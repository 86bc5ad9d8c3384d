"""A search that many hosts share: every worker takes trials from the queue in the database until none is left.

A worker says every few seconds that it lives. Where one has died, the others put its trial back, with the values
that it had. Which trial learns from which depends on the clocks, so such a search is not repeatable to the bit.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.progress import Progress
from tasks.core.tuning.local_workers import training_context
from tasks.core.tuning.samplers import experimental
from tasks.core.tuning.search_inputs import Search
from tasks.core.tuning.studies import (
    chosen,
    diverge,
    ended,
    fit_to,
    note,
    own_trials,
    repeat,
    result,
    storage,
    take,
    unreachable,
    unrepeated,
)

if TYPE_CHECKING:
    from tasks.core.tuning.trainer import Trainer

POLL_S = 1.0
CLOSED = "closed"  # nobody takes another trial: the minutes are spent
REFUSED = "refused"  # what is wrong with the values of a trial


@experimental()
def search(study: optuna.Study, about: Search) -> None:
    """Run the trials of `study` with `tune.parallel` workers here, and as many elsewhere as there are.

    Raises:
        BadInput: the values of a trial cannot be used with these data.
        StageFailed: the database is gone, or all workers here have died and there are none elsewhere.
    """
    params, began = about.params, time.monotonic()
    total = len(own_trials(study))
    study.set_user_attr(CLOSED, False)
    with Progress("tune", total) as progress, crew(about) as processes:
        told: set[int] = set()
        lost: set[int] = set()
        while True:
            with _connected():
                fail_stale_trials(study)
                lost = _put_back(study, lost)
                for trial in ended(study):
                    if trial.number not in told:
                        told.add(trial.number)
                        progress.step(note(study, trial.number))
                if over(study):
                    return
                if (
                    params.max_minutes is not None
                    and time.monotonic() - began > 60 * params.max_minutes
                    and told
                ):
                    study.set_user_attr(CLOSED, True)
                if REFUSED in study.user_attrs:
                    raise BadInput(study.user_attrs[REFUSED])
                runs = any(trial.state == TrialState.RUNNING for trial in study.trials)
            if not runs and not any(process.is_alive() for process in processes):
                raise StageFailed("all workers have died; out of memory? The study goes on at the next run")
            time.sleep(POLL_S)


def over(study: optuna.Study) -> bool:
    """Whether no trial runs, and none is going to."""
    trials = study.trials
    states = {trial.state for trial in trials}
    waits = TrialState.WAITING in states or bool(unrepeated(trials))
    return TrialState.RUNNING not in states and (not waits or bool(study.user_attrs.get(CLOSED)))


def _put_back(study: optuna.Study, lost: set[int]) -> set[int]:
    """Put those of the trials `lost` back that nobody has since the last look, and return what is lost now.

    Whoever fails a stale trial puts it back a moment later, unless it dies in between.
    """
    now = unrepeated(study.trials)
    for trial in now:
        if trial.number in lost:
            repeat(study, trial)
    return {trial.number for trial in now} - lost


@contextmanager
def crew(about: Search) -> Iterator[list[BaseProcess]]:
    """`tune.parallel` processes that work on the study of `about`, for the length of the block."""
    context = training_context()
    processes = [context.Process(target=_work, args=(about,)) for _ in range(about.params.parallel)]
    try:
        for process in processes:
            process.start()
        yield list(processes)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


@experimental()
def _work(about: Search) -> None:
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search; it stops its workers
    from tasks.core.tuning.trainer import Trainer

    search_process = multiprocessing.parent_process()
    trainer = Trainer(about.task)
    try:
        study = join(about)
        with _connected():
            while search_process is not None and search_process.is_alive() and not _stopped(study):
                fail_stale_trials(study)
                trial = take(study, about.params)
                if trial is not None:
                    _run(study, trial, trainer, about)
                elif over(study):
                    return
                else:  # a trial that runs elsewhere may come back
                    time.sleep(POLL_S)
    except StageFailed as error:
        sys.exit(f"tune: {error}")


def join(about: Search) -> optuna.Study:
    """The study of `about` in the shared database.

    Raises:
        KeyError: it is not there.
        StageFailed: the database cannot be used.
    """
    with _connected():
        study = optuna.load_study(study_name=about.name, storage=storage(Path()))
        fit_to(study, about.params)
        return study


def _stopped(study: optuna.Study) -> bool:
    attributes = study.user_attrs
    return bool(attributes.get(CLOSED)) or REFUSED in attributes


def _run(study: optuna.Study, trial: Trial, trainer: Trainer, about: Search) -> None:
    try:
        with get_heartbeat_thread(trial._trial_id, study._storage):
            _train(study, trial, trainer, about)
    except UpdateFinishedTrialError:
        print(
            f"tune: trial {trial.number} took so long between signs of life that it was begun anew",
            flush=True,
        )
    except SystemExit:  # asked to stop: the trial need not wait until it is missed
        repeat(study, study.trials[trial.number])
        study.tell(trial, state=TrialState.FAIL)
        raise


def _train(study: optuna.Study, trial: Trial, trainer: Trainer, about: Search) -> None:
    """An epoch after another, until the trial is over."""
    params = about.params
    answer = trainer.answer(chosen(trial, about))
    for epoch in range(1, params.epochs + 1):
        if answer.refused:
            study.set_user_attr(REFUSED, answer.refused)
        if answer.accuracy is None:
            diverge(study, trial)
            return
        if epoch == params.epochs:
            study.tell(trial, result(answer.accuracy, answer.macs, params))
            return
        if len(params.objectives) == 1:
            trial.report(answer.accuracy, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
        answer = trainer.answer(None)


@contextmanager
def _connected() -> Iterator[None]:
    """Raises StageFailed, in a line, for whatever the database says."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StageFailed(unreachable(error)) from None


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(143)
