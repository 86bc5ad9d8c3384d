"""What `auto` becomes: by trials on real digits, within a budget that a test can pay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tasks.core.auto import budget, networks, questions
from tasks.core.auto.augmentations import TEXTS_OFF
from tasks.core.auto.networks import Network
from tasks.core.auto.settle import settle
from tasks.core.common.errors import BadInput
from tasks.core.config.params_file import Asked, Pipeline, load_asked, load_pipeline, may_be_auto
from tasks.core.data.dataset import Dataset, Split
from tasks.core.data.inputs import ImageInput
from tasks.recipe import recipe

SECTIONS = ("augment", "tune", "train", "prune", "quantize", "press", "evaluate")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Real digits, 8 x 8 and grey; their labels 0 to 9."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)
    parts = [slice(0, 600), slice(600, 800), slice(800, None)]
    splits = [Split(images[part], labels[part].astype(np.int64)) for part in parts]
    return Dataset([str(i) for i in range(10)], ImageInput((8, 8, 1), [0.3], [0.3]), "digest", *splits)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of seconds, and two networks."""
    monkeypatch.setitem(budget.DENSE, "quick", 1.5e11)
    monkeypatch.setattr(networks, "LEAST_STEPS", 50)
    two = [Network("convnet_small", 16), Network("resnet_small", 16)]
    monkeypatch.setattr(questions, "portfolio", lambda *_: two)


def asked(folder: Path, **by_hand: dict[str, Any]) -> Path:
    """params.yaml in which all is auto but what is named."""
    content: dict[str, Any] = {
        "ingest": {"source": "x"},
        "recipe": {"budget": "quick"},
        "prune": {"ratios": [0.5]},
        "quantize": {"schemes": ["fp32"]},
    }
    for section in SECTIONS:
        auto = dict.fromkeys(may_be_auto(section), "auto")
        content[section] = {**content.get(section, {}), **auto, **by_hand.get(section, {})}
    content["recipe"] = by_hand.get("recipe", content["recipe"])
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def settled(path: Path, digits: Dataset, journal: Path) -> tuple[Pipeline, Any]:
    journal.mkdir(exist_ok=True)
    draft = settle(load_asked(path), digits, journal)
    return Pipeline.model_validate(draft.sections), draft


@pytest.mark.slow
def test_everything_is_settled_and_flips_are_refused_when_digits_are_learned(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(budget.DENSE, "thorough", 1.5e11)
    path = asked(tmp_path, recipe={"budget": "thorough"})
    params, draft = settled(path, digits, tmp_path / "journal")
    of_texts = {"train.vocabulary", *(f"augment.{key}" for key in TEXTS_OFF)}
    assert load_asked(path).auto - set(draft.choices) == of_texts, "settled, and no choice for images"
    assert all(choice.reason for choice in draft.choices.values())
    assert params.train.optimizer == "adamw"
    assert not params.augment.flip_horizontal
    assert not params.augment.flip_vertical
    assert sum(trial.question == "learning rate" for trial in draft.tried) == 3
    flip = next(trial for trial in draft.tried if trial.variant == "flips, left and right")
    assert flip.gain is not None and flip.error is not None and flip.gain < -flip.error
    networks = [trial for trial in draft.tried if trial.question == "network"]
    assert {trial.variant for trial in networks if trial.chosen} == {
        f"{params.train.arch} of width {params.train.width}"
    }

    known = {file.name for file in (tmp_path / "journal").iterdir()}
    again, _ = settled(path, digits, tmp_path / "journal")
    assert again == params
    assert {file.name for file in (tmp_path / "journal").iterdir()} == known
    fresh, anew = settled(path, digits, tmp_path / "other")
    assert fresh == params
    assert anew.tried == draft.tried


def test_what_is_set_by_hand_stays_and_is_not_asked_about(tmp_path: Path, digits: Dataset) -> None:
    by_hand = {
        "augment": {"flip_horizontal": False, "rotate": 0, "crop": 1, "brightness": 0},
        "train": {"arch": "resnet_small", "width": 8, "lr": 0.02},
    }
    params, draft = settled(asked(tmp_path, **by_hand), digits, tmp_path / "journal")
    assert (params.prune.lr, params.prune.optimizer) == (0.02, params.train.optimizer), "recovery as in train"
    assert draft.tried == []
    assert (params.train.arch, params.train.width, params.train.lr) == ("resnet_small", 8, 0.02)
    assert params.augment.crop == 1
    assert not {"train.arch", "train.width", "train.lr", "augment.crop"} & set(draft.choices)
    assert params.train.epochs >= 1


@pytest.mark.slow
def test_trials_are_longer_and_it_is_said_when_all_are_at_chance(tmp_path: Path, digits: Dataset) -> None:
    noise = np.random.default_rng(0).permutation(len(digits.train.labels_N))
    train = Split(digits.train.raw_N, np.asarray(digits.train.labels_N)[noise])
    val = Split(digits.val.raw_N, np.asarray(digits.val.labels_N)[::-1].copy())
    shuffled = Dataset(digits.classes, digits.input, "shuffled", train, val, digits.test)
    path = asked(tmp_path, augment={"flip_horizontal": False, "rotate": 0, "crop": 0, "brightness": 0})
    _, draft = settled(path, shuffled, tmp_path / "journal")
    assert any("trials got longer" in note for note in draft.notes)
    assert any("tells little" in note for note in draft.notes)


def test_stage_writes_params_as_they_are_when_nothing_is_auto(tmp_path: Path) -> None:
    path, out = tmp_path / "params.yaml", tmp_path / "out"
    content = {
        "ingest": {"source": "x"},
        "prune": {"ratios": [0.5, "sparse-2of4"]},
        "quantize": {"schemes": ["fp32"]},
        "train": {"lr": 0.1},
        "registry": {"name": "unread"},
    }
    path.write_text(yaml.safe_dump(content))
    out.mkdir()
    recipe(load_asked(path).pipeline.recipe, tmp_path, path, tmp_path / "journal", out)
    del content["registry"]
    assert yaml.safe_load((out / "params.yaml").read_text()) == content
    assert load_pipeline(out / "params.yaml").train.lr == 0.1
    assert json.loads((out / "choices.json").read_text())["choices"] == []


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("train", "batch_norm", "train.batch_norm: cannot be auto"),
        ("prune", "ratios", "prune.ratios: cannot be auto"),
    ],
)
def test_auto_is_refused_in_one_line_when_a_key_does_not_follow_the_data(
    tmp_path: Path, section: str, key: str, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        load_asked(asked(tmp_path, **{section: {key: "auto"}}))


def test_stage_is_refused_in_one_line_when_a_key_is_not_settled_yet(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is auto; what it becomes is in data/recipe/params\.yaml"):
        load_pipeline(asked(tmp_path))


def test_asked_keeps_what_was_written_when_keys_are_auto(tmp_path: Path) -> None:
    got: Asked = load_asked(asked(tmp_path, train={"lr": 0.5}))
    assert "train.epochs" in got.auto
    assert got.values["train"] == {"lr": 0.5}
    assert got.pipeline.train.lr == 0.5
