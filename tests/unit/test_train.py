"""The stage train with a teacher, on stripes whose labels say nothing: what is learned then is the teacher's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.common.errors import BadInput
from tasks.core.config.params import StartParams, TrainParams
from tasks.core.models.architectures import build
from tasks.core.models.saved import save_model
from tasks.core.models.spec import Spec
from tasks.start import start
from tasks.train import train as train_stage
from tests.unit.test_prune import write_data
from tests.unit.training.test_loop import POLICY, TRAIN, VAL, network, train

pytestmark = pytest.mark.slow  # networks are trained and exported

VALUES: dict[str, Any] = {
    "arch": "convnet_small", "width": 8, "epochs": 8, "batch_size": 32, "optimizer": "adamw", "lr": 0.01,
    "label_smoothing": 0.0, "distill_weight": 1.0,
}  # fmt: skip


def folders(root: Path, teacher: Path | None) -> dict[str, Path]:
    """What the stage reads; the labels for training say nothing."""
    found = {name: root / name for name in ("data", "weights", "checkpoints", "out")}
    for folder in found.values():
        folder.mkdir(parents=True)
    lots_N = TRAIN.labels_N.copy()
    for label in (0, 1):  # of each class every second one is called the other
        lots_N[np.flatnonzero(TRAIN.labels_N == label)[::2]] = 1 - label
    write_data(found["data"], {"train": replace(TRAIN, labels_N=lots_N), "val": VAL, "test": VAL})
    (root / "policy.json").write_text(json.dumps(POLICY))
    (root / "params.yaml").write_text(
        "ingest: {source: x}\ntrain: {arch: convnet_small}\nprune: {ratios: [0.5]}\nquantize: {schemes: [fp32]}\n"
    )
    start(StartParams(teacher=teacher and str(teacher)), root / "params.yaml", found["weights"])
    return {**found, "policy": root / "policy.json"}


def accuracy(root: Path, teacher: Path | None) -> float:
    found = folders(root, teacher)
    train_stage(TrainParams(**VALUES), **found)
    return float(json.loads((found["out"] / "metrics.json").read_text())["val_accuracy"])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of another architecture that knows the stripes."""
    folder, model = tmp_path_factory.mktemp("teacher"), network()
    assert train(model)[-1].val_accuracy > 0.95
    save_model(model, Spec("resnet_small", 8, 0.1, (16, 16, 1), 2), folder)
    return folder


def test_network_of_another_architecture_knows_what_its_teacher_does_when_labels_say_nothing(
    tmp_path: Path, teacher: Path
) -> None:
    assert accuracy(tmp_path / "taught", teacher) > 0.9
    assert accuracy(tmp_path / "alone", None) < 0.8


def test_teacher_is_refused_in_one_line_when_it_knows_other_examples(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    save_model(build(spec := Spec("convnet_small", 8, 0.0, (16, 16, 1), 3)), spec, strange)
    with pytest.raises(BadInput, match=r"start\.teacher: is of classes 3, and these are 2"):
        accuracy(tmp_path / "here", strange)
    (strange / "model.json").unlink()
    with pytest.raises(BadInput, match=r"start\.teacher: .*strange: not a folder with model\.json"):
        folders(tmp_path / "there", strange)
