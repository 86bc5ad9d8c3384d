"""The study's journal, on its own; what the search finds is tested with the whole pipeline."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial

from tasks.core.journal import cut_off
from tasks.core.params import FloatSpace, TrainParams, TuneParams
from tasks.tune import _asked, _resumed, _study, _suggest

HOLD = """
import sys, time
from pathlib import Path
from tasks.core.journal import _Lock

_Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_study_goes_on_at_once_when_a_search_was_killed_while_it_wrote(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    params = TuneParams(trials=1, space={"lr": FloatSpace(low=0.1, high=0.2)})
    _study(params, journal).ask()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(journal)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
    study = _study(params, journal)
    study.ask()
    assert [trial.number for trial in study.trials] == [0, 1]


@pytest.mark.parametrize("number", [0, 1, 7])  # enqueued, random, proposed by TPE
@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_trial_draws_what_it_would_have_when_a_kill_cut_it_off(
    number: int, drawn: int, tmp_path: Path
) -> None:
    space = {"lr": {"low": 0.01, "high": 0.5, "log": True}, "weight_decay": {"low": 0.0, "high": 0.1}}
    params = TuneParams.model_validate({"space": space, "startup_trials": 3})

    def asked(path: Path, left: int) -> tuple[optuna.Study, Trial]:
        study = _study(params, path)
        for i in range(number + 1):
            trial = _asked(study, params, TrainParams())
            part = params.model_copy(
                update={"space": dict(list(params.space.items())[: left if i == number else 2])}
            )
            _suggest(trial, part)
            if i < number:
                study.tell(trial, 1 - i / 10)
        return study, trial

    _, whole = asked(tmp_path / "whole.log", 2)
    asked(tmp_path / "cut.log", drawn)
    again = _study(params, tmp_path / "cut.log")
    resumed = _resumed(again, cut_off(again)[0], params)
    _suggest(resumed, params)
    assert resumed.params == whole.params
