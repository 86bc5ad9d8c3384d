"""Search train's values: a sampler proposes, a pruner ends early what does not look promising.

The study is a journal on disk, or lies in a database that many hosts share: a search that was killed goes on where
it was.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from tasks.core.common.errors import StageFailed
from tasks.core.common.files import write_json, write_text
from tasks.core.common.kept import kept
from tasks.core.config.cli import main
from tasks.core.config.tune_params import TuneParams
from tasks.core.tuning.search_inputs import Search, read_search
from tasks.core.tuning.studies import DIVERGED, best, create, outcome, own_trials, shared_url, storage


def tune(
    params: TuneParams, data: Path, policy: Path, weights: Path, settings: Path, journal: Path, out: Path
) -> None:
    """Write best.yaml, trials.csv, history.csv, importances.csv and metrics.json.

    Args:
        data: the ingested data set.
        policy: policy.json of augment.
        weights: the folder of start, with the weights that every trial begins with and the trials of an earlier
            search, if any.
        settings: params.yaml, whose section `train` gives the values that are not searched.
        journal: a folder that outlives the run: a search that was killed goes on from here, unless hosts share it.

    Raises:
        BadInput: a value in the space is not one that train takes.
        StageFailed: no trial has ended well, or the database that hosts share cannot be used.
    """
    if not params.trials:
        _write_nothing(out)
        return
    about = read_search(params, data, policy, weights, settings)
    if shared_url():
        from tasks.core.tuning.shared_study import search
    else:
        from tasks.core.tuning.stepwise import search
    with kept(journal, about.name) as folder:
        study = create(storage(folder / "trials.log"), about)
        search(study, about)
        top = best(study, params)
        if top is None:
            raise StageFailed(
                "no trial has ended well: every one diverged; lower the values of lr in the space"
            )
        _write(study, top, about, out)
        shutil.rmtree(folder, ignore_errors=True)


def _write(study: optuna.Study, top: FrozenTrial, about: Search, out: Path) -> None:
    params, trials = about.params, own_trials(study)
    begun = [trial for trial in trials if trial.state != TrialState.WAITING]
    write_text(out / "best.yaml", yaml.safe_dump(top.params))
    _csv(pd.DataFrame([_row(trial, params) for trial in begun]), out / "trials.csv")
    complete = [trial for trial in begun if trial.state == TrialState.COMPLETE]
    history = pd.DataFrame({"trial": [t.number for t in complete], "value": [t.values[0] for t in complete]})
    history["best"] = history["value"].cummax()
    _csv(history, out / "history.csv")
    _csv(_importances(study, complete, params.seed), out / "importances.csv")
    outcomes = [outcome(trial) for trial in begun]
    write_json(
        out / "metrics.json",
        {
            "sampler": params.sampler,
            "pruner": params.pruner,
            "trials": len(begun),
            "not_begun": len(trials) - len(begun),
            "begun_anew": len(study.trials) - len(trials) - len(about.earlier),
            "earlier": len(about.earlier),
            "pruned": outcomes.count("pruned"),
            "diverged": outcomes.count(DIVERGED),
            "failed": outcomes.count("fail"),
            "best_value": top.values[0],
            "best_trial": top.number,
            "epochs_spent": sum(_epochs(trial, params) for trial in begun),
            "epochs_without_pruning": len(begun) * params.epochs,
        },
    )


def _row(trial: FrozenTrial, params: TuneParams) -> dict[str, Any]:
    values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(params.objectives)
    return {
        "number": trial.number,
        "state": outcome(trial),
        "value": values[0],
        **dict(zip(params.objectives[1:], values[1:], strict=True)),
        "epochs": _epochs(trial, params),
        **trial.params,
    }


def _epochs(trial: FrozenTrial, params: TuneParams) -> int:
    """That a trial has trained; with several objectives they are not reported, and all are trained."""
    if trial.state == TrialState.COMPLETE:
        return params.epochs
    return len(trial.intermediate_values)


def _csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")


def _importances(study: optuna.Study, complete: list[FrozenTrial], seed: int) -> pd.DataFrame:
    """Share of the variance of accuracy that each value explains (fANOVA, Hutter et al. 2014)."""
    if len({trial.values[0] for trial in complete}) < 2:
        return pd.DataFrame(columns=["param", "importance"])  # nothing varies: nothing explains it
    shares = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed),
        target=lambda trial: float(trial.values[0]),
    )
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
