"""The registry, on a real MLflow store: what is registered, what becomes champion, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from safetensors.numpy import load_file

from flows.registry import register as registration
from flows.registry.register import ALIAS, Registered, fetched, register
from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import StartParams
from tasks.core.data.dataset import Split
from tasks.core.data.texts import Texts
from tasks.core.evaluation.candidates import DENSE_WEIGHTS
from tasks.core.runtime.promise import COMPANIONS, MODEL, REFERENCE, read, write
from tasks.core.runtime.session import predict, session
from tasks.start import start
from tests import byte_pairs
from tests.builders import FINGERPRINT, SLOW_ROWS, rows_model, ship
from tests.integration.toy import modelpress
from tests.unit.registry.test_gate import replaced

NAME = "rows"
METRICS: dict[str, Any] = {
    "selected": "dense-int8",
    "accuracy": 0.9,
    "ships": True,
    "verdict": "It knows them.",
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of an empty store in `tmp_path`, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    # Absolute, since MLflow keeps a store that is open by its address.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return MlflowClient()


def select(client: MlflowClient, bias: float = 0.0, **metrics: object) -> Registered:
    """Register the rows model as if `select` had just chosen it."""
    chosen(rows_model(bias), **metrics)
    return registered(client)


def chosen(model: bytes, **metrics: object) -> Path:
    """The folder of `select` when it has chosen `model`; the file that this is in."""
    path = ship(Path("select"), model)
    Path("select/metrics.json").write_text(json.dumps({**METRICS, **metrics}))
    return path


def registered(client: MlflowClient) -> Registered:
    """Register what `chosen` has written."""
    run_id = client.create_run("0").info.run_id
    result = register(Path("select"), NAME, run_id)
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
    assert version.description == Path("select/model_card.md").read_text()
    assert ALIAS in client.get_registered_model(NAME).description
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")
    images_NHWC = np.load("select/sample.npz")["images_NHWC"]
    expected = images_NHWC.astype(np.float32).mean((2, 3))
    np.testing.assert_allclose(loaded.predict(images_NHWC)["logits"], expected, rtol=1e-6)
    assert str(loaded.metadata.signature.inputs.inputs[0].type) == "uint8"
    assert loaded.metadata.saved_input_example_info is not None


def test_model_of_byte_pairs_takes_raw_texts_when_it_is_loaded(client: MlflowClient) -> None:
    path = chosen(rows_model())
    for file in (path, path.with_name(REFERENCE)):
        file.write_bytes(byte_pairs.file())
    path.with_name("labels.json").write_text('["weather", "food", "chinese"]')
    texts_N = np.array(byte_pairs.TEXTS, object)
    logits_NK = predict(session(path, 1), texts_N)
    test = Split(Texts.of_strings(byte_pairs.TEXTS), logits_NK.argmax(1))
    write(path.parent, test, 0.1, 0.1, 1.0, max_drop_points=1.0, fingerprint=FINGERPRINT, unsure_below=0.0)
    assert registered(client).version == "1"
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    np.testing.assert_allclose(loaded.predict(texts_N)["logits"], logits_NK, atol=1e-5)
    with fetched(f"models:/{NAME}/1") as copy:
        assert copy.read_bytes() == byte_pairs.file()
        assert read(copy)[1].predicted_N.tolist() == logits_NK.argmax(1).tolist()


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
    assert not select(client, ships=False).champion
    with pytest.raises(MlflowException):
        champion(client)
    select(client, bias=1.0)
    result = select(client, bias=2.0, ships=False, verdict="It lost too much.")
    assert not result.champion
    assert "It lost too much." in result.sentence
    assert champion(client) == "2"


def test_alias_is_put_back_when_the_champion_predicts_something_else(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(client)
    right = registration._predict
    monkeypatch.setattr(registration, "_predict", lambda content, images: right(content, images) + 1)
    with pytest.raises(StageFailed, match="does not predict what"):
        select(client, bias=1.0)
    assert champion(client) == "1"


def test_champion_stays_when_the_new_model_predicts_something_else_here(client: MlflowClient) -> None:
    select(client)
    replaced(chosen(rows_model(bias=1.0)), rows_model(bias=40.0))
    result = registered(client)
    assert (result.version, result.champion, result.changed) == ("2", False, True)
    assert "version 2 of rows, not champion: What was promised does not hold here" in result.sentence
    assert champion(client) == "1"
    assert registered(client).sentence.startswith("dense-int8 is already version 2 of rows, not champion")


def test_champion_stays_when_the_new_model_is_slower_than_the_reference(client: MlflowClient) -> None:
    select(client)
    chosen(rows_model(work=150_000))
    result = registered(client)
    assert (result.version, result.champion) == ("2", False)
    assert "times as fast as the reference, not 1.00 times" in result.sentence
    assert champion(client) == "1"


def test_reference_is_champion_when_it_was_selected_itself(client: MlflowClient) -> None:
    ship(chosen(SLOW_ROWS).parent, SLOW_ROWS, speedup=1.0)
    assert registered(client).champion


def test_nothing_is_registered_when_a_companion_is_missing(client: MlflowClient) -> None:
    chosen(rows_model()).with_name("sample.npz").unlink()
    with pytest.raises(BadInput, match=r"sample\.npz: no such file"):
        registered(client)
    assert not client.search_registered_models()


def test_registry_gives_the_files_that_were_selected_when_asked_for_the_champion(
    client: MlflowClient,
) -> None:
    select(client)
    with fetched(f"models:/{NAME}@{ALIAS}") as model:
        for name in (MODEL, *COMPANIONS, DENSE_WEIGHTS):
            assert model.with_name(name).read_bytes() == Path("select", name).read_bytes()
    assert not model.exists()


def test_training_starts_from_the_champion_when_params_ask_for_it(
    client: MlflowClient, tmp_path: Path, params_file: Callable[..., Path]
) -> None:
    select(client)
    settings = params_file(prune={"ratios": [0.5]}, quantize={"schemes": ["fp32"]})
    out = tmp_path / "start"
    out.mkdir()
    start(StartParams(weights=f"models:/{NAME}@{ALIAS}"), settings, out)
    assert list(load_file(out / "model.safetensors")["rows"]) == [0, 1, 2, 3]
    with pytest.raises(BadInput, match=r"start\.weights: models:/nobody@champion: .*MLFLOW_TRACKING_URI"):
        start(StartParams(weights="models:/nobody@champion"), settings, out)


def test_champion_is_checked_when_the_registry_is_all_there_is(client: MlflowClient, tmp_path: Path) -> None:
    Path("dvc.yaml").touch()  # a checkout
    select(client)
    for path in Path("select").iterdir():
        path.unlink()
    done = modelpress(tmp_path, "check", f"models:/{NAME}@{ALIAS}", check=True)
    assert done.stdout.splitlines()[-1].startswith("What was promised holds here")
    assert done.stderr == ""


def test_champion_predicts_images_beside_the_caller_when_named_by_its_alias(
    client: MlflowClient, tmp_path: Path
) -> None:
    Path("dvc.yaml").touch()
    select(client)
    (tmp_path / "shots").mkdir()
    Image.fromarray(np.array([[0] * 4, [2] * 4, [0] * 4, [0] * 4], np.uint8)).save("shots/a.png")
    words = ("predict", f"models:/{NAME}@{ALIAS}", "a.png", "--json")
    (row,) = json.loads(modelpress(tmp_path / "shots", *words, check=True).stdout)
    assert (row["image"], row["label"]) == ("a.png", "second")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"models:/{NAME}@nobody", "alias nobody not found"),
        (f"models:/{NAME}/7", "version=7"),
        (f"models:/other@{ALIAS}", "name=other"),
        ("models:/", "models:/"),
    ],
)
def test_check_exits_2_in_one_line_when_the_registry_has_no_such_model(
    uri: str, said: str, client: MlflowClient, tmp_path: Path
) -> None:
    Path("dvc.yaml").touch()
    select(client)
    done = modelpress(tmp_path, "check", uri)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_check_names_the_model_when_it_was_registered_without_a_promise(
    client: MlflowClient, tmp_path: Path
) -> None:
    import mlflow.onnx
    import onnx

    Path("dvc.yaml").touch()
    with mlflow.start_run():
        mlflow.onnx.log_model(
            onnx.load_from_string(rows_model()), name="model", registered_model_name=NAME, pip_requirements=[]
        )
    done = modelpress(tmp_path, "check", f"models:/{NAME}/1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"models:/{NAME}/1/promise.json: no such file" in done.stderr
