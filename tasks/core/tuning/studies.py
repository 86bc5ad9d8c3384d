"""The study of a search: where it is kept, which trials it begins with, how a trial gets its values.

A study is a journal on disk, or lies in the database that MODELPRESS_STUDY_STORAGE names, where many hosts share
it. All its trials are there from the beginning, waiting: those that are set beforehand with their values, the
others without. Whoever takes one from the queue runs it, so that no two run the same and none is left over.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tasks.core.common.errors import StageFailed
from tasks.core.common.journal import open_storage, resume
from tasks.core.config.params import TrainParams
from tasks.core.config.tune_params import ChoiceSpace, FloatSpace, TuneParams, Value
from tasks.core.tuning.samplers import experimental, pruner, sampler
from tasks.core.tuning.search_inputs import Search

STORAGE = "MODELPRESS_STUDY_STORAGE"
HEARTBEAT_S, GRACE_S = 5, 30  # a worker says so often that it lives; after so long without, it does not
RETRIES = 3  # of a trial whose worker died
CONNECT_S = 10
WARM = "warm"  # marks trials of an earlier search
DIVERGED = "diverged"  # marks trials whose training has


def shared_url() -> str | None:
    """The database that hosts share, if there is one, with the driver that we use."""
    url = os.environ.get(STORAGE)
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url else None


@experimental()
def storage(journal: Path) -> BaseStorage:
    """The database that hosts share, or else `journal`.

    Raises:
        StageFailed: the database cannot be reached.
    """
    url = shared_url()
    if url is None:
        return open_storage(journal)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S}},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=repeat,
        )
    except Exception as error:  # of SQLAlchemy, of the driver, of Optuna: whoever looks first
        raise StageFailed(unreachable(error)) from None


def unreachable(error: Exception) -> str:
    """What is wrong with the database, in a line, and without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        where = make_url(os.environ[STORAGE]).render_as_string(hide_password=True)
    except ArgumentError:
        return f"{STORAGE} is not a URL such as postgresql://USER:PASSWORD@HOST/DATABASE"
    if isinstance(error.__cause__, ImportError) or isinstance(error, ImportError):
        return f"{STORAGE} ({where}): its driver is missing: pip install 'modelpress[postgresql]'"
    cause = getattr(error, "orig", None) or error.__cause__ or error
    said = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return f"{STORAGE} ({where}) cannot be used: {said[0] if said else type(error).__name__}"


def create(kept: BaseStorage, about: Search) -> optuna.Study:
    """The study of `about`, with all its trials; one that is there is gone on with."""
    params = about.params
    study = optuna.create_study(
        storage=kept,
        study_name=about.name,
        directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(params.objectives)],
        load_if_exists=True,
    )
    fit_to(study, params)
    for trial in about.earlier[len(study.trials) :]:
        study.add_trial(
            optuna.create_trial(
                params=trial.values,
                distributions={name: _distribution(space) for name, space in params.space.items()},
                values=trial.results,
                user_attrs={WARM: True},
            )
        )
    planned = list(itertools.islice(_plan(about), params.trials))
    drawn = 0 if params.sampler in ("grid", "manual") else params.trials - len(planned)
    for values in [*planned, *[{}] * drawn][len(own_trials(study)) :]:
        study.enqueue_trial(values)
    return study


def fit_to(study: optuna.Study, params: TuneParams) -> None:
    """Give a study the pruner that `params` asks for; its sampler is set for each trial."""
    study.pruner = pruner(params)


def _plan(about: Search) -> Iterator[dict[str, Value]]:
    """The values that are tried beforehand, each once."""
    seen: list[dict[str, Value]] = []
    for values in _wanted(about):
        if values not in seen:
            seen.append(values)
            yield values


def _wanted(about: Search) -> Iterator[dict[str, Value]]:
    """Train's own values, so that the search never ends below them; the user's; the best of an earlier search; the
    grid."""
    params = about.params
    own: dict[str, Value] = {name: about.base.model_dump()[name] for name in params.space}
    asked = [{**own, **values} for values in params.manual]
    if params.sampler == "manual":
        yield from asked
        return
    if all(space.contains(own[name]) for name, space in params.space.items()):
        yield own
    yield from asked
    if about.earlier:
        yield max(about.earlier, key=lambda trial: trial.results[0]).values
    if params.sampler == "grid":
        yield from _grid(params)


def _grid(params: TuneParams) -> list[dict[str, Value]]:
    """Every combination, in an order that leaves no corner for last when there are fewer trials."""
    choices = [space.choices for space in params.space.values() if isinstance(space, ChoiceSpace)]
    points = [dict(zip(params.space, values, strict=True)) for values in itertools.product(*choices)]
    order = np.random.default_rng(params.seed).permutation(len(points))
    return [points[i] for i in order]


def take(study: optuna.Study, params: TuneParams) -> Trial | None:
    """The next trial of the queue, with its values, or None if none waits."""
    number = _claim(study)
    if number is None:
        return None
    study.sampler = sampler(params, study._storage.get_trial(number).number)
    trial = Trial(study, number)
    suggest(trial, params)
    return trial


def _claim(study: optuna.Study) -> int | None:
    """The number in the storage of the first trial that waits and that nobody else has taken.

    As Optuna does it, but for a sign of life before the trial runs: one that is RUNNING and has never given any is
    not missed when its worker dies, and keeps the search waiting for ever.
    """
    store = study._storage
    if not isinstance(store, BaseHeartbeat):
        return study._pop_waiting_trial_id()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        store.record_heartbeat(trial._trial_id)
        with suppress(UpdateFinishedTrialError):
            if store.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return trial._trial_id
    return None


def go_on(study: optuna.Study, stored: FrozenTrial, params: TuneParams) -> Trial:
    """A trial that a kill cut off, with the values that it would have had."""
    study.sampler = sampler(params, stored.number)
    trial = resume(study, stored)
    suggest(trial, params)
    return trial


def suggest(trial: Trial, params: TuneParams) -> None:
    """Draw what the trial has no value for yet."""
    for name, space in params.space.items():
        if isinstance(space, ChoiceSpace):
            trial.suggest_categorical(name, space.choices)
        else:
            trial.suggest_float(name, space.low, space.high, log=space.log)


def _distribution(space: FloatSpace | ChoiceSpace) -> BaseDistribution:
    if isinstance(space, ChoiceSpace):
        return CategoricalDistribution(space.choices)
    return FloatDistribution(space.low, space.high, log=space.log)


def chosen(trial: Trial, about: Search) -> TrainParams:
    """What a trial trains with."""
    return about.base.model_copy(update={name: trial.params[name] for name in about.params.space})


@experimental()
def repeat(study: optuna.Study, failed: FrozenTrial) -> None:
    """Put a trial whose worker is gone back, with its values, unless it was often enough."""
    RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, failed)


def _repeated(trials: list[FrozenTrial]) -> set[int]:
    """The numbers of those that were put back."""
    return {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}


def unrepeated(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The failed of all the `trials` of a study that are to be tried again, and that nobody has put back yet."""
    again = _repeated(trials)
    return [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL
        and trial.number not in again
        and len(trial.system_attrs.get("retry_history", [])) < RETRIES
    ]


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of this search: not those of an earlier one, and of a trial that was tried again, the last."""
    trials = [trial for trial in study.trials if WARM not in trial.user_attrs]
    again = _repeated(trials)
    return [trial for trial in trials if trial.number not in again]


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Of `own_trials` those that are over."""
    return [trial for trial in own_trials(study) if trial.state.is_finished()]


def result(accuracy: float, macs: int, params: TuneParams) -> list[float]:
    """What a trial that went to its end is told as."""
    return [accuracy, macs][: len(params.objectives)]


def diverge(study: optuna.Study, trial: Trial) -> None:
    """End a trial whose training has diverged. For Optuna it is pruned: TPE keeps away from pruned trials, but learns
    nothing from failed ones."""
    trial.set_user_attr(DIVERGED, True)
    study.tell(trial, state=TrialState.PRUNED)


def outcome(trial: FrozenTrial) -> str:
    """How a trial stands: complete, pruned, diverged, running, waiting, or fail where its worker died too often."""
    return DIVERGED if DIVERGED in trial.user_attrs else trial.state.name.lower()


def best(study: optuna.Study, params: TuneParams) -> FrozenTrial | None:
    """The most accurate trial; with two objectives the one with the fewest multiply-accumulates that lacks at most
    `max_drop_points` of it. None if no trial has ended well."""
    done = [trial for trial in own_trials(study) if trial.state == TrialState.COMPLETE]
    if not done:
        return None
    top = max(done, key=lambda trial: trial.values[0])
    if len(params.objectives) == 1:
        return top
    near = [t for t in done if 100 * (top.values[0] - t.values[0]) <= params.max_drop_points]
    return min(near, key=lambda trial: (trial.values[1], -trial.values[0]))


def note(study: optuna.Study, number: int) -> str:
    """What a progress line says about a trial that is over."""
    trial = study.trials[number]
    values = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    reached = max([*trial.intermediate_values.values(), *(trial.values or [])[:1]], default=float("nan"))
    return f"trial {number} {outcome(trial)} at {reached:.2%} ({values})"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
