"""A recipe while it is being settled: the values so far, why they are so, and the trials that were made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.core.auto.budget import (
    DENSE,
    LARGEST_BATCH,
    SMALLEST_BATCH,
    Cost,
    Length,
    length,
    most_passes,
)
from tasks.core.auto.networks import LEARNED_STEPS, LEAST_STEPS, PRETRAINED, RANDOM
from tasks.core.auto.trials import Base, Outcome, Setting, Trials
from tasks.core.common.progress import Progress
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.config.params_file import Asked, parse
from tasks.core.data.inputs import ImageInput, Input


@dataclass(frozen=True)
class Choice:
    """What a key that was `auto` became, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Tried:
    """One trial, a row of trials.csv. `gain` is by how many nats its cross-entropy is lower than that of what it was compared with, and
    `error` the standard error of that; None where it was compared with nothing."""

    number: int
    state: str  # complete, or diverged
    question: str
    variant: str
    accuracy: float
    loss: float
    gain: float | None
    error: float | None
    epochs: int
    images: int
    chosen: bool = False


@dataclass(frozen=True)
class TriedAugmentation:
    """Values of section `augment` in which this alone is on, whether it was taken, and what it gave, in words."""

    name: str
    values: dict[str, Any]
    used: bool
    gave: str


@dataclass
class Draft:
    """One params.yaml that is settled for so many examples for training, such as `given`."""

    asked: Asked
    trials: Trials
    given: Input
    images: int
    progress: Progress
    sections: dict[str, dict[str, Any]] = field(init=False)
    choices: dict[str, Choice] = field(default_factory=dict)
    tried: list[Tried] = field(default_factory=list)
    augmentations: list[TriedAugmentation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    least_share: float = 0.0  # of the work of the dense training, that a trial needs to say anything

    def __post_init__(self) -> None:
        self.sections = {section: dict(values) for section, values in self.asked.values.items()}

    # ---- values

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """H, W and C of images; None of texts."""
        return self.given.shape if isinstance(self.given, ImageInput) else None

    def is_auto(self, key: str) -> bool:
        """Whether SECTION.KEY is left to the data."""
        return key in self.asked.auto

    def choose(self, key: str, value: Any, reason: str) -> None:
        """Set a key, unless a person has."""
        if self.is_auto(key):
            self.leave(key, value)
            self.choices[key] = Choice(key, value, reason)

    def leave(self, key: str, value: Any) -> None:
        """Set a key that is of no account for such examples, unless a person has."""
        if self.is_auto(key):
            section, name = key.split(".")
            self.sections[section][name] = value

    @property
    def budget(self) -> str:
        """Its name."""
        return self.asked.pipeline.recipe.budget

    @property
    def work(self) -> float:
        """Of training the dense model."""
        return DENSE[self.budget]

    def setting(
        self,
        train: Mapping[str, Any] | None = None,
        augment: Mapping[str, Any] | None = None,
        weights: str | None = None,
    ) -> Setting:
        """As it is now, with these changes, and with the length that the budget pays for."""
        params = parse(TrainParams, {**self.sections.get("train", {}), **(train or {})}, "train")
        augmented = parse(AugmentParams, {**self.sections.get("augment", {}), **(augment or {})}, "augment")
        if self.is_auto("train.epochs") and "train.epochs" not in self.choices:
            epochs = self.length(self.work, self.trials.cost(params)).epochs
            params = params.model_copy(update={"epochs": epochs})
        weights = weights or self.sections.get("start", {}).get("weights", RANDOM)
        return Setting(params, augmented, weights == PRETRAINED)

    def length(self, work: float, cost: Cost) -> Length:
        """How long `work` trains a network of `cost` on all examples."""
        return length(work, cost, self.images, most_passes(self.given))

    def cost(self, setting: Setting) -> Cost:
        """Of its network."""
        return self.trials.cost(setting.train)

    # ---- trials

    def trial(
        self, question: str, variant: str, setting: Setting, share: float, compared: Outcome | None = None
    ) -> Outcome:
        """Run one with a share of the work of the dense training, or look up what came of it before."""
        outcome = self.trials.run(setting, self.work_of(setting, max(share, self.least_share)))
        return self._note(question, variant, outcome, compared)

    def work_of(self, setting: Setting, share: float, steps: int = LEAST_STEPS) -> float:
        """The work of a trial: of texts a share of what the dense training takes, which often is far less than the budget
        pays for, as more passes gain nothing; but no less than so many of the smallest steps."""
        if self.shape:
            return share * self.work
        cost = self.cost(setting)
        whole = min(
            self.work, most_passes(self.given) * self.images / LARGEST_BATCH * cost.of_step(LARGEST_BATCH)
        )
        return max(share * whole, min(whole, steps * cost.of_step(SMALLEST_BATCH)))

    def base_trial(self, question: str, variant: str, base: Base, compared: Outcome | None = None) -> Outcome:
        """One that others may go on from."""
        return self._note(question, variant, self.trials.run_base(base), compared)

    def trial_on(
        self,
        base: Base,
        question: str,
        variant: str,
        setting: Setting,
        share: float,
        compared: Outcome | None = None,
    ) -> Outcome:
        """One that goes on from `base`."""
        outcome = self.trials.run_on(base, setting, self.work_of(setting, share, LEARNED_STEPS))
        return self._note(question, variant, outcome, compared)

    def _note(
        self, question: str, variant: str, outcome: Outcome, compared: Outcome | None = None
    ) -> Outcome:
        """Remember a trial, and how it compares with another one."""
        gain, error = outcome.gain_on(compared) if compared is not None else (None, None)
        state = "complete" if math.isfinite(outcome.loss) else "diverged"
        self.tried.append(
            Tried(
                len(self.tried),
                state,
                question,
                variant,
                outcome.accuracy,
                outcome.loss,
                gain,
                error,
                outcome.epochs,
                outcome.images,
            )
        )
        self.progress.step(f"{question}: {variant}: {outcome.accuracy:.1%}, cross-entropy {outcome.loss:.3f}")
        return outcome

    def mark(self, question: str, variant: str) -> None:
        """This variant is what the question led to, or part of it."""
        self.tried = [
            replace(row, chosen=True) if (row.question, row.variant) == (question, variant) else row
            for row in self.tried
        ]
