"""The pool of processes that images are decoded with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.core.common.errors import StageFailed
from tasks.core.common.workers import Workers

ROOT = Path(__file__).parents[3]


def test_workers_give_results_in_the_order_of_jobs() -> None:
    with Workers("time") as workers:
        assert list(workers.map(abs, range(0, -50, -1))) == list(range(50))


def test_workers_draw_jobs_only_a_little_ahead() -> None:
    jobs = iter(range(1000))
    with Workers("time") as workers:
        next(workers.map(abs, jobs))
        assert next(jobs) <= 3 * workers.count


def test_workers_pass_on_what_a_job_raises() -> None:
    with Workers("time") as workers, pytest.raises(FileNotFoundError, match="nowhere"):
        list(workers.map(os.stat, ["/nowhere"]))


def test_workers_fail_clearly_when_a_process_is_killed() -> None:
    with Workers("time") as workers, pytest.raises(StageFailed, match="a worker process was killed"):
        list(workers.map(os._exit, [9]))


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed() -> None:
    code = "from tasks.core.common.workers import Workers; import os, time\n" + (
        "if __name__ == '__main__':\n"
        " with Workers('time') as w:\n"
        "  for r in w.map(time.sleep, [0, 0, 60]): print('ready', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    # A process that nobody has waited for yet is dead too.
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
