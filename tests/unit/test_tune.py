"""The study's journal, on its own; what the search finds is tested with the whole pipeline."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tasks.core.params import FloatSpace, TuneParams
from tasks.tune import _study

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
