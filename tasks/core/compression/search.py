"""The search over designs: what is proposed, what is on the front, and when it has stopped growing.

A study has three objectives: accuracy and speed-up to maximise, size to minimise. Trials are seeded by their
number, so that a search that goes on draws what the unbroken one would have drawn from the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from tasks.core.common.journal import open_storage, resume
from tasks.core.compression.designs import Bench, Design, Worth
from tasks.core.config.compression_params import PressParams
from tasks.core.config.params import SelectParams
from tasks.core.evaluation.stats import hypervolume

STEP = 0.05  # of ratios
UNIFORM = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7)  # where the search starts from: the same ratio in every group
PRICES = (0.3, 0.5, 0.7, 0.85)  # quantiles of what merit costs in accuracy, each the start of one more design
FASTER = 1.1  # times as fast as the dense graph; a design that measures less is as fast, but for chance
GROWTH = 0.002  # of the hypervolume, relative, that counts as growing


def sought(params: PressParams, select: SelectParams, bench: Bench) -> SelectParams:
    """`select`; but the smallest is sought where not even the least that may be left is faster than the dense graph, as is so
    of a bag of words: its time goes by in telling words apart, and a search by speed would follow chance."""
    least = dict.fromkeys([group.name for group in bench.groups.prunable], params.max_ratio)
    tried = (Design(least, params.criteria[0], int8) for int8 in (True, False))
    if select.objective == "smallest" or any(bench.worth(design).speedup >= FASTER for design in tried):
        return select
    print("press: nothing that may leave makes the network faster: the smallest is sought", flush=True)
    return select.model_copy(update={"objective": "smallest"})


def open_study(
    params: PressParams, select: SelectParams, bench: Bench, rows: Sequence[Mapping[str, Any]], path: Path
) -> optuna.Study:
    """The study at `path`; a new one begins with the same ratio everywhere, in both precisions and by each
    criterion, and with what `rows` of `designs.sensitivity` advise, in the precision that they are of: of a dense
    network that may be int8, and yet float of one that has lost most of its channels."""
    study = optuna.create_study(
        storage=open_storage(path),
        study_name="press",
        directions=["maximize", "maximize", "minimize"],
        load_if_exists=True,
    )
    if not study.trials:
        groups = [group.name for group in bench.groups.prunable]
        blocks = [block.name for block in bench.blocks]
        first, *others = params.criteria
        int8 = bool(rows[0]["int8"]) if rows else True
        even = [
            Design(dict.fromkeys(groups, ratio), first, int8)
            for ratio in UNIFORM
            if ratio <= params.max_ratio
        ]
        otherwise = [replace(design, int8=not int8) for design in even[1:]]
        again = [replace(design, criterion=other) for other in others for design in even[1:]]
        advised = list(_advised(rows, first, select))
        smooth = [*even, *advised] if bench.has_smooth else []
        rectified = [replace(design, relu=True, int8=True) for design in smooth]
        for design in [*even, *advised, *rectified, *otherwise, *again]:
            ratios = {name: round(round(design.ratios.get(name, 0.0) / STEP) * STEP, 2) for name in groups}
            study.enqueue_trial(
                {f"ratio.{name}": ratio for name, ratio in ratios.items()}
                | {f"without.{name}": name in design.without for name in blocks}
                | {"criterion": design.criterion, "int8": design.int8, "float_layers": 0}
                | ({"relu": design.relu} if bench.has_smooth else {})
            )
    return study


def _advised(rows: Sequence[Mapping[str, Any]], criterion: str, select: SelectParams) -> Iterator[Design]:
    """Designs in which every group and block gives what it alone gives at a price: accuracy for merit."""
    if len(rows) < 2:
        return
    whole, *alone = (Worth(*(row[field.name] for field in fields(Worth))) for row in rows)
    lost = np.array([max(0.0, whole.accuracy - worth.accuracy) for worth in alone])
    gained = np.array([np.log(merit(worth, select) / merit(whole, select)) for worth in alone])
    if not (gained > 0).any():
        return
    keys = [(row["group"], row["ratio"]) for row in rows[1:]]
    for price in np.quantile(lost[gained > 0] / gained[gained > 0], PRICES):
        best: dict[str, tuple[float, float]] = {}  # profit and ratio of each group and block
        for (name, ratio), profit in zip(keys, gained * price - lost, strict=True):
            best[name] = max(best.get(name, (0.0, 0.0)), (float(profit), ratio))
        yield Design(
            {name: ratio for name, (_, ratio) in best.items() if ratio < 1},
            criterion,
            bool(rows[0]["int8"]),
            frozenset(name for name, (_, ratio) in best.items() if ratio == 1),
        )


def ask(study: optuna.Study, params: PressParams) -> Trial:
    """The next trial."""
    study.sampler = _sampler(params, len(study.trials))
    return study.ask()


def go_on(study: optuna.Study, params: PressParams, stored: FrozenTrial) -> Trial:
    """A trial that a kill cut off."""
    study.sampler = _sampler(params, stored.number)
    return resume(study, stored)


def _sampler(params: PressParams, number: int) -> optuna.samplers.BaseSampler:
    seed = params.seed * 100_003 + number
    match params.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


def suggest(trial: BaseTrial, params: PressParams, bench: Bench) -> Design:
    """The design that a trial proposes."""
    ratios = {
        group.name: trial.suggest_float(f"ratio.{group.name}", 0.0, params.max_ratio, step=STEP)
        for group in bench.groups.prunable
    }
    without = frozenset(
        block.name
        for block in bench.blocks
        if trial.suggest_categorical(f"without.{block.name}", [False, True])
    )
    criterion = trial.suggest_categorical("criterion", params.criteria)
    relu = bench.has_smooth and trial.suggest_categorical("relu", [False, True])
    int8 = trial.suggest_categorical("int8", [True, False])
    float_layers = trial.suggest_int("float_layers", 0, min(4, len(bench.ranked)))
    float_depthwise = bench.has_depthwise and trial.suggest_categorical("float_depthwise", [False, True])
    return Design(ratios, criterion, int8, without, relu, float_layers, float_depthwise)


def tell(study: optuna.Study, trial: Trial, worth: Worth, select: SelectParams) -> None:
    """Record what a trial's design is worth, and by how much it misses what `select` asks for."""
    trial.set_user_attr("worth", asdict(worth))
    for name, miss in _misses(worth, select).items():
        trial.set_constraint(name, miss)
    study.tell(trial, [worth.accuracy, worth.speedup, worth.size_bytes])


def _misses(worth: Worth, select: SelectParams) -> dict[str, float]:
    """How far beyond its limit each figure is, relative to the limit; negative is within."""
    figures = {"max_latency_ms": worth.latency_ms, "max_size_kb": worth.size_bytes / 1e3}
    limits = {name: getattr(select, name) for name in figures}
    return {name: figures[name] / limit - 1 for name, limit in limits.items() if limit is not None}


def worth_of(trial: FrozenTrial) -> Worth:
    """What `tell` recorded."""
    return Worth(**trial.user_attrs["worth"])


def merit(worth: Worth, select: SelectParams) -> float:
    """What is sought besides accuracy, greater when better: speed, or smallness in 1 / MB."""
    return worth.speedup if select.objective == "fastest" else 1e6 / worth.size_bytes


def front(study: optuna.Study, select: SelectParams) -> list[FrozenTrial]:
    """The trials within the constraints that no other one beats in accuracy and merit, the slowest first."""
    allowed = [t for t in _done(study) if all(miss <= 0 for miss in _misses(worth_of(t), select).values())]
    best: list[FrozenTrial] = []
    key = {t.number: (merit(worth_of(t), select), worth_of(t).accuracy) for t in allowed}
    for trial in sorted(allowed, key=lambda t: (key[t.number], -t.number), reverse=True):
        if not best or key[trial.number][1] > key[best[-1].number][1]:
            best.append(trial)
    return best[::-1]


def volumes(study: optuna.Study, select: SelectParams) -> list[float]:
    """The hypervolume of accuracy and merit after each trial, above nothing."""
    points = np.array([(worth_of(t).accuracy, merit(worth_of(t), select)) for t in _done(study)]).reshape(
        -1, 2
    )
    return [hypervolume(points[: i + 1], (0.0, 0.0)) for i in range(len(points))]


def stalled(grown: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` trials added next to nothing."""
    return len(grown) > patience and grown[-1] <= grown[-1 - patience] * (1 + GROWTH)


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
