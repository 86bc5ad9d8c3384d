"""The whole pipeline on labelled texts, as a user runs it: from a table to a registered model that takes raw strings."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from flows.registry.register import ALIAS, register
from tasks.core.augmentation import synonyms
from tests.integration.project import make_project, metrics, repro
from tests.integration.toy import ROOT, modelpress, run

# WordNet's files of nouns, by number, and what they are called here: one as hostile as a label can be.
TOPICS = {13: "<b>food</b>", 5: "animal", 28: "time"}
A_TOPIC = 800
SAID = {
    "a rich sauce of cheese and butter": "<b>food</b>",
    "a small bird of the family": "animal",
    "the time of the year when days are long": "time",
}
TINY = {
    "augment": {"flip_horizontal": False, "crop": 0, "swap": 0.1, "token_dropout": 0.05},
    "tune": {"trials": 0},
    "train": {
        "arch": "text_cnn", "width": 16, "vocabulary": 2000, "epochs": 6, "batch_size": 32,
        "optimizer": "adamw", "lr": 0.005, "weight_decay": 0.01,
    },
    "prune": {"ratios": [0.5], "steps": 1, "epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 0.005},
    "ingest": {"text": "said"},
}  # fmt: skip


def write_table(path: Path) -> None:
    """What WordNet says of nouns, and which of three things they are words for: real sentences, that no file here holds."""
    there = synonyms.folder()
    assert there is not None, "WordNet is not there: install Debian's wordnet-base"
    with (there / "data.noun").open(encoding="ascii") as lines:
        found = [
            (TOPICS[int(line.split(" ", 2)[1])], line.partition("| ")[2].partition(";")[0].strip())
            for line in lines
            if not line.startswith("  ") and int(line.split(" ", 2)[1]) in TOPICS
        ]
    draws = np.random.default_rng(0)
    order = draws.permutation(len(found))
    rows = [
        row
        for label in TOPICS.values()
        for row in [found[i] for i in order.tolist() if found[i][0] == label][:A_TOPIC]
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "said", "about"])
        for number, place in enumerate(draws.permutation(len(rows)).tolist()):
            label, text = rows[place]
            writer.writerow([number, text, label])
        writer.writerow([len(rows), "", "time"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which `dvc repro` has run."""
    folder = tmp_path_factory.mktemp("texts")
    write_table(folder / "said.csv")
    project = make_project(folder / "project", folder / "said.csv", **TINY)
    repro(project)
    return project


def test_selected_model_takes_raw_texts_and_is_as_accurate_as_was_said(done: Path) -> None:
    selected = metrics(done, "select")
    assert float(str(selected["accuracy_dense"])) > 0.8
    run_ = onnxruntime.InferenceSession((done / "data/select/model.onnx").read_bytes())
    with np.load(done / "data/select/sample.npz") as sample:
        ends = sample["ends_N"].tolist()
        texts = [
            sample["texts"][start:end].tobytes().decode()
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        (logits_NK,) = run_.run(["logits"], {"text": np.array(texts, object)})
        assert (logits_NK.argmax(1) == sample["labels_N"]).mean() == pytest.approx(selected["accuracy"])
    assert json.loads((done / "data/select/labels.json").read_text()) == sorted(TOPICS.values())


def test_candidates_are_pruned_and_quantized_when_they_are_of_texts(done: Path) -> None:
    table = pd.read_csv(done / "data/select/candidates.csv").set_index("candidate")
    pressed = json.loads((done / "data/press/metrics.json").read_text())["candidates"]
    assert set(table.index) == {"dense-fp32", "dense-int8", "prune-0.5-fp32", "prune-0.5-int8", *pressed}
    assert "press-1" in table.index
    assert table.loc["prune-0.5-fp32", "parameters"] < 0.5 * table.loc["dense-fp32", "parameters"]
    assert table.loc["dense-int8", "size_bytes"] < 0.8 * table.loc["dense-fp32", "size_bytes"]
    assert (table["p50_ms_b1_t1"] > 0).all()
    trials = pd.read_csv(done / "data/press/trials.csv")
    assert "ratio.table.rows" in trials.columns


def test_report_shows_texts_escaped_when_it_is_of_texts(done: Path) -> None:
    page = (done / "data/report/report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;food&lt;/b&gt;" in page
    assert "<b>food</b>" not in page
    assert "naive Bayes" in page
    assert "Training texts before and after" in page
    assert "1 no text" in page or "no text (1)" in page


def test_words_that_speak_for_a_class_are_named_when_a_model_of_texts_was_selected(done: Path) -> None:
    words = json.loads((done / "data/select/words.json").read_text(encoding="utf-8"))
    named = {label: [row["word"] for row in rows[:5]] for label, rows in words.items()}
    said = pd.read_csv(done.parent / "said.csv", keep_default_na=False)
    for label, theirs in named.items():
        mine = said["about"] == label
        holds = [said["said"].str.contains(rf"\b{re.escape(word)}\b", case=False) for word in theirs]
        lifts = [2 * has[mine].sum() / max(has[~mine].sum(), 1) for has in holds]  # two others, as large
        assert len(theirs) == 5 and np.median(lifts) > 2, (label, theirs, lifts)
    page = (done / "data/report/report.html").read_text(encoding="utf-8")
    card = (done / "data/select/model_card.md").read_text(encoding="utf-8")
    assert "Words it goes by" in page and "Words it goes by" in card
    assert f"`{named['time'][0]}`" in card


def test_texts_are_named_by_predict_and_the_promise_holds_by_check(done: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    first, *others = SAID
    lines.write_text("\n\n".join(others), encoding="utf-8")
    words = ["predict", "data/select/model.onnx", first, "--file", str(lines), "--json"]
    said = json.loads(modelpress(done, *words, check=True).stdout)
    assert [row["label"] for row in said] == list(SAID.values())
    assert "holds" in modelpress(done, "check", "data/select/model.onnx").stdout
    wrong = modelpress(done, "predict", "data/select/model.onnx")
    assert wrong.returncode == 2
    assert "nothing to predict" in wrong.stderr


def test_registered_model_predicts_raw_texts_when_it_is_loaded(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = MlflowClient()
    result = register(done / "data/select", "said", client.create_run("0").info.run_id)
    assert result.version == "1"
    if not result.champion:  # on a machine where the speed-up is next to none
        client.set_registered_model_alias("said", ALIAS, "1")
    loaded = mlflow.pyfunc.load_model(f"models:/said@{ALIAS}")
    logits = loaded.predict(np.array(list(SAID), object))["logits"]
    assert [sorted(TOPICS.values())[row.argmax()] for row in logits] == list(SAID.values())


def test_init_says_what_it_found_and_names_the_table_when_it_is_pointed_at_one(tmp_path: Path) -> None:
    table = tmp_path / "said.csv"
    write_table(table)
    project = make_project(tmp_path / "project", table)
    run(["cp", str(ROOT / "params.yaml"), str(project / "params.yaml")], project)
    said = modelpress(project, "init", str(table), check=True).stdout
    assert "2,400 texts in 3 classes: " in said and "<b>food</b> (800)" in said
    assert "Texts in column said, labels in column about" in said
    assert "1 without a text" in said
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert (params["ingest"]["source"], params["registry"]["name"]) == (str(table), "said")
    assert params["train"]["arch"] == "auto"
