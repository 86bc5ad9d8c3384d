"""What MLflow's registry holds, downloaded."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from tasks.core.common.errors import BadInput
from tasks.core.common.reachable import reach, without_passwords


def download(uri: str, file: str, folder: Path) -> None:
    """Put a model, models:/NAME@ALIAS or models:/NAME/VERSION, or one `file` of it, into `folder`.

    Raises:
        BadInput: it cannot be had.
    """
    reach("MLFLOW_TRACKING_URI", "/health")
    try:
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"{uri}/{file}" if file else uri, dst_path=str(folder)
        )
    except MlflowException as error:
        raise BadInput(f"{uri}: {reason(error)}") from None


def reason(error: MlflowException) -> str:
    """Why MLflow failed, on one line, without passwords and the statement that its database was asked to run."""
    text = without_passwords(" ".join(str(error).partition("[SQL:")[0].split()))
    return "the disk is full: free some space and run again" if "disk is full" in text else text
