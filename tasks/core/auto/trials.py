"""Short trainings that answer one question each: which of two settings leads to the better model?

All are of the images for training and validation; nothing here sees a test image. Where validation images are few,
every image of both is predicted once, by a network that has not learned from it (cross-validation).

N: images that are predicted, K: classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.augmentation.batch import BatchAugment
from tasks.core.augmentation.policy import resolve_policy
from tasks.core.auto.budget import Cost, batch_of, cost_of, passes
from tasks.core.common.errors import StageFailed
from tasks.core.common.files import fingerprint, read_json, write_json
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import Dataset, Split
from tasks.core.distributed.world import World, thread_count
from tasks.core.evaluation.calibration import cross_entropy, temperature
from tasks.core.models.architectures import build, published
from tasks.core.models.transfer import take_over
from tasks.core.training.loop import epochs, predict
from tasks.core.training.recipes import recipe_of, spec_of

ENOUGH = 500  # validation images: with fewer, trials are cross-validated
MOST = 2000  # images that a trial is judged by
FOLDS = 2
LEAST, LEAST_OF_CLASS = 1000, 20  # images that a trial learns from, if there are so many


@dataclass(frozen=True)
class Setting:
    """What a trial tries."""

    train: TrainParams
    augment: AugmentParams
    pretrained: bool = False  # start from what is published for the network


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
        return cost_of(build(spec_of(train, self._dataset)), self._dataset.image_shape)

    def run(self, setting: Setting, work: float) -> Outcome:
        """Train for `work`, and predict the images that were held out."""
        about = (
            setting.train.model_dump(),
            setting.augment.model_dump(),
            setting.pretrained,
            work,
            self._seed,
        )
        path = self._journal / f"{fingerprint(*about, torch.__version__, thread_count())}.json"
        if path.exists():
            return Outcome.from_json(read_json(path))
        outcome = self._outcome(setting, work)
        write_json(path, outcome.as_json())
        return outcome

    def _outcome(self, setting: Setting, work: float) -> Outcome:
        policy = resolve_policy(
            setting.augment, self._dataset.image_shape, self._dataset.channel_mean, self._dataset.channel_std
        )
        augment = BatchAugment(policy, setting.train.augment_strength)
        work, cost = work / len(self._folds), self.cost(setting.train)
        batch, affordable = batch_of(work, cost, self.images), passes(work, cost, self.images)
        # As many passes as in the final training over fewer images, where that leaves enough of them. Fewer passes over
        # all images would tell little: what helps a network in the end slows down its beginning.
        least = min(self.images, max(LEAST, LEAST_OF_CLASS * len(self._dataset.classes)))
        images = min(self.images, max(least, round(affordable * self.images / setting.train.epochs)))
        length = max(1, min(setting.train.epochs, round(affordable * self.images / images)))
        params = setting.train.model_copy(
            update={"epochs": length, "batch_size": min(batch, images), "early_stopping": 0}
        )
        logits, labels = [], []
        for learned, held_out in self._folds:
            try:
                part = _part(learned, images, self._seed)
                logits.append(self._trained(params, setting.pretrained, augment, part, held_out))
            except StageFailed:
                nothing = np.full(self.judged_by, np.inf)
                return Outcome(0.0, nothing, length, images)
            labels.append(np.asarray(held_out.labels_N))
        return _outcome(np.concatenate(logits), np.concatenate(labels), length, images)

    def _trained(
        self, params: TrainParams, pretrained: bool, augment: BatchAugment, train: Split, held_out: Split
    ) -> NDArray[np.float32]:
        torch.manual_seed(params.seed)
        model = build(spec_of(params, self._dataset))
        if pretrained:
            take_over(model, _published(params.arch))
        few = replace(held_out, images_NHWC=held_out.images_NHWC[:1], labels_N=held_out.labels_N[:1])
        rows = epochs(model, recipe_of(params), train, few, augment, len(self._dataset.classes), self._world)
        for _ in rows:
            pass
        logits_NK: NDArray[np.float32] = predict(model, held_out, augment.mean, augment.std).numpy()
        return logits_NK


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
        return [(train, _taken(val, np.sort(draws.permutation(len(val))[:MOST])))]
    pool = Split(
        np.concatenate([train.images_NHWC, val.images_NHWC]),
        np.concatenate([train.labels_N, val.labels_N]),
        train.sampling,
    )
    # Stratified: the images of each class are dealt out in turn.
    order = draws.permutation(len(pool))
    order = order[np.argsort(pool.labels_N[order], kind="stable")]
    fold_N = np.empty(len(pool), np.intp)
    fold_N[order] = np.arange(len(pool)) % FOLDS
    return [(_taken(pool, fold_N != i), _taken(pool, fold_N == i)) for i in range(FOLDS)]


def _taken(split: Split, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Split:
    return replace(split, images_NHWC=split.images_NHWC[rows], labels_N=np.asarray(split.labels_N[rows]))


def _part(train: Split, images: int, seed: int) -> Split:
    """The same random part of `train` each time."""
    if images >= len(train):
        return train
    return _taken(train, np.sort(np.random.default_rng(seed).permutation(len(train))[:images]))
