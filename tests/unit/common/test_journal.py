"""The study's journal, when a search was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.tuning.studies import take
from tests.unit.tuning.test_studies import open_study, search

pytestmark = pytest.mark.slow  # processes

HOLD = """
import sys, time
from pathlib import Path
from tasks.core.common.journal import _Lock

_Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_study_goes_on_at_once_when_a_search_was_killed_while_it_wrote(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    about = search(trials=2)
    take(open_study(about, journal), about.params)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(journal)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
    trial = take(open_study(about, journal), about.params)
    assert trial is not None
    assert trial.number == 1
