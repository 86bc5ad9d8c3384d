"""What the tools read from the environment, set before any of them is imported.

Everything is a default: a variable that is already set is left as it is, so a team's Prefect or MLflow
server is used by exporting PREFECT_API_URL or MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.core.common.errors import BadInput

STATE = Path(".modelpress")  # what a checkout keeps between runs and nobody versions
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
EXPERIMENT = "modelpress"

_DEFAULTS = {
    # Nobody is told that, or how, the tools are used.
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the newer UI asks an analytics host
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what it raises is told in a line of ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that dies in the middle is noticed in seconds, and told of in a line of ours.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the automation of `modelpress deploy` misses three
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "_MLFLOW_TELEMETRY_PRE_WARM_DATABRICKS_SDK": "false",  # half a second of imports nobody needs
    # On a busy machine the server takes longer than Prefect's 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
}


def find_root(start: Path) -> Path:
    """The checkout that `start` lies in: the nearest folder with a dvc.yaml. Raises BadInput."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise BadInput(f"{start}: no dvc.yaml here or above: change to your modelpress checkout")


def apply(root: Path) -> None:
    """Set the defaults for this process and its children. Call before importing prefect or mlflow."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(root / STATE / "prefect"))
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        # dvc.yaml says `python`: that of this environment, activated or not.
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
