"""The selected model in MLflow's registry: registered once, champion when it passed the gate.

The gate is `ships` in metrics.json, the verdict of stage select, and then the promise: what was measured there must hold
on this machine too.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from flows.registry.gate import check
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.common.files import read_json
from tasks.core.evaluation.candidates import DENSE_NETWORK, DENSE_WEIGHTS
from tasks.core.runtime import promise
from tasks.core.runtime.promise import COMPANIONS, MODEL
from tasks.core.runtime.session import feed, session, takes_tokens
from tasks.core.tracking.registered import download, reason

ALIAS = "champion"
LABELS, CARD = "labels.json", "model_card.md"  # of stage select
_ROWS = 16  # test examples that the loaded model is checked on
_FASTER = 1.0  # than the reference: enough for a champion, whatever speed-up was promised


@dataclass(frozen=True)
class Registered:
    """What happened to the selected model in the registry.

    Attributes:
        version: its version there.
        champion: whether the alias points to it.
        changed: whether the registry is different from before.
        sentence: the same in words.
    """

    version: str
    champion: bool
    changed: bool
    sentence: str


def register(select: Path, name: str, run_id: str) -> Registered:
    """Register `select`/model.onnx as `name`, unless the same bytes are there, and make it champion if
    `ships` in metrics.json says so and what was promised of it holds here. A new champion is loaded back by
    its alias and must predict what the file predicts.

    Args:
        select: the folder of stage select, on whose sample of test examples the champion is checked.
        name: the registered model's.
        run_id: the MLflow run that a new version belongs to.

    Raises:
        BadInput: a file that stage select writes is missing or was changed.
        StageFailed: MLflow refused, or the champion predicts something else; the alias is then where it
            was before.
    """
    client, content = MlflowClient(), (select / "model.onnx").read_bytes()
    metrics = read_json(select / "metrics.json")
    digest = hashlib.sha256(content).hexdigest()
    try:
        champion = _champion(client, name)
        found = client.search_model_versions(f"name = '{name}' and tags.sha256 = '{digest}'", max_results=1)
        version = str(found[0].version) if found else None
        if metrics["ships"] and version is not None and version == champion:
            return Registered(version, True, False, f"{metrics['selected']} is already {ALIAS} of {name}.")
        refusal = _refusal(select, metrics)
        if version is None:
            version = _log(client, content, select, name, run_id)
            tags = {"sha256": digest, "candidate": metrics["selected"], "accuracy": str(metrics["accuracy"])}
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, value)
            client.update_registered_model(name, f"What modelpress selected; {ALIAS} is the one to serve.")
            client.update_model_version(name, version, (select / CARD).read_text(encoding="utf-8"))
        new = "registered as" if not found else "is already"
        if refusal:
            sentence = f"{metrics['selected']} {new} version {version} of {name}, not {ALIAS}: {refusal}"
            return Registered(version, champion == version, not found, sentence)
        _promote(client, name, version, champion, content, select)
    except MlflowException as error:
        raise StageFailed(f"MLflow's registry: {reason(error)}") from None
    sentence = f"{metrics['selected']} {new} version {version} of {name}, now {ALIAS}."
    return Registered(version, True, True, sentence)


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """The model that `uri` (models:/NAME@ALIAS or models:/NAME/VERSION) is in the registry: a copy of its
    file, with its companions beside it, until the block ends.

    Raises:
        BadInput: it cannot be had. One that the block raises names `uri` in place of the copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        download(uri, "", Path(folder))
        try:
            yield Path(folder) / MODEL
        except BadInput as error:
            raise BadInput(str(error).replace(folder, uri)) from None


def _refusal(select: Path, metrics: dict[str, Any]) -> str:
    """Why the selected model cannot be champion; empty if it can."""
    if not metrics["ships"]:
        return str(metrics["verdict"])
    checked = check(select / MODEL, enough=_FASTER)
    return "" if checked.holds else checked.verdict


def _champion(client: MlflowClient, name: str) -> str | None:
    try:
        return str(client.get_model_version_by_alias(name, ALIAS).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None  # no such model, or no such alias


def _log(client: MlflowClient, content: bytes, select: Path, name: str, run_id: str) -> str:
    import onnxruntime
    from mlflow.models import infer_signature

    raw_N = _examples(select, 2)
    about: dict[str, Any] = {
        "name": "model",
        "signature": infer_signature(raw_N, {"logits": _predict(content, raw_N)}),
        "input_example": raw_N,
        "registered_model_name": name,
    }
    needs = [f"onnxruntime=={onnxruntime.__version__}", "numpy"]
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = (_log_tokens if takes_tokens(session(content, 1)) else _log_onnx)(select, needs, about)
    for companion in (*COMPANIONS, DENSE_WEIGHTS, DENSE_NETWORK, LABELS, CARD):
        client.log_model_artifact(info.model_id, str(select / companion))
    client.update_run(run_id, "RUNNING")  # the block above has closed it
    return str(info.registered_model_version)


def _log_onnx(select: Path, needs: list[str], about: dict[str, Any]) -> Any:
    """A file that takes examples as they are."""
    import mlflow.onnx
    import onnx

    return mlflow.onnx.log_model(
        onnx.load(select / MODEL),
        pip_requirements=[f"onnx=={onnx.__version__}", *needs],
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],  # MLflow's default looks for CUDA, and warns
        **about,
    )


def _log_tokens(select: Path, needs: list[str], about: dict[str, Any]) -> Any:
    """A file that takes tokens, behind what makes them of texts; no pickle, but the code itself."""
    import tokenizers

    info = mlflow.pyfunc.log_model(
        python_model=str(Path(__file__).with_name("raw_texts.py")),
        artifacts={"onnx": str(select / MODEL)},
        pip_requirements=[f"tokenizers=={tokenizers.__version__}", *needs],
        **about,
    )
    MlflowClient().log_model_artifact(info.model_id, str(select / MODEL))  # where `check` and others look
    return info


def _promote(
    client: MlflowClient, name: str, version: str, before: str | None, content: bytes, select: Path
) -> None:
    client.set_registered_model_alias(name, ALIAS, version)
    raw_N = _examples(select, _ROWS)
    same = False
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{name}@{ALIAS}")
        same = np.array_equal(loaded.predict(raw_N)["logits"], _predict(content, raw_N))
    finally:
        if not same and before is None:
            client.delete_registered_model_alias(name, ALIAS)
        elif not same and before is not None:
            client.set_registered_model_alias(name, ALIAS, before)
    if not same:
        raise StageFailed(
            f"{name}@{ALIAS} (version {version}) does not predict what data/select/model.onnx predicts; "
            f"{ALIAS} is {f'version {before} again' if before else 'nobody'}"
        )


def _examples(select: Path, rows: int) -> NDArray[Any]:
    _, sample = promise.read(select / MODEL)
    return np.array(sample.raw_N[:rows])


def _predict(content: bytes, raw_N: NDArray[Any]) -> NDArray[np.float32]:
    """With ONNX Runtime's defaults, as MLflow does."""
    import onnxruntime

    run: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits_NK,) = run.run(None, feed(run, raw_N))
    return np.asarray(logits_NK)
