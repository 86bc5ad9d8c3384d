"""Optuna's journal on disk: a search that was killed goes on from it."""

from __future__ import annotations

from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState


class _Lock(JournalFileOpenLock):
    """The kernel frees it when its holder dies; the one it replaces is a file, which a kill leaves behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(path: Path) -> JournalStorage:
    """The journal at `path`, which is made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(path)))


def cut_off(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were running when the search was killed, to go on with."""
    return [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def resume(study: optuna.Study, stored: FrozenTrial) -> Trial:
    """A trial of `cut_off` to go on with, its sampler set in `study` and seeded as it was.

    The kill may have come between two of its draws. A sampler that draws them one by one draws those that were
    stored once more, so that the others come out as they would have.
    """
    trial = Trial(study, stored._trial_id)  # draws what the sampler draws together
    drawn = {**stored.system_attrs.get("fixed_params", {}), **trial.relative_params}
    for name, distribution in stored.distributions.items():
        if name not in drawn:
            study.sampler.sample_independent(study, stored, name, distribution)
    return trial
