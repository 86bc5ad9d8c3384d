"""Search train's values: TPE proposes, Hyperband ends early what does not look promising.

Bergstra et al. 2011 (TPE); Li et al. 2016, arXiv:1603.06560 (Hyperband). The study is a journal on
disk: a search that was killed goes on where it was, and ends as if it had not been.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, Trial, TrialState

from tasks.core.cli import main
from tasks.core.data import open_dataset
from tasks.core.errors import StageFailed
from tasks.core.files import fingerprint, read_json, write_json, write_text
from tasks.core.journal import cut_off, open_storage, resume
from tasks.core.params import ChoiceSpace, TrainParams, TuneParams
from tasks.core.params_file import load_section, parse
from tasks.core.progress import Progress
from tasks.core.trials import Task, Worker, workers

STUDY = "tune"  # Hyperband draws a trial's bracket from the study's name


def tune(
    params: TuneParams, data: Path, policy: Path, weights: Path, settings: Path, journal: Path, out: Path
) -> None:
    """Write best.yaml, trials.csv, history.csv, importances.csv and metrics.json.

    Args:
        data: the ingested data set.
        policy: policy.json of augment.
        weights: the folder of start, with the weights that every trial begins with, if any.
        settings: params.yaml, whose section `train` gives the values that are not searched.
        journal: a folder that outlives the run: a search that was killed goes on from here.

    Raises:
        BadInput: a value in the space is not one that train takes.
        StageFailed: no trial has ended well.
    """
    base: TrainParams = load_section("train", settings)
    if not params.trials:
        _write_nothing(out)
        return
    for name, space in params.space.items():  # before any work: each end of each space is valid
        for value in space.choices if isinstance(space, ChoiceSpace) else (space.low, space.high):
            parse(TrainParams, {**base.model_dump(), name: value}, f"{settings}: tune.space")
    resolved, begins = read_json(policy), read_json(weights / "start.json")
    task = Task(data, resolved, weights, params.epochs, params.train_fraction, params.seed)
    key = fingerprint(params.model_dump(), base.model_dump(), open_dataset(data).digest, resolved, begins)
    study = _study(params, journal / f"{key}.log")
    _search(study, params, base, task)
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        raise StageFailed("no trial has ended well: every one diverged; lower the values of lr in the space")
    _write(study, params, out)
    shutil.rmtree(journal, ignore_errors=True)


def _study(params: TuneParams, path: Path) -> optuna.Study:
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=params.epochs, reduction_factor=params.reduction_factor
    )
    return optuna.create_study(
        storage=open_storage(path),
        study_name=STUDY,
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )


@dataclass
class _Running:
    trial: Trial
    worker: Worker
    epoch: int = 0


def _search(study: optuna.Study, params: TuneParams, base: TrainParams, task: Task) -> None:
    """Run the trials, `params.parallel` side by side and in step."""
    pending = cut_off(study)
    done = len(study.trials) - len(pending)
    processes = min(params.parallel, params.trials)
    with Progress("tune", params.trials) as progress, workers(processes, task) as idle:
        if done:
            progress.reach(done, "from the journal")
        running: list[_Running] = []
        while True:
            while idle and (pending or len(study.trials) < params.trials):
                trial = _resumed(study, pending.pop(0), params) if pending else _asked(study, params, base)
                _suggest(trial, params)
                worker = idle.pop(0)
                chosen = {name: trial.params[name] for name in params.space}
                worker.begin(base.model_copy(update=chosen))
                running.append(_Running(trial, worker))
            if not running:
                return
            for entry in list(running):  # in the order of their numbers, not of their clocks
                entry.epoch += 1
                if _ended(study, entry, entry.worker.value(), params):
                    running.remove(entry)
                    idle.append(entry.worker)
                    progress.step(_note(study, entry.trial.number))


def _ended(study: optuna.Study, entry: _Running, value: float | None, params: TuneParams) -> bool:
    """Report an epoch's value; whether the trial is over."""
    trial, worker = entry.trial, entry.worker
    if value is None:
        study.tell(trial, state=TrialState.FAIL)
        return True
    if entry.epoch not in study.trials[trial.number].intermediate_values:
        trial.report(value, entry.epoch)
    last = entry.epoch == params.epochs
    pruned = not last and trial.should_prune()
    worker.proceed(not pruned)
    if last:
        study.tell(trial, value)
    elif pruned:
        study.tell(trial, state=TrialState.PRUNED)
    return last or pruned


def _asked(study: optuna.Study, params: TuneParams, base: TrainParams) -> Trial:
    """The next trial. The first has train's own values: the search never ends below them."""
    study.sampler = _sampler(params, len(study.trials))
    if not study.trials:
        own = base.model_dump()
        study.enqueue_trial({name: own[name] for name in params.space if _contains(params, name, own[name])})
    return study.ask()


def _resumed(study: optuna.Study, stored: FrozenTrial, params: TuneParams) -> Trial:
    study.sampler = _sampler(params, stored.number)
    return resume(study, stored)


def _sampler(params: TuneParams, number: int) -> optuna.samplers.TPESampler:
    """Seeded for each trial, so that a search that goes on draws what the unbroken one would have."""
    seed = params.seed * 100_003 + number
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=params.startup_trials)


def _suggest(trial: Trial, params: TuneParams) -> None:
    for name, space in params.space.items():
        if isinstance(space, ChoiceSpace):
            trial.suggest_categorical(name, space.choices)
        else:
            trial.suggest_float(name, space.low, space.high, log=space.log)


def _contains(params: TuneParams, name: str, value: float | str) -> bool:
    space = params.space[name]
    if isinstance(space, ChoiceSpace):
        return value in space.choices
    return space.low <= float(value) <= space.high


def _note(study: optuna.Study, number: int) -> str:
    trial = study.trials[number]
    values = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    reached = max(trial.intermediate_values.values(), default=float("nan"))
    return f"trial {number} {trial.state.name.lower()} at {reached:.2%} ({values})"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(study: optuna.Study, params: TuneParams, out: Path) -> None:
    trials = study.trials
    write_text(out / "best.yaml", yaml.safe_dump(study.best_params))
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "epochs": len(trial.intermediate_values),
            **trial.params,
        }
        for trial in trials
    ]
    pd.DataFrame(rows).to_csv(out / "trials.csv", index=False, lineterminator="\n")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    history = pd.DataFrame({"trial": [t.number for t in complete], "value": [t.value for t in complete]})
    history["best"] = history["value"].cummax()
    history.to_csv(out / "history.csv", index=False, lineterminator="\n")
    _importances(study, len(complete), params.seed).to_csv(
        out / "importances.csv", index=False, lineterminator="\n"
    )
    states = [trial.state for trial in trials]
    write_json(
        out / "metrics.json",
        {
            "trials": len(trials),
            "pruned": states.count(TrialState.PRUNED),
            "failed": states.count(TrialState.FAIL),
            "best_value": study.best_value,
            "best_trial": study.best_trial.number,
            "epochs_spent": sum(len(trial.intermediate_values) for trial in trials),
            "epochs_without_pruning": len(trials) * params.epochs,
        },
    )


def _importances(study: optuna.Study, complete: int, seed: int) -> pd.DataFrame:
    """Share of the variance that each value explains (fANOVA, Hutter et al. 2014)."""
    if complete < 2 or len({trial.value for trial in study.trials if trial.value is not None}) < 2:
        return pd.DataFrame(columns=["param", "importance"])  # nothing varies: nothing explains it
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return pd.DataFrame({"param": list(shares), "importance": list(shares.values())})


def _write_nothing(out: Path) -> None:
    """Tuning is off: train keeps its own values."""
    write_text(out / "best.yaml", "{}\n")
    write_text(out / "trials.csv", "number,state,value,epochs\n")
    write_text(out / "history.csv", "trial,value,best\n")
    write_text(out / "importances.csv", "param,importance\n")
    write_json(out / "metrics.json", {"trials": 0})
    print("tune: off (tune.trials is 0): train keeps its own values")


if __name__ == "__main__":
    main(tune)
