"""The same function over many jobs, on all CPUs, with the results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from tasks.core.common.errors import StageFailed

J = TypeVar("J")
R = TypeVar("R")
AHEAD = 3  # jobs handed out a worker: enough to keep it busy, few enough to keep memory flat


class Workers:
    """A pool of processes, one a CPU that this process may use. A context manager.

    Args:
        module: the one that holds the functions to be run; imported once, before the pool splits.
    """

    def __init__(self, module: str) -> None:
        self.count = len(os.sched_getaffinity(0))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([module])
        self._pool = ProcessPoolExecutor(self.count, context, initializer=_start)

    def map(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """`function` of each job, in order. Jobs are drawn only a few ahead of the results.

        Raises:
            StageFailed: a process was killed. What `function` raises is raised here.
        """
        running: deque[Future[R]] = deque()
        try:
            for job in jobs:
                running.append(self._pool.submit(function, job))
                if len(running) >= AHEAD * self.count:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool:
            raise StageFailed("a worker process was killed; the usual cause is too little memory") from None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Ctrl-C is the parent's to handle; a parent that was killed takes its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders remark on damaged files without naming them; what cannot be read is counted instead.
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
