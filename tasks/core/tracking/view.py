"""How MLflow's table of runs is shown to somebody who has set nothing up: a shared view of the experiment."""

from __future__ import annotations

import json

from mlflow import MlflowClient
from mlflow.entities import Experiment

TAG = "mlflow.sharedViewState."  # and the experiment's name, which follows ?viewStateShareKey= in an address
COLUMNS = [
    "attributes.`Duration`",
    "tags.`selected`",
    "metrics.`accuracy`",
    "metrics.`drop_points`",
    "metrics.`speedup_b1`",
    "metrics.`size_ratio`",
]
_STATE = {
    "selectedColumns": COLUMNS,
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "searchFilter": "",
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "viewMaximized": False,
    "runListHidden": False,
    "runsPinned": [],
    "runsHidden": [],
    "runsExpanded": {},
}


def share(client: MlflowClient, experiment: Experiment) -> None:
    """Give `experiment` the view, unless it has it."""
    key, state = TAG + experiment.name, json.dumps(_STATE)
    if experiment.tags.get(key) != state:
        client.set_experiment_tag(experiment.experiment_id, key, state)
