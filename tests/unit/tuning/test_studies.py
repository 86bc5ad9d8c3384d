"""Which trials a study has, who proposes their values, and that it goes on as if nothing had happened."""

import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch  # noqa: F401  # the GP sampler would, in the middle of a test, and its import starts a process
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from tasks.core.common.errors import StageFailed
from tasks.core.common.journal import cut_off, open_storage
from tasks.core.config.params import TrainParams
from tasks.core.config.tune_params import FloatSpace, TuneParams
from tasks.core.tuning import shared_study
from tasks.core.tuning.samplers import sampler
from tasks.core.tuning.search_inputs import Earlier, Search
from tasks.core.tuning.studies import (
    RETRIES,
    STORAGE,
    best,
    create,
    diverge,
    ended,
    go_on,
    outcome,
    own_trials,
    repeat,
    storage,
    take,
)
from tasks.core.tuning.trials import Task

RANGES = {
    "lr": {"low": 0.01, "high": 0.5, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.1},
}
CHOICES = {"lr": {"choices": [0.1, 0.2, 0.4]}, "optimizer": {"choices": ["sgd", "adamw"]}}
SAMPLERS = ["tpe", "gp", "cma_es", "nsga2", "quasi_random", "random"]


def search(space: dict[str, Any] = RANGES, earlier: list[Earlier] | None = None, **values: Any) -> Search:
    params = TuneParams.model_validate({"space": space, "startup_trials": 3, **values})
    task = Task(Path(), {}, Path(), params.epochs, 1.0, 0)
    return Search("tune-x", params, TrainParams(), task, earlier or [])


def open_study(about: Search, path: Path) -> optuna.Study:
    return create(open_storage(path), about)


def value(params: dict[str, Any]) -> float:
    """What a trial reaches: best at lr 0.1 and weight decay 0.03."""
    return float(1 - abs(params.get("lr", 0.1) - 0.1) - 5 * abs(params.get("weight_decay", 0.03) - 0.03))


def run(about: Search, path: Path, most: int = 1000) -> list[dict[str, Any]]:
    """Take and end up to `most` trials; the values of all."""
    study = open_study(about, path)
    for _ in range(most):
        trial = take(study, about.params)
        if trial is None:
            break
        study.tell(trial, [value(trial.params), 100 * trial.params["lr"]][: len(about.params.objectives)])
    return [trial.params for trial in own_trials(study)]


# ---- which trials there are


def test_trials_are_trains_own_then_the_users_then_drawn_when_taken(tmp_path: Path) -> None:
    manual = [{"lr": 0.2}, {"lr": 0.3, "weight_decay": 0.01}]
    tried = run(search(trials=6, manual=manual), tmp_path / "study.log")
    own = TrainParams()
    assert tried[:3] == [
        {"lr": own.lr, "weight_decay": own.weight_decay},
        {"lr": 0.2, "weight_decay": own.weight_decay},
        {"lr": 0.3, "weight_decay": 0.01},
    ]
    assert len(tried) == 6


def test_trials_are_the_users_alone_when_the_sampler_is_manual(tmp_path: Path) -> None:
    manual = [{"lr": 0.2, "weight_decay": 0.0}, {"lr": 0.3, "weight_decay": 0.01}]
    assert run(search(sampler="manual", manual=manual), tmp_path / "study.log") == manual


@pytest.mark.parametrize(("trials", "tried"), [(12, 6), (4, 4)])
def test_grid_is_tried_once_each_or_as_far_as_trials_go_when_it_is_small(
    trials: int, tried: int, tmp_path: Path
) -> None:
    points = run(search(CHOICES, sampler="grid", trials=trials), tmp_path / "study.log")
    assert len(points) == tried
    assert len({tuple(point.values()) for point in points}) == tried
    assert points[0] == {"lr": 0.1, "optimizer": "sgd"}, "train's own, which is in the grid"


def test_the_first_trial_is_drawn_when_trains_own_values_are_outside(tmp_path: Path) -> None:
    space = {"lr": {"low": 0.2, "high": 0.4}}
    assert 0.2 <= run(search(space, trials=1), tmp_path / "study.log")[0]["lr"] <= 0.4


# ---- who proposes


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_draws_within_the_space_and_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    first = run(search(sampler=name, trials=9), tmp_path / "1.log")
    assert run(search(sampler=name, trials=9), tmp_path / "2.log") == first
    assert run(search(sampler=name, trials=9, seed=1), tmp_path / "3.log") != first
    assert all(0.01 <= p["lr"] <= 0.5 and 0 <= p["weight_decay"] <= 0.1 for p in first)
    assert len({(p["lr"], p["weight_decay"]) for p in first}) >= (6 if name == "nsga2" else 9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_search_ends_with_the_same_trials_when_it_was_broken_off_between_two(
    name: str, tmp_path: Path
) -> None:
    about = search(sampler=name, trials=12)
    whole = run(about, tmp_path / "whole.log")
    run(about, tmp_path / "broken.log", most=5)
    assert run(about, tmp_path / "broken.log") == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "gp", "cma_es", "nsga2"])
def test_sampler_comes_closer_to_the_best_than_random_when_it_learns(name: str, tmp_path: Path) -> None:
    def reached(kind: str) -> float:
        tops = []
        for seed in range(3):
            about = search(
                sampler=kind, trials=40, seed=seed, space={**RANGES, "dropout": {"low": 0.0, "high": 0.9}}
            )
            study = open_study(about, tmp_path / f"{kind}{seed}.log")
            while (trial := take(study, about.params)) is not None:
                study.tell(trial, value(trial.params) - abs(trial.params["dropout"] - 0.6))
            tops.append(study.best_value)
        return sum(tops)

    assert reached(name) > reached("random")


def test_cma_es_draws_what_optunas_does_and_keeps_no_pickle_when_it_goes_on(tmp_path: Path) -> None:
    about = search(sampler="cma_es", trials=30, pruner="none")
    ours = run(about, tmp_path / "ours.log")
    theirs = optuna.create_study(direction="maximize", storage=open_storage(tmp_path / "theirs.log"))
    theirs.enqueue_trial(ours[0])
    for number in range(30):
        seeded: Any = sampler(about.params, number)
        theirs.sampler = optuna.samplers.CmaEsSampler(
            seed=number,
            n_startup_trials=3,
            independent_sampler=seeded._independent_sampler,
            warn_independent_sampling=False,
        )
        trial = theirs.ask()
        trial.suggest_float("lr", 0.01, 0.5, log=True)
        trial.suggest_float("weight_decay", 0.0, 0.1)
        theirs.tell(trial, value(trial.params))
    assert [trial.params for trial in theirs.trials] == ours
    assert "optimizer" in (tmp_path / "theirs.log").read_text(encoding="utf-8")
    assert "optimizer" not in (tmp_path / "ours.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hyperband", optuna.pruners.HyperbandPruner),
        ("successive_halving", optuna.pruners.SuccessiveHalvingPruner),
        ("median", optuna.pruners.MedianPruner),
        ("wilcoxon", optuna.pruners.WilcoxonPruner),
    ],
)
def test_pruner_ends_poor_trials_and_keeps_good_ones_when_there_are_many(
    name: str, kind: type, tmp_path: Path
) -> None:
    about = search(sampler="random", pruner=name, trials=40, epochs=9)
    study = open_study(about, tmp_path / "study.log")
    assert isinstance(study.pruner, kind)
    while (trial := take(study, about.params)) is not None:
        _train(study, trial, about.params.epochs)
    states = [trial.state for trial in study.trials]
    top = sorted(study.trials, key=lambda trial: -value(trial.params))
    assert states.count(TrialState.PRUNED) >= 8
    assert sum(trial.state == TrialState.COMPLETE for trial in top[:5]) >= 3
    assert states.count(TrialState.COMPLETE) >= 4


def _train(study: optuna.Study, trial: Trial, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        trial.report(value(trial.params) * (1 - 0.5**epoch), epoch)
        if epoch < epochs and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, value(trial.params))


def test_no_trial_ends_early_when_the_pruner_is_none(tmp_path: Path) -> None:
    about = search(sampler="random", pruner="none", trials=8, epochs=9)
    study = open_study(about, tmp_path / "study.log")
    while (trial := take(study, about.params)) is not None:
        _train(study, trial, 9)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


# ---- an earlier search


def test_sampler_learns_from_earlier_trials_and_tries_the_best_when_warm(tmp_path: Path) -> None:
    points = [{"lr": 0.02 + 0.01 * i, "weight_decay": 0.03 + 0.001 * i} for i in range(12)]
    earlier = [Earlier([value(point)], point) for point in points]
    about = search(earlier=earlier, trials=6)
    tried = run(about, tmp_path / "study.log")
    assert len(tried) == 6
    assert tried[1] == max(points, key=value)
    cold = run(search(trials=6), tmp_path / "cold.log")
    assert tried[2:] != cold[2:], "no random start: TPE has something to learn from"
    study = open_study(about, tmp_path / "study.log")
    top = best(study, about.params)
    assert top is not None
    assert top.number in {trial.number for trial in own_trials(study)}, "an earlier trial is not the result"
    assert len(study.trials) == 18


# ---- the end


def test_the_best_has_fewer_macs_when_it_lacks_little_accuracy(tmp_path: Path) -> None:
    for points, number in ((0.4, 1), (1.5, 2), (50.0, 3), (0.0, 1)):
        about = search(
            trials=4, objectives=["accuracy", "macs"], pruner="none", sampler="nsga2", max_drop_points=points
        )
        study = open_study(about, tmp_path / f"{points}.log")
        for accuracy, macs in ((0.90, 500), (0.91, 400), (0.90, 200), (0.5, 10)):
            trial = take(study, about.params)
            assert trial is not None
            study.tell(trial, [accuracy, macs])
        top = best(study, about.params)
        assert top is not None
        assert top.number == number


def test_nobody_is_best_when_no_trial_has_ended_well(tmp_path: Path) -> None:
    about = search(trials=2)
    study = open_study(about, tmp_path / "study.log")
    diverged, failed = take(study, about.params), take(study, about.params)
    assert diverged is not None and failed is not None
    diverge(study, diverged)
    study.tell(failed, state=TrialState.FAIL)
    assert best(study, about.params) is None
    assert [outcome(trial) for trial in ended(study)] == ["diverged", "fail"]


def test_tpe_keeps_away_from_where_training_diverges_when_it_has_seen_it(tmp_path: Path) -> None:
    lr = {"low": 0.01, "high": 1.0}
    about = search(trials=60, space={"lr": lr}, startup_trials=10)
    study = open_study(about, tmp_path / "study.log")
    while (trial := take(study, about.params)) is not None:
        if trial.params["lr"] > 0.3:
            diverge(study, trial)
        else:
            study.tell(trial, 0.5)
    late = [outcome(trial) for trial in study.trials[20:]]
    assert late.count("diverged") < len(late) * 0.35, "half of what random draws would be"


@pytest.mark.parametrize("number", [0, 1, 7])  # enqueued, random, proposed by TPE
@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_trial_draws_what_it_would_have_when_a_kill_cut_it_off(
    number: int, drawn: int, tmp_path: Path
) -> None:
    about = search(trials=8)

    def taken(path: Path, left: int) -> tuple[optuna.Study, Trial]:
        study = open_study(about, path)
        for i in range(number + 1):
            space = dict(list(about.params.space.items())[: left if i == number else 2])
            trial = take(study, about.params.model_copy(update={"space": space}))
            assert trial is not None
            if i < number:
                study.tell(trial, 1 - i / 10)
        return study, trial

    _, whole = taken(tmp_path / "whole.log", 2)
    taken(tmp_path / "cut.log", drawn)
    again = open_study(about, tmp_path / "cut.log")
    assert go_on(again, cut_off(again)[0], about.params).params == whole.params


# ---- the database


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["is not a URL", "postgresql://USER"]),
        ("postgresql://user:secret@127.0.0.1:1/studies", ["user:***@127.0.0.1:1/studies", "cannot be used"]),
        ("nobody://user:secret@127.0.0.1/studies", ["user:***@127.0.0.1/studies"]),
    ],
)
def test_storage_is_refused_in_one_line_without_the_password_when_it_is_not_there(
    url: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(STORAGE, url)
    with pytest.raises(StageFailed) as failed:
        storage(tmp_path)
    message = str(failed.value)
    assert STORAGE in message
    assert all(word in message for word in words), message
    assert "secret" not in message
    assert "\n" not in message


def test_space_contains_its_ends_and_nothing_beyond() -> None:
    space = FloatSpace(low=0.1, high=0.3)
    assert [space.contains(value) for value in (0.1, 0.3, 0.31, "0.2")] == [True, True, False, False]


@pytest.mark.slow
def test_trial_is_missed_when_its_worker_dies_before_its_first_heartbeat(tmp_path: Path) -> None:
    about = search(trials=2)
    store = RDBStorage(f"sqlite:///{tmp_path}/study.db", heartbeat_interval=1, grace_period=1)
    study = create(store, about)
    trial = take(study, about.params)
    assert trial is not None
    time.sleep(2.1)
    optuna.storages.fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_search_is_not_over_when_a_trial_has_failed_and_is_not_yet_put_back(tmp_path: Path) -> None:
    about = search(trials=1)
    study = open_study(about, tmp_path / "journal")
    trial = take(study, about.params)
    assert trial is not None
    study.tell(trial, state=TrialState.FAIL)
    assert not shared_study.over(study), "whoever failed it is about to put it back"
    lost = shared_study._put_back(study, set())
    assert len(study.trials) == 1, "it is given the time to"
    assert shared_study._put_back(study, lost) == set()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[1].params == trial.params


def test_search_is_over_when_a_trial_has_failed_as_often_as_it_may(tmp_path: Path) -> None:
    about = search(trials=1)
    study = open_study(about, tmp_path / "journal")
    for _ in range(RETRIES + 1):
        assert not shared_study.over(study)
        trial = take(study, about.params)
        assert trial is not None
        study.tell(trial, state=TrialState.FAIL)
        repeat(study, study.trials[trial.number])
    assert shared_study.over(study)
