"""The command line: exit codes, messages, and what it leaves untouched."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import describe, overrides
from flows.cli.predict import predict
from tasks.core.config.params_file import Asked, Pipeline
from tests.builders import rows_model
from tests.integration.toy import ROOT, environment, modelpress, run

pytestmark = pytest.mark.slow  # processes

SMALLEST = {"ingest": {"source": "x"}, "prune": {"ratios": [0.5]}, "quantize": {"schemes": ["fp32"]}}
HEAVY = ("torch", "prefect", "mlflow", "dvc", "onnxruntime", "numpy", "pydantic", "rich")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 4x4 grey images whose class is the brightest row, and its labels."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(rows_model())
    path.with_name("labels.json").write_text('["top", "second", "third", "bottom é"]')
    return path


def bright_row(path: Path, row: int) -> Path:
    pixels = np.zeros((4, 4), np.uint8)
    pixels[row] = 2
    Image.fromarray(pixels).save(path)
    return path


def test_help_imports_little_when_it_is_asked_for() -> None:
    """Told by what it imports, not by a clock: machines differ."""
    code = f"import sys, flows.cli.main; flows.cli.main._parser(); print(set(sys.modules) & {set(HEAVY)!r}, len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy, modules = done.stdout.rsplit(maxsplit=1)
    assert heavy == "set()"
    assert int(modules) < 130


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "-S", "train.epohs=1"], "train.epohs"),
        (["run", "-S", "train.epochs=x"], "train.epochs"),
        (["run", "-S", "train.epochs=0"], "train.epochs"),
        (["run", "-S", "+train.colour=red"], "train.colour"),
        (["run", "-S", "train.epochs=1,2"], "one value a key"),
        (["run", "-S", "train.epochs"], "train.epochs"),
        (["run", "-S", "other.yaml:a=1"], "other.yaml"),
        (["run", "-S", "ingest.source=data/none"], "data/none"),
        (["init", "no/such/folder"], "no/such/folder"),
        (["init", "params.yaml"], "neither a folder nor a zip or tar"),
        (["predict", "none.onnx", "params.yaml"], "none.onnx"),
    ],
)
def test_command_exits_2_with_one_line_when_input_is_bad(toy: Path, words: list[str], said: str) -> None:
    before = {path: path.read_bytes() for path in toy.glob("*.*") if path.is_file()}
    done = modelpress(toy, *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert {path: path.read_bytes() for path in toy.glob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["status", "deploy", "params", "run"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train: {", "train: {epohs: 1, ", "params.yaml: train.epohs: unknown key"),
        ("quantize: {schemes: [fp32]}", "", "params.yaml: quantize: is missing"),
    ],
)
def test_command_exits_2_with_one_line_when_params_are_wrong(
    toy: Path, command: str, old: str, new: str, said: str
) -> None:
    content = (toy / "params.yaml").read_text()
    assert old in content
    (toy / "params.yaml").write_text(content.replace(old, new))
    done = modelpress(toy, command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


@pytest.mark.parametrize("given", ["prune.batch_size=32", "+prune.batch_size=32"])
def test_override_is_taken_with_and_without_plus_when_the_params_know_the_key(
    toy: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy)
    for _ in range(2):
        asked, changed = overrides.apply(toy, [given])
        assert asked.pipeline.prune.batch_size == 32
        overrides.write(toy, changed)
    assert (toy / "params.yaml").read_text().count("batch_size: 32") == 1


def test_two_commands_mend_it_when_the_checkout_is_no_repository(toy: Path) -> None:
    shutil.rmtree(toy / ".git")
    done = modelpress(toy, "status")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    commands = re.findall(r"`([^`]+)`", done.stderr)
    assert len(commands) == 2
    identity = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in commands:
        run(["bash", "-c", command], toy, **identity)
    assert json.loads(modelpress(toy, "status", "--json", check=True).stdout)["pending"]


def test_version_is_that_of_the_package_when_asked(tmp_path: Path) -> None:
    assert modelpress(tmp_path, "--version", check=True).stdout == f"modelpress {version('modelpress')}\n"


def test_run_names_the_command_that_helps_when_fashion_mnist_is_missing(toy: Path) -> None:
    done = modelpress(toy, "run", "-S", "ingest.source=data/raw/fashion-mnist")
    assert done.returncode == 2
    assert "modelpress fetch fashion-mnist" in done.stderr


def test_command_exits_2_when_run_outside_a_checkout(tmp_path: Path) -> None:
    done = modelpress(tmp_path, "status")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "dvc.yaml" in done.stderr


def test_ui_exits_2_when_a_port_is_in_use(toy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = modelpress(toy, "ui", "--prefect-port", str(port))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"port {port} is in use" in done.stderr


def test_status_lists_the_stages_when_nothing_has_run(toy: Path) -> None:
    content = json.loads(modelpress(toy, "status", "--json", check=True).stdout)
    assert content == {
        "pending": ["ingest", "train", "prune@0.5", "prune@0.25", "evaluate"],
        "selected": None,
    }


def test_params_lists_every_key_when_asked_for_json(toy: Path) -> None:
    content = json.loads(modelpress(toy, "params", "--json", check=True).stdout)
    assert content["train.epochs"] == {
        "description": "passes over the images for training",
        "type": "integer >= 1 or auto",
        "default": 10,
        "value": 2,
        "settled": None,
    }
    assert content["train.optimizer"]["type"] == "one of sgd, adamw or auto"
    assert content["ingest.source"]["default"] is None
    sections = {name: field.annotation for name, field in Pipeline.model_fields.items()}
    assert set(content) == {f"{name}.{key}" for name, model in sections.items() for key in model.model_fields}


def test_params_shows_what_auto_became_when_a_recipe_was_settled(toy: Path) -> None:
    text = (toy / "params.yaml").read_text().replace("epochs: 2", "epochs: auto")
    (toy / "params.yaml").write_text(text)
    (toy / "data/recipe").mkdir()
    (toy / "data/recipe/params.yaml").write_text("train: {epochs: 7}\n")
    content = json.loads(modelpress(toy, "params", "--json", check=True).stdout)
    assert (content["train.epochs"]["value"], content["train.epochs"]["settled"]) == ("auto", 7)
    assert "auto: 7" in modelpress(toy, "params", check=True).stdout


def test_run_exits_2_when_a_budget_is_named_and_nothing_is_auto(toy: Path) -> None:
    done = modelpress(toy, "run", "--budget", "quick")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nothing in params.yaml is auto" in done.stderr


def test_keys_say_what_a_value_may_be_when_types_are_nested() -> None:
    keys = {
        key.name: key.type for key in describe.keys(Asked({}, Pipeline.model_validate(SMALLEST), frozenset()))
    }
    assert keys["prune.ratios"] == "list of number > 0, < 1 or string"
    assert keys["ingest.size"] == "auto or integer >= 8, <= 512"
    assert keys["tune.space"] == "mapping to {low, high, log} or {choices} or auto"


def test_predict_ranks_the_labels_when_images_have_another_size(model: Path, tmp_path: Path) -> None:
    small = bright_row(tmp_path / "bild ä.png", 3)
    large = tmp_path / "large.png"
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:20] = 20
    Image.fromarray(pixels).convert("RGB").save(large)
    first, second = predict(model, [small, large])
    assert [label for label, _ in first.labels] == ["bottom é", "top", "second"]
    expected = np.exp(2) / (np.exp(2) + 3)
    assert first.labels[0][1] == pytest.approx(expected)
    assert second.labels[0][0] == "second"


def test_predict_prints_table_or_json_when_run_as_a_command(model: Path, tmp_path: Path) -> None:
    image = bright_row(tmp_path / "a.png", 1)
    table = modelpress(tmp_path, "predict", str(model), image.name, check=True).stdout
    assert "a.png" in table
    assert "second  71.1%" in table
    (row,) = json.loads(modelpress(tmp_path, "predict", str(model), image.name, "--json", check=True).stdout)
    assert (row["image"], row["label"], len(row["top"])) == ("a.png", "second", 3)


def test_predict_says_unsure_when_an_answer_is_less_probable_than_promised(
    model: Path, tmp_path: Path
) -> None:
    for path in (model, model.with_name("labels.json")):
        shutil.copy(path, tmp_path)
    bright_row(tmp_path / "clear.png", 1)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "dark.png")
    (tmp_path / "promise.json").write_text('{"unsure_below": 0.5}')
    words = ("predict", "model.onnx", "clear.png", "dark.png")
    clear, dark = modelpress(tmp_path, *words, check=True).stdout.splitlines()[-2:]
    assert "second  71.1%" in clear
    assert "unsure" not in clear
    assert "unsure: top  25.0%" in dark
    rows = json.loads(modelpress(tmp_path, *words, "--json", check=True).stdout)
    assert [(row["label"], row["unsure"]) for row in rows] == [("second", False), ("top", True)]

    (tmp_path / "promise.json").write_text("[]")
    done = modelpress(tmp_path, *words)
    assert (done.returncode, done.stderr) == (
        2,
        "modelpress: promise.json: not the promise that stage select writes\n",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty file"), (b"no picture at all", "no image"), (None, "no such file")],
)
def test_predict_exits_2_and_names_the_file_when_an_image_is_bad(
    model: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    good = bright_row(tmp_path / "good.png", 0)
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    done = modelpress(tmp_path, "predict", str(model), good.name, "bad.png")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "bad.png" in done.stderr
    assert said in done.stderr


def test_predict_exits_2_when_labels_are_missing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    done = modelpress(tmp_path, "predict", "model.onnx", bright_row(tmp_path / "a.png", 0).name)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "labels.json" in done.stderr


def test_output_ends_quietly_when_the_reader_goes_away(toy: Path) -> None:
    command = f"{sys.executable} -m flows.cli.main params --json | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=toy, env=environment(), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("{\n", "")
