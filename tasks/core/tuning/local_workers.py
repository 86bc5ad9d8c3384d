"""Processes of this machine that train trials, one each, one epoch at a time.

A trial computes on one thread, whatever the number of cores, and the search waits for all after every epoch, so that
the same seed gives the same trials on 2 cores and on 64.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from tasks.core.common.errors import StageFailed
from tasks.core.config.params import TrainParams
from tasks.core.tuning.trials import Answer, Task, Worker


def training_context() -> ForkServerContext:
    """Where processes that train come from: what they need is imported once for all of them.

    That is torch, what the module that starts them imports, and torch's compiler, which optimizers import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.core.tuning.trainer", "optuna", "pandas", "torch._dynamo"])
    return context


class LocalWorker:
    """A process on this machine."""

    def __init__(self, task: Task) -> None:
        context = training_context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, params: TrainParams) -> None:
        """As Worker's."""
        self._pipe.send(params)

    def answer(self) -> Answer:
        """As Worker's."""
        try:
            answer: Answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise StageFailed("a worker has died; out of memory? The study goes on at the next run") from None
        return answer

    def proceed(self) -> None:
        """As Worker's."""
        self._pipe.send(None)

    def stop(self) -> None:
        """As Worker's."""
        self._process.terminate()
        self._process.join()


@contextmanager
def local_workers(count: int, task: Task) -> Iterator[list[Worker]]:
    """`count` processes on this machine, for the length of the block."""
    crew: list[Worker] = []
    try:
        crew.extend(LocalWorker(task) for _ in range(count))
        yield crew
    finally:
        for worker in crew:
            worker.stop()


def _serve(task: Task, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search; it stops its workers
    from tasks.core.tuning.trainer import Trainer

    trainer = Trainer(task)
    while True:
        try:
            params = pipe.recv()
        except EOFError:  # the search is gone
            return
        pipe.send(trainer.answer(params))
