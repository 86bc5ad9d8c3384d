"""Trials of the search, each training in a process of its own, one epoch at a time.

A trial computes on one thread whatever the machine, and the processes wait for each other after
every epoch, so that a search with the same seed gives the same trials on 2 cores and on 64.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.core.architectures import build
from tasks.core.data import Dataset, Split, open_dataset
from tasks.core.dist import World, deterministic, keep_memory
from tasks.core.engine import Epoch, fit
from tasks.core.errors import BadInput, StageFailed
from tasks.core.params import TrainParams
from tasks.core.recipes import recipe_of, spec_of
from tasks.core.transfer import begin
from tasks.core.transforms import BatchAugment

FEW = 1000  # images that a trial trains on at least, if there are so many


@dataclass(frozen=True)
class Task:
    """What a worker needs to know once: the data and the budget that all trials share."""

    data: Path
    policy: dict[str, Any]
    weights: Path
    epochs: int
    train_fraction: float
    seed: int


class Worker:
    """A process that trains one trial after another."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, params: TrainParams) -> None:
        """Start a trial; its first epoch runs at once."""
        self._pipe.send(params)

    def value(self) -> float | None:
        """Wait for the epoch that runs: its validation accuracy, or None if training diverged.

        Raises:
            BadInput: the trial's values cannot be used with these data.
            StageFailed: the process has died.
        """
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise StageFailed("a worker has died; out of memory? The study goes on at the next run") from None
        if isinstance(answer, str):
            raise BadInput(answer)
        return None if answer is None else float(answer)

    def proceed(self, go_on: bool) -> None:
        """Let the trial run its next epoch, or end here."""
        self._pipe.send(go_on)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


@contextmanager
def workers(count: int, task: Task) -> Iterator[list[Worker]]:
    """`count` workers for the length of the block."""
    crew: list[Worker] = []
    try:
        crew.extend(Worker(task) for _ in range(count))
        yield crew
    finally:
        for worker in crew:
            worker.stop()


class _Ended(Exception):
    """The search has ended this trial."""


def _serve(task: Task, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search; it stops its workers
    keep_memory()
    torch.set_num_threads(1)
    deterministic()
    dataset = open_dataset(task.data)
    subset = _subset(dataset.train, task.train_fraction, task.seed)

    def after_epoch(row: Epoch) -> None:
        pipe.send(row.val_accuracy)
        if not pipe.recv():
            raise _Ended

    while True:
        try:
            params: TrainParams = pipe.recv()
        except EOFError:  # the search is gone
            return
        try:
            _run(params, task, dataset, subset, after_epoch)
        except _Ended:
            pass
        except StageFailed:
            pipe.send(None)
        except BadInput as error:
            pipe.send(str(error))


def _run(params: TrainParams, task: Task, dataset: Dataset, subset: Split, after_epoch: Any) -> None:
    params = params.model_copy(update={"epochs": task.epochs, "early_stopping": 0})
    torch.manual_seed(params.seed)
    model = build(spec_of(params, dataset))
    begin(model, task.weights)
    fit(
        model,
        recipe_of(params),
        subset,
        dataset.val,
        BatchAugment(task.policy, params.augment_strength),
        len(dataset.classes),
        World(0, 1, torch.device("cpu")),
        on_epoch=after_epoch,
    )


def _subset(train: Split, fraction: float, seed: int) -> Split:
    """The same random part of the training images for every trial; all of them where there are few."""
    total = len(train.labels_N)
    count = max(min(total, FEW), round(total * fraction))
    rows = np.sort(np.random.default_rng(seed).permutation(len(train.labels_N))[:count])
    return Split(train.images_NHWC[rows], np.asarray(train.labels_N[rows]))
