"""What a search is about: the values that are not searched, the data, the trials of an earlier search, and the name
that follows from all of it, so that nobody goes on with the study of another one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.common.errors import BadInput
from tasks.core.common.files import fingerprint, read_json
from tasks.core.config.params import TrainParams
from tasks.core.config.params_file import load_section, parse
from tasks.core.config.tune_params import ChoiceSpace, TuneParams, Value
from tasks.core.data.dataset import open_dataset
from tasks.core.tuning.trials import Task

START, TRIALS = "start.json", "trials.csv"


@dataclass(frozen=True)
class Earlier:
    """A finished trial of an earlier search, its values all in the space of this one."""

    results: list[float]  # one an objective, the accuracy first
    values: dict[str, Value]


@dataclass(frozen=True)
class Search:
    """Everything that the study and its workers need to know."""

    name: str
    params: TuneParams
    base: TrainParams
    task: Task
    earlier: list[Earlier]


def read_search(params: TuneParams, data: Path, policy: Path, weights: Path, settings: Path) -> Search:
    """The search that `params` and the files describe.

    Raises:
        BadInput: an end of a space is not a value that train takes, or earlier trials tell nothing of the space.
    """
    base: TrainParams = load_section("train", settings)
    for name, space in params.space.items():
        for value in space.choices if isinstance(space, ChoiceSpace) else (space.low, space.high):
            parse(TrainParams, {**base.model_dump(), name: value}, f"{settings}: tune.space")
    own = base.model_dump()
    for number, values in enumerate(params.manual):
        for name in set(params.space) - set(values):
            if not params.space[name].contains(own[name]):
                raise BadInput(
                    f"{settings}: tune.manual.{number}: names no {name}, and train.{name} ({own[name]}) is not in "
                    f"its space: name it"
                )
    start, resolved = read_json(weights / START), read_json(policy)
    # How many run beside each other, and where, changes nothing of what a study is about.
    about = params.model_dump(exclude={"parallel", "executor", "trial_cpus", "trial_gpus"})
    key = fingerprint(about, base.model_dump(), open_dataset(data).digest, resolved, start)
    task = Task(data, resolved, weights, params.epochs, params.train_fraction, params.seed)
    return Search(f"tune-{key}", params, base, task, _earlier(weights / TRIALS, params))


def _earlier(path: Path, params: TuneParams) -> list[Earlier]:
    """The trials in `path`, if there is such a file, that ended well and whose values lie in the space."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [trial for trial in (_trial(row, params) for row in rows) if trial is not None]
    print(f"tune: {len(found)} of {len(rows)} earlier trials ended well and lie in the space", flush=True)
    if not found:
        raise BadInput("start.trials: no earlier trial ended well and lies in tune.space; set it to none")
    return found


def _trial(row: dict[str, Any], params: TuneParams) -> Earlier | None:
    try:
        values = {name: _value(row[name], space) for name, space in params.space.items()}
        results = [float(row[name]) for name in ("value", *params.objectives[1:])]
    except (KeyError, ValueError, TypeError):
        return None
    inside = all(params.space[name].contains(value) for name, value in values.items())
    return Earlier(results, values) if inside and 0 <= results[0] <= 1 else None


def _value(text: str, space: object) -> Value:
    """What a cell says; raises ValueError if it says none of the choices, or no number."""
    if not isinstance(space, ChoiceSpace):
        return float(text)
    return space.choices[[_same(choice, text) for choice in space.choices].index(True)]


def _same(choice: Value, text: str) -> bool:
    if isinstance(choice, bool | str):
        return str(choice) == text
    try:
        return float(text) == choice
    except ValueError:
        return False
