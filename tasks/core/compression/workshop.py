"""Designs of the front are trained, and what was trained tells which one to train next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from tasks.core.augmentation.augment import Augment
from tasks.core.common.files import staged
from tasks.core.common.progress import Progress
from tasks.core.compression.designs import Bench
from tasks.core.compression.search import merit, suggest, worth_of
from tasks.core.config.params_file import Pipeline
from tasks.core.distributed.world import world
from tasks.core.evaluation.bar import Bar, Loss
from tasks.core.evaluation.stats import loss
from tasks.core.models.saved import save_model
from tasks.core.models.spec import Spec
from tasks.core.pruning.finetuning import recover
from tasks.core.quantization.deliver import deliver
from tasks.core.runtime.export import figures
from tasks.core.runtime.session import predict, session
from tasks.core.training.recipes import note, write_history

RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Finetuned:
    """A design of the front, trained: where its candidate is, and what it loses on validation images."""

    trial: FrozenTrial
    folder: Path
    loss: Loss
    within: bool


@dataclass(frozen=True)
class Workshop:
    """Where designs are trained.

    Attributes:
        asked: how they are trained and quantized, and what is good enough.
        augment: what they see in training.
        bench: where they are cut and measured.
        spec: of the dense network.
        folder: outlives the run; what is in it is not trained again.
    """

    asked: Pipeline
    augment: Augment
    bench: Bench
    spec: Spec
    folder: Path
    progress: Progress

    def reached(self, candidates: Iterable[Path]) -> float:
        """The merit of the best of these models that is within the bar; 0 if none is."""
        contents = [path.read_bytes() for path in candidates]
        within = [content for content in contents if self._within(self._loss(content))]
        return max(
            (merit(self.bench.measured(content), self.asked.select) for content in within), default=0.0
        )

    def bisect(self, best: list[FrozenTrial], count: int, reached: float) -> list[Finetuned]:
        """Train up to `count` designs of the front: the middle one, then the one between it and the end that
        its outcome points to, each end measured by the logarithm of its merit. Those with no more merit than was
        `reached` without them are not worth it, unless all are: then it is the last."""
        merits = [merit(worth_of(trial), self.asked.select) for trial in best]
        high, trained = len(best) - 1, list[Finetuned]()
        low = min(high, sum(value <= reached for value in merits))
        while len(trained) < count and low <= high:
            middle = (merits[low] * merits[high]) ** 0.5
            i = min(range(low, high + 1), key=lambda j: abs(np.log(merits[j] / middle)))
            finetuned = self._finetuned(best[i])
            trained.append(finetuned)
            low, high = (i + 1, high) if finetuned.within else (low, i - 1)
        return trained

    def _finetuned(self, trial: FrozenTrial) -> Finetuned:
        """A design, trained; what a run that was killed has finished is taken as it is."""
        folder = self.folder / f"trial-{trial.number}"
        if folder.is_dir():
            self.progress.step("from the journal", self.asked.prune.epochs)
        else:
            with staged(folder) as partial:
                self._train(trial, partial)
        lost = self._loss((folder / "model.onnx").read_bytes())
        return Finetuned(trial, folder, lost, self._within(lost))

    def _train(self, trial: FrozenTrial, out: Path) -> None:
        params, dataset = self.asked.prune, self.bench.source.dataset
        torch.manual_seed(params.seed)
        design = suggest(trial, self.asked.press, self.bench)
        student = self.bench.cut(design).train()
        with world() as ranks:
            rows = recover(
                student,
                self.bench.network,
                params,
                dataset,
                self.augment,
                ranks,
                length=params.epochs,
                seed=params.seed,
                checkpoint=self.folder / f"checkpoint-{trial.number}",
            )
            history = self.progress.over(rows, note)
        self.bench.network.cpu()
        student.cpu().eval()
        source = self.bench.source_of(student)
        network = figures(student, source.graph, dataset)
        deliver(source, self.bench.delivered(design, source), design.scheme, network, out)
        save_model(student, self.spec, out)
        write_history(history, out / "history.csv")

    def _loss(self, content: bytes) -> Loss:
        """What a model loses on the validation images."""
        return loss(self._dense_right_N, self._right_N(content), RESAMPLES, self.asked.press.seed)

    @cached_property
    def _dense_right_N(self) -> NDArray[np.bool_]:
        return self._right_N(self.bench.dense)

    def _right_N(self, content: bytes) -> NDArray[np.bool_]:
        val = self.bench.source.dataset.val
        right_N: NDArray[np.bool_] = predict(session(content, 1), val.raw_N).argmax(1) == val.labels_N
        return right_N

    def _within(self, lost: Loss) -> bool:
        return Bar(self.asked.select.max_drop_points, len(self.bench.source.dataset.val)).passes(lost)
