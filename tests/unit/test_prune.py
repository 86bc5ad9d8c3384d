"""The stage prune, on stripes: what it writes for each kind of ratio, and how it ends when it cannot."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.compression_params import PruneParams
from tasks.core.data.dataset import Split
from tasks.core.models.architectures import build
from tasks.core.models.saved import load_model, save_model, smooth_activations, sparsity
from tasks.core.models.spec import Spec
from tasks.core.runtime.export import export
from tasks.core.runtime.graphs import GRAPH, save_graph
from tasks.core.training.loop import predict
from tasks.prune import prune
from tests.unit.training.test_loop import GIVEN, POLICY, TRAIN, VAL, network, train

pytestmark = pytest.mark.slow  # networks are trained

PARAMS = {"ratios": [0.5], "steps": 1, "epochs": 2, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders and the file that the stage reads."""
    root = tmp_path_factory.mktemp("prune")
    model = network()
    assert train(model)[-1].val_accuracy > 0.95
    folders = {"model": root / "train", "data": root / "ingest", "policy": root / "policy.json"}
    for name in ("model", "data"):
        folders[name].mkdir()
    save_model(model, Spec("resnet_small", 8, 0.1, (16, 16, 1), 2), folders["model"])
    save_graph(export(model.eval(), GIVEN), folders["model"])
    write_data(folders["data"], {"train": TRAIN, "val": VAL, "test": VAL})
    folders["policy"].write_text(json.dumps(POLICY))
    return folders


def write_data(folder: Path, splits: dict[str, Split]) -> None:
    about = {
        "classes": ["column", "row"], "image_shape": [16, 16, 1], "channel_mean": [0.3],
        "channel_std": [0.3], "digest": "",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(about))
    for name, split in splits.items():
        np.save(folder / f"{name}_images.npy", split.raw_N)
        np.save(folder / f"{name}_labels.npy", split.labels_N)


def run(inputs: dict[str, Path], out: Path, ratio: str, **changes: Any) -> dict[str, Any]:
    """metrics.json after the stage ran with `changes` to its parameters."""
    out.mkdir(exist_ok=True)
    prune(PruneParams(**{**PARAMS, **changes}), **inputs, ratio=ratio, out=out)
    content: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return content


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_stage_writes_a_smaller_model_that_sees_when_channels_leave(
    inputs: dict[str, Path], tmp_path: Path, criterion: str
) -> None:
    metrics = run(inputs, tmp_path, "0.5", criterion=criterion, steps=2, round_to=4)
    model, _ = load_model(tmp_path)
    assert model.get_parameter("stem.0.weight").shape[0] == 4
    assert metrics["parameters_kept"] < 0.35
    assert metrics["val_accuracy"] > 0.8
    assert metrics["sparsity"] == 0
    assert metrics["collapsed"] is False
    assert metrics["kept_whole"] == [{"layer": "head", "reason": "its outputs are the classes"}]
    assert (tmp_path / "history.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(("ratio", "zero"), [("sparse-0.75", 0.75), ("sparse-2of4", 0.49)])
def test_stage_writes_a_model_with_zeros_when_weights_are_set_to_zero(
    inputs: dict[str, Path], tmp_path: Path, ratio: str, zero: float
) -> None:
    metrics = run(inputs, tmp_path, ratio)
    model, _ = load_model(tmp_path)
    assert sparsity(model) == metrics["sparsity"] == pytest.approx(zero, abs=0.01)
    assert metrics["parameters_kept"] == metrics["macs_kept"] == 1
    assert metrics["val_accuracy"] > 0.8


def test_stage_trains_nothing_after_the_cuts_when_there_are_no_epochs(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    metrics = run(inputs, tmp_path, "0.25", epochs=0, steps=2, round_to=1)
    model, _ = load_model(tmp_path)
    dense, _ = load_model(inputs["model"])
    weights = model.get_parameter("head.bias"), dense.get_parameter("head.bias")
    assert torch.equal(*weights), "what stays is as it was"
    assert model.get_parameter("stem.0.weight").shape[0] == 6
    assert (tmp_path / "history.csv").read_text().count("\n") == 1
    right = (predict(model, VAL, GIVEN).argmax(1).numpy() == VAL.labels_N).mean()
    assert metrics["val_accuracy"] == pytest.approx(right)


def test_stage_says_that_accuracy_has_collapsed_when_nothing_was_recovered(
    inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run(inputs, tmp_path, "sparse-0.999", lr=1e-9)
    assert metrics["val_accuracy"] <= 0.6
    assert metrics["collapsed"] is True
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("prune: accuracy")]
    assert len(said) == 1
    assert "where guessing gives 50.0%" in said[0]


def test_stage_fails_in_one_line_when_the_loss_is_not_finite(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"training has diverged in step \d+ of epoch 1: lower lr"):
        run(inputs, tmp_path, "0.5", round_to=4, lr=1e30)


def test_stage_fails_in_one_line_when_no_group_is_wide_enough(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(StageFailed, match=r"^nothing can be pruned: stem.0: it has 8 channels, and widths"):
        run(inputs, tmp_path, "0.5", round_to=64)


@pytest.mark.parametrize("ratio", ["1.5", "half", "sparse-", "nan"])
def test_stage_is_refused_in_one_line_when_the_ratio_is_none(
    inputs: dict[str, Path], tmp_path: Path, ratio: str
) -> None:
    with pytest.raises(BadInput, match=f"^--ratio {ratio}: .*between 0 and 1"):
        run(inputs, tmp_path, ratio)


def test_stage_is_refused_in_one_line_when_relu_has_nothing_to_stand_for(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        BadInput, match=r"^prune\.relu: resnet_small has no activation that ReLU could stand for$"
    ):
        run(inputs, tmp_path, "0.5", relu=True)


@pytest.mark.slow
def test_stage_writes_a_model_without_smooth_activations_when_relu_is_asked_for(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    spec = Spec("mobilenet_v3_small", 8, 0.1, (16, 16, 1), 2)
    dense = build(spec)
    assert smooth_activations(dense)
    (tmp_path / "dense").mkdir()
    save_model(dense, spec, tmp_path / "dense")
    run({**inputs, "model": tmp_path / "dense"}, tmp_path / "out", "0.5", relu=True, epochs=1)
    assert not smooth_activations(load_model(tmp_path / "out")[0])


def test_stage_writes_the_same_bytes_when_run_twice(inputs: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(inputs, tmp_path / "one", "0.5", criterion="random", round_to=4)
    torch.manual_seed(2)
    run(inputs, tmp_path / "two", "0.5", criterion="random", round_to=4)
    for name in ("model.json", "model.safetensors", "graph.onnx", "metrics.json", "history.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize(("weight", "equal"), [(0.0, True), (0.5, False)])
def test_teacher_plays_no_part_when_its_share_of_the_loss_is_nothing(
    inputs: dict[str, Path], tmp_path: Path, weight: float, equal: bool
) -> None:
    for name, temperature in (("one", 1.0), ("two", 8.0)):
        run(inputs, tmp_path / name, "0.5", epochs=1, distill_weight=weight, temperature=temperature)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert (one == two) is equal


def test_stage_draws_rare_classes_as_training_did_when_it_recovers(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    network, spec = load_model(inputs["model"])
    folders = {**inputs, "model": tmp_path / "balanced", "data": tmp_path / "tail"}
    rows = np.flatnonzero((TRAIN.labels_N == 0) | (np.arange(len(TRAIN)) % 8 == 0))
    tail = Split(TRAIN.raw_N[rows], TRAIN.labels_N[rows])
    for name in ("model", "data"):
        folders[name].mkdir()
    write_data(folders["data"], {"train": tail, "val": VAL, "test": VAL})
    weights = {}
    for sampling in ("uniform", "balanced"):
        save_model(network, replace(spec, sampling=sampling), folders["model"])
        shutil.copy(inputs["model"] / GRAPH, folders["model"])
        run(folders, tmp_path / sampling, "0.5", epochs=1)
        pruned, found = load_model(tmp_path / sampling)
        assert found.sampling == sampling
        weights[sampling] = torch.cat([p.flatten() for p in pruned.parameters()])
    assert not torch.equal(weights["uniform"], weights["balanced"])
