"""Trials of the search, each training in a process of its own, one epoch at a time.

On this machine a trial computes on one thread, whatever the number of cores, and the search waits for all after
every epoch, so that the same seed gives the same trials on 2 cores and on 64.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import TrainParams
from tasks.core.data.dataset import open_dataset, subset
from tasks.core.distributed.world import World, deterministic, keep_memory
from tasks.core.models.architectures import build
from tasks.core.models.saved import mac_count
from tasks.core.models.transfer import begin
from tasks.core.training.loop import Epoch, epochs
from tasks.core.training.recipes import recipe_of, spec_of


@dataclass(frozen=True)
class Task:
    """What a worker needs to know once: the data and the budget that all trials share."""

    data: Path
    policy: dict[str, Any]
    weights: Path
    epochs: int
    train_fraction: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """What an epoch of a trial gave: its validation accuracy, None if training diverged; the network's
    multiply-accumulates; what is wrong with the trial's values, if something is."""

    accuracy: float | None = None
    macs: int = 0
    refused: str = ""


class Trainer:
    """Trains one trial after another, an epoch at a time, in the process that it lives in."""

    def __init__(self, task: Task, threads: int = 1) -> None:
        keep_memory()
        torch.set_num_threads(threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        deterministic(warn_only=device.type == "cuda")
        self._task, self._world = task, World(0, 1, device)
        self._dataset = open_dataset(task.data)
        self._subset = subset(self._dataset.train, task.train_fraction, task.seed)
        self._running: Iterator[Epoch] = iter(())
        self._macs = 0

    def answer(self, params: TrainParams | None) -> Answer:
        """Train the first epoch of a trial with `params`, or with None the next one of the trial that runs."""
        try:
            if params is not None:
                self._begin(params)
            return Answer(next(self._running).val_accuracy, self._macs)
        except StageFailed:
            return Answer(None, self._macs)
        except BadInput as error:
            return Answer(refused=str(error))

    def _begin(self, params: TrainParams) -> None:
        task, dataset = self._task, self._dataset
        params = params.model_copy(update={"epochs": task.epochs, "early_stopping": 0})
        torch.manual_seed(params.seed)
        model = build(spec_of(params, dataset))
        self._macs = mac_count(model, dataset.image_shape)
        begin(model, task.weights)
        self._running = epochs(
            model,
            recipe_of(params),
            replace(self._subset, sampling=params.sampling),
            dataset.val,
            BatchAugment(task.policy, params.augment_strength),
            len(dataset.classes),
            self._world,
        )


class Worker(Protocol):
    """A trainer somewhere else. It trains the next epoch while the search looks at other trials."""

    def begin(self, params: TrainParams) -> None:
        """Start a trial; its first epoch runs at once."""

    def answer(self) -> Answer:
        """Wait for the epoch that runs. Raises StageFailed if the process has died."""

    def proceed(self) -> None:
        """Let the trial run its next epoch."""

    def stop(self) -> None:
        """End the process."""


class LocalWorker:
    """A process on this machine."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
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
    trainer = Trainer(task)
    while True:
        try:
            params = pipe.recv()
        except EOFError:  # the search is gone
            return
        pipe.send(trainer.answer(params))
