"""A trial of the search, trained one epoch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from tasks.core.augmentation.augment import augment_of
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import TrainParams
from tasks.core.data.dataset import open_dataset, subset
from tasks.core.distributed.world import World, deterministic, keep_memory
from tasks.core.models.saved import mac_count
from tasks.core.models.transfer import begin
from tasks.core.training.loop import Epoch, epochs
from tasks.core.training.recipes import new_network, recipe_of
from tasks.core.tuning.trials import Answer, Task


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
        augment = augment_of(task.policy, params.augment_strength)
        model = new_network(params, dataset, augment.brings)
        self._macs = mac_count(model, dataset.input)
        begin(model, task.weights, params.vocabulary)
        self._running = epochs(
            model,
            recipe_of(params),
            replace(self._subset, sampling=params.sampling),
            dataset.val,
            augment,
            len(dataset.classes),
            self._world,
        )
