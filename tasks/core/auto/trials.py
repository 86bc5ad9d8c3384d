"""Short trainings that answer one question each: which of two settings leads to the better model?

All are of the images for training and validation; nothing here sees a test image. Where validation images are few,
every image of both is predicted once, by a network that has not learned from it (cross-validation).

N: images that are predicted, K: classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.core.augmentation.augment import Augment, augment_of
from tasks.core.augmentation.policy import resolve_policy
from tasks.core.auto.budget import Cost, batch_of, cost_of, most_passes, passes
from tasks.core.common.errors import StageFailed
from tasks.core.common.files import fingerprint, read_json, staged, write_json
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import Dataset, Split
from tasks.core.distributed.world import World, thread_count
from tasks.core.evaluation.calibration import cross_entropy, temperature
from tasks.core.models.architectures import published
from tasks.core.models.saved import load_model, save_model
from tasks.core.models.spec import Spec
from tasks.core.models.tables import add_rows
from tasks.core.models.transfer import take_over
from tasks.core.training.loop import epochs, predict
from tasks.core.training.recipes import new_network, recipe_of, spec_of

ENOUGH = 500  # validation images: with fewer, trials are cross-validated
MOST = 1000  # images that a trial is judged by
FOLDS = 2
LEAST, LEAST_OF_CLASS = 1000, 20  # images that a trial learns from, if there are so many
REWARMED = 0.3  # of the learning rate, where a trial goes on from a trained network


@dataclass(frozen=True)
class Setting:
    """What a trial tries."""

    train: TrainParams
    augment: AugmentParams
    pretrained: bool = False  # start from what is published for the network


@dataclass(frozen=True)
class Base:
    """What trials go on from: a network that has learned from all images for `work`."""

    setting: Setting
    work: float


@dataclass(frozen=True)
class Outcome:
    """What came of it: accuracy, and the cross-entropy of each image, in nats, after temperature scaling."""

    accuracy: float
    loss_N: NDArray[np.float64]
    epochs: int
    images: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "loss_N": self.loss_N.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outcome:
        return cls(**{**content, "loss_N": np.array(content["loss_N"])})

    @property
    def loss(self) -> float:
        """The mean cross-entropy; infinite where training has diverged."""
        return float(self.loss_N.mean())

    def gain_on(self, other: Outcome) -> tuple[float, float]:
        """By how many nats this one's cross-entropy is lower, and the standard error of that, paired by image."""
        if not (math.isfinite(self.loss) and math.isfinite(other.loss)):
            return (0.0 if self.loss == other.loss else other.loss - self.loss), 0.0
        gain_N = other.loss_N - self.loss_N
        return float(gain_N.mean()), float(gain_N.std() / math.sqrt(len(gain_N)))


class Trials:
    """Runs trials on one data set. One that `journal` knows the outcome of is not run again."""

    def __init__(self, dataset: Dataset, world: World, journal: Path, seed: int) -> None:
        self._dataset, self._world, self._journal, self._seed = dataset, world, journal, seed
        self._folds = list(_folds(dataset, seed))
        self.images = len(self._folds[0][0])
        self._costs: dict[Spec, Cost] = {}

    @property
    def chance(self) -> float:
        """What naming the most frequent class would be right about, at the upper end of its 95 % interval."""
        labels_N = np.concatenate([held_out.labels_N for _, held_out in self._folds])
        share = float(np.bincount(labels_N).max() / len(labels_N))
        return min(1.0, share + 1.96 * math.sqrt(share * (1 - share) / len(labels_N)))

    @property
    def judged_by(self) -> int:
        """How many images a trial is judged by."""
        return sum(len(held_out) for _, held_out in self._folds)

    def cost(self, train: TrainParams) -> Cost:
        """Of the network that `train` describes."""
        spec = spec_of(train, self._dataset)
        if spec not in self._costs:
            self._costs[spec] = cost_of(new_network(train, self._dataset), self._dataset.input)
        return self._costs[spec]

    def run(self, setting: Setting, work: float) -> Outcome:
        """Train for `work`, and predict the images that were held out."""
        plan = self._reduced(setting, work)
        return self._outcome(
            ["begin", setting, work], plan, lambda fold: self._train(self._begun(setting, plan), plan, fold)
        )

    def run_base(self, base: Base) -> Outcome:
        """As `run`, but on all images; what was trained is kept for `run_on`."""
        return self._outcome(
            ["base", base], self._whole(base.setting, base.work), lambda fold: self._based(base, fold)
        )

    def run_on(self, base: Base, setting: Setting, work: float) -> Outcome:
        """As `run`, but go on from `base`, with a part of its learning rate."""
        warm = replace(setting, train=setting.train.model_copy(update={"lr": setting.train.lr * REWARMED}))
        plan = self._whole(warm, work)
        return self._outcome(
            ["on", base, warm, work],
            plan,
            lambda fold: self._train(self._widened(base, plan, fold), plan, fold),
        )

    def _outcome(self, about: list[Any], plan: _Plan, trained: Callable[[int], nn.Module]) -> Outcome:
        """From the journal, or by training a network for each fold."""
        path = self._journal / f"{self._name(about)}.json"
        if path.exists():
            return Outcome.from_json(read_json(path))
        logits, labels = [], []
        try:
            for fold, (_, held_out) in enumerate(self._folds):
                logits.append(predict(trained(fold), held_out, plan.augment.input).numpy())
                labels.append(np.asarray(held_out.labels_N))
        except StageFailed:  # diverged
            outcome = Outcome(0.0, np.full(self.judged_by, np.inf), plan.params.epochs, plan.images)
        else:
            outcome = _outcome(
                np.concatenate(logits), np.concatenate(labels), plan.params.epochs, plan.images
            )
        write_json(path, outcome.as_json())
        return outcome

    def _name(self, about: list[Any]) -> str:
        """Of what was trained, in the journal."""
        plain = [asdict(part) if isinstance(part, Setting | Base) else part for part in about]
        return fingerprint(plain, self._seed, torch.__version__, thread_count())

    def _reduced(self, setting: Setting, work: float) -> _Plan:
        """As many passes as in the final training over fewer images, where that leaves enough of them."""
        affordable, batch = self._affordable(setting, work)
        least = min(self.images, max(LEAST, LEAST_OF_CLASS * len(self._dataset.classes)))
        images = min(self.images, max(least, round(affordable / setting.train.epochs)))
        return self._plan(setting, min(setting.train.epochs, round(affordable / images)), batch, images)

    def _whole(self, setting: Setting, work: float) -> _Plan:
        """All images, where `work` pays for a pass over them, else a batch at least; no more passes than in the final
        training."""
        affordable, batch = self._affordable(setting, work)
        images = min(self.images, max(batch, round(affordable)))
        return self._plan(setting, min(setting.train.epochs, round(affordable / images)), batch, images)

    def _affordable(self, setting: Setting, work: float) -> tuple[float, int]:
        """How many images `work` pays for, counted as often as they are seen, in all folds; and in what batches."""
        work, cost = work / len(self._folds), self.cost(setting.train)
        batch = batch_of(work, cost, self.images, most_passes(self._dataset.input))
        return passes(work, cost, self.images, batch) * self.images, batch

    def _plan(self, setting: Setting, length: int, batch: int, images: int) -> _Plan:
        policy = resolve_policy(setting.augment, self._dataset)
        changes = {"epochs": max(1, length), "batch_size": min(batch, images), "early_stopping": 0}
        params = setting.train.model_copy(update=changes)
        return _Plan(params, augment_of(policy, params.augment_strength), images)

    def _begun(self, setting: Setting, plan: _Plan) -> nn.Module:
        torch.manual_seed(setting.train.seed)
        model = new_network(setting.train, self._dataset, plan.augment.brings)
        if setting.pretrained:
            take_over(model, _published(setting.train.arch))
        return model

    def _based(self, base: Base, fold: int) -> nn.Module:
        """The network of `base` that has not learned from what a fold holds out."""
        folder = self._journal / f"{self._name(['base', base])}-{fold}"
        if not folder.exists():
            plan = self._whole(base.setting, base.work)
            model = self._train(self._begun(base.setting, plan), plan, fold)
            with staged(folder) as partial:
                save_model(model, spec_of(base.setting.train, self._dataset), partial)
        return load_model(folder)[0]

    def _widened(self, base: Base, plan: _Plan, fold: int) -> nn.Module:
        """The same, with rows for the words that an augmentation brings in."""
        model = self._based(base, fold)
        add_rows(model, plan.augment.brings, base.setting.train.vocabulary)
        return model

    def _train(self, model: nn.Module, plan: _Plan, fold: int) -> nn.Module:
        """`model`, after it has learned from images that a fold does not hold out."""
        train = _part(self._folds[fold][0], plan.images, self._seed)
        few = train.taken(slice(1))
        classes = len(self._dataset.classes)
        for _ in epochs(model, recipe_of(plan.params), train, few, plan.augment, classes, self._world):
            pass
        return model


@dataclass(frozen=True)
class _Plan:
    """How a trial is trained: params with the length and the batch that it pays for, on so many images."""

    params: TrainParams
    augment: Augment
    images: int


@cache
def _published(arch: str) -> dict[str, Tensor]:
    return published(arch)


def _outcome(
    logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], length: int, images: int
) -> Outcome:
    scaled_NK = logits_NK / np.float32(temperature(logits_NK, labels_N))
    right_N = logits_NK.argmax(1) == labels_N
    return Outcome(float(right_N.mean()), cross_entropy(scaled_NK, labels_N), length, images)


def _folds(dataset: Dataset, seed: int) -> Sequence[tuple[Split, Split]]:
    """What is learned from and what is held out, once or, where there are few images, FOLDS times."""
    train, val = dataset.train, dataset.val
    draws = np.random.default_rng(seed)
    if len(val) >= ENOUGH:
        return [(train, val.taken(np.sort(draws.permutation(len(val))[:MOST])))]
    pool = train.joined(val)
    # Stratified: the images of each class are dealt out in turn.
    order = draws.permutation(len(pool))
    order = order[np.argsort(pool.labels_N[order], kind="stable")]
    fold_N = np.empty(len(pool), np.intp)
    fold_N[order] = np.arange(len(pool)) % FOLDS
    return [(pool.taken(fold_N != i), pool.taken(fold_N == i)) for i in range(FOLDS)]


def _part(train: Split, images: int, seed: int) -> Split:
    """The same random part of `train` each time."""
    if images >= len(train):
        return train
    return train.taken(np.sort(np.random.default_rng(seed).permutation(len(train))[:images]))
