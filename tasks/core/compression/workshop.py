"""Which designs of the front become candidates: the best that needs no training, and better ones that are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from torch import nn

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
from tasks.core.training.loop import Epoch
from tasks.core.training.recipes import note, write_history

RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Pressed:
    """A design of the front as a candidate: where it is, whether it was trained after the cut, and what it loses on
    validation images."""

    trial: FrozenTrial
    folder: Path
    trained: bool
    loss: Loss
    within: bool


@dataclass(frozen=True)
class Workshop:
    """Where designs become candidates.

    Attributes:
        asked: how they are trained and quantized, and what is good enough.
        augment: what they see in training.
        bench: where they are cut and measured.
        spec: of the dense network.
        folder: outlives the run; what is in it is not made again.
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

    def candidates(self, best: list[FrozenTrial], count: int, reached: float) -> list[Pressed]:
        """Designs of the front with more merit than what was `reached` without them: the best that is within the bar as it is
        cut, and up to `count` still better ones, trained. What was not trained again changes few answers, so that fewer
        examples prove what it is worth."""
        cut = self._as_cut(best, reached)
        if not self.asked.prune.epochs:
            return [cut] if cut else []
        if cut is None:
            return self.bisect(best, count, reached)
        better = best[best.index(cut.trial) + 1 :]
        return [cut, *(self.bisect(better, count, reached) if better else [])]

    def _as_cut(self, best: list[FrozenTrial], reached: float) -> Pressed | None:
        """The design with the most merit that is within the bar untrained, of those that seemed so when they were tried."""
        least = self.bench.measured(self.bench.dense).accuracy - self.asked.select.max_drop_points / 100
        for trial in reversed(best):
            worth = worth_of(trial)
            if merit(worth, self.asked.select) > reached and worth.accuracy >= least:
                made = self._made(trial, trained=False)
                if made.within:
                    return made
        return None

    def bisect(self, best: list[FrozenTrial], count: int, reached: float) -> list[Pressed]:
        """Train up to `count` designs of the front: the middle one, then the one between it and the end that
        its outcome points to, each end measured by the logarithm of its merit. Those with no more merit than was
        `reached` without them are not worth it, unless all are: then it is the last."""
        merits = [merit(worth_of(trial), self.asked.select) for trial in best]
        high, trained = len(best) - 1, list[Pressed]()
        low = min(high, sum(value <= reached for value in merits))
        while len(trained) < count and low <= high:
            middle = (merits[low] * merits[high]) ** 0.5
            i = min(range(low, high + 1), key=lambda j: abs(np.log(merits[j] / middle)))
            made = self._made(best[i], trained=True)
            trained.append(made)
            low, high = (i + 1, high) if made.within else (low, i - 1)
        return trained

    def _made(self, trial: FrozenTrial, trained: bool) -> Pressed:
        """A design, trained or as it was cut; what a run that was killed has finished is taken as it is."""
        folder = self.folder / (f"trial-{trial.number}" + ("" if trained else "-as-cut"))
        if not folder.is_dir():
            with staged(folder) as partial:
                self._make(trial, trained, partial)
        elif trained:
            self.progress.step("from the journal", self.asked.prune.epochs)
        lost = self._loss((folder / "model.onnx").read_bytes())
        return Pressed(trial, folder, trained, lost, self._within(lost))

    def _make(self, trial: FrozenTrial, trained: bool, out: Path) -> None:
        torch.manual_seed(self.asked.prune.seed)
        design = suggest(trial, self.asked.press, self.bench)
        student = self.bench.cut(design)
        history = self._train(student, trial) if trained else []
        student.cpu().eval()
        source = self.bench.source_of(student)
        network = figures(student, source.graph, self.bench.source.dataset)
        deliver(source, self.bench.delivered(design, source), design.scheme, network, out)
        save_model(student, self.spec, out)
        write_history(history, out / "history.csv")

    def _train(self, student: nn.Module, trial: FrozenTrial) -> list[Epoch]:
        params = self.asked.prune
        with world() as ranks:
            rows = recover(
                student.train(),
                self.bench.network,
                params,
                self.bench.source.dataset,
                self.augment,
                ranks,
                length=params.epochs,
                seed=params.seed,
                checkpoint=self.folder / f"checkpoint-{trial.number}",
            )
            history = self.progress.over(rows, note)
        self.bench.network.cpu()
        return history

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
