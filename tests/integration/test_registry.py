"""The registry, on a real MLflow store: what is registered, what becomes champion, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows import registry
from flows.registry import ALIAS, Registered, register
from tasks.core.errors import StageFailed
from tests.builders import rows_model

pytestmark = pytest.mark.slow

NAME = "rows"
METRICS: dict[str, Any] = {"selected": "dense-int8", "accuracy": 0.9, "passed": True, "reason": "The bar."}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of an empty store in `tmp_path`, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    # Absolute, since MLflow keeps a store that is open by its address.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return MlflowClient()


def select(client: MlflowClient, bias: float = 0.0, **metrics: object) -> Registered:
    """Register the rows model as if `select` had just chosen it."""
    for folder in ("select", "ingest"):
        Path(folder).mkdir(exist_ok=True)
    Path("select/model.onnx").write_bytes(rows_model(bias))
    Path("select/metrics.json").write_text(json.dumps({**METRICS, **metrics}))
    images = np.random.default_rng(0).integers(0, 256, (32, 4, 4, 1), dtype=np.uint8)
    np.save("ingest/test_images.npy", images)
    run_id = client.create_run("0").info.run_id
    result = register(Path("select"), Path("ingest"), NAME, run_id)
    assert client.get_run(run_id).info.status == "RUNNING", "the pipeline's run goes on"
    return result


def champion(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias(NAME, ALIAS).version)


def test_model_is_champion_and_predicts_the_same_when_it_passed(client: MlflowClient) -> None:
    result = select(client)
    assert (result.version, result.champion, result.changed) == ("1", True, True)
    version = client.get_model_version_by_alias(NAME, ALIAS)
    assert champion(client) == result.version
    assert version.tags["candidate"] == "dense-int8"
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")
    images_NHWC = np.load("ingest/test_images.npy")
    expected = images_NHWC.astype(np.float32).mean((2, 3))
    np.testing.assert_allclose(loaded.predict(images_NHWC)["logits"], expected, rtol=1e-6)
    assert str(loaded.metadata.signature.inputs.inputs[0].type) == "uint8"
    assert loaded.metadata.saved_input_example_info is not None


def test_nothing_is_registered_anew_when_the_bytes_are_there(client: MlflowClient) -> None:
    select(client)
    again = select(client)
    assert (again.version, again.champion, again.changed) == ("1", True, False)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1


def test_champion_moves_forth_and_back_when_another_model_passes(client: MlflowClient) -> None:
    select(client)
    assert select(client, bias=1.0).version == champion(client) == "2"
    back = select(client)
    assert (back.version, back.champion, back.changed) == ("1", True, True)
    assert champion(client) == "1"


def test_champion_stays_when_the_new_model_misses_the_bar(client: MlflowClient) -> None:
    assert not select(client, passed=False).champion
    with pytest.raises(MlflowException):
        champion(client)
    select(client, bias=1.0)
    result = select(client, bias=2.0, passed=False, reason="It lost too much.")
    assert not result.champion
    assert "It lost too much." in result.sentence
    assert champion(client) == "2"


def test_alias_is_put_back_when_the_champion_predicts_something_else(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(client)
    right = registry._predict
    monkeypatch.setattr(registry, "_predict", lambda content, images: right(content, images) + 1)
    with pytest.raises(StageFailed, match="does not predict what"):
        select(client, bias=1.0)
    assert champion(client) == "1"
