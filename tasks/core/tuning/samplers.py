"""Optuna's samplers and pruners, by the names that params.yaml calls them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tasks.core.config.tune_params import TuneParams


@contextmanager
def experimental() -> Iterator[None]:
    """Use what Optuna may still change, and say nothing of it: the version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@experimental()
def sampler(params: TuneParams, number: int) -> BaseSampler:
    """The sampler of trial `number`. It is seeded for each trial, so that a search that goes on draws what the
    unbroken one would have."""
    seed = params.seed * 100_003 + number
    randomly = optuna.samplers.RandomSampler(seed)
    match params.sampler:
        case "tpe":  # Bergstra et al. 2011
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=params.startup_trials)
        case "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=params.startup_trials, independent_sampler=randomly
            )
        case "cma_es":
            return CmaEs(
                seed=seed,
                n_startup_trials=params.startup_trials,
                independent_sampler=randomly,
                warn_independent_sampling=False,
                consider_pruned_trials=params.pruner != "none",
            )
        case "nsga2":  # Deb et al. 2002; the first generation is random
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, params.startup_trials))
        case "quasi_random":  # one Sobol sequence, scrambled the same way for all trials
            return optuna.samplers.QMCSampler(
                seed=params.seed,
                scramble=True,
                independent_sampler=randomly,
                warn_independent_sampling=False,
                warn_asynchronous_seeding=False,
            )
        case "random" | "grid" | "manual":  # what these two list is enqueued
            return randomly


@experimental()
def pruner(params: TuneParams) -> BasePruner:
    """Who decides, after each epoch of a trial, whether it goes on."""
    match params.pruner:
        case "hyperband":  # Li et al. 2016, arXiv:1603.06560
            return optuna.pruners.HyperbandPruner(1, params.epochs, params.reduction_factor)
        case "successive_halving":  # Li et al. 2018, arXiv:1810.05934
            return optuna.pruners.SuccessiveHalvingPruner(1, params.reduction_factor)
        case "median":  # Golovin et al. 2017
            return optuna.pruners.MedianPruner(n_startup_trials=params.startup_trials)
        case "wilcoxon":  # a signed-rank test of the epochs' values against those of the best trial
            return optuna.pruners.WilcoxonPruner(n_startup_steps=2)
        case "none":
            return optuna.pruners.NopPruner()


class CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES (Hansen 2016, arXiv:1604.00772), whose state is computed anew from the trials of the study.

    Optuna's keeps it in the study as a pickle, which whoever can write to the study could make run code.
    """

    _space: dict[str, BaseDistribution]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's."""
        self._space = search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """Tell a new optimizer all generations that have successors; the caller tells the last, and makes the first."""
        if not self._get_solution_trials(completed_trials, 1):
            return None
        state = self._cma_rng.rng.get_state()
        transform = _SearchSpaceTransform(self._space, transform_step=True, transform_0_1=True)
        optimizer = self._init_optimizer(transform, StudyDirection.MAXIMIZE)
        self._cma_rng.rng.set_state(state)  # as if it had been kept: the draws that follow are Optuna's
        while self._get_solution_trials(completed_trials, optimizer.generation + 1):
            told = self._get_solution_trials(completed_trials, optimizer.generation)
            told = told[: optimizer.population_size]
            optimizer.tell([(transform.transform(trial.params), -_value(trial)) for trial in told])
        return optimizer

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:  # noqa: ARG002
        """Nothing is kept."""
        return {}


def _value(trial: FrozenTrial) -> float:
    """What a trial reached."""
    assert trial.value is not None
    return trial.value
