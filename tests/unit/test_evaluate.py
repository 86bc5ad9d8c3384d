"""What evaluate writes of each candidate."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.common.files import read_json, write_json
from tasks.core.config.params import EvaluateParams
from tasks.evaluate import evaluate
from tests.builders import rows_model

pytestmark = pytest.mark.slow  # processes


def test_evaluate_writes_the_proof_of_every_candidate_when_run(tmp_path: Path) -> None:
    """On rows of grey of which one is bright: dense is always right, the other candidate never about
    the last class, in which it prefers the first."""
    labels = np.repeat(np.arange(4), 10)
    pixels = np.full((40, 4, 4, 1), 20, np.uint8)
    pixels[np.arange(40), labels] = 200
    pixels[labels == 3, 3] = 100
    (tmp_path / "ingest").mkdir()
    for split in ("train", "val", "test"):
        np.save(tmp_path / "ingest" / f"{split}_images.npy", pixels)
        np.save(tmp_path / "ingest" / f"{split}_labels.npy", labels)
    about = {"classes": list("abcd"), "image_shape": [4, 4, 1], "channel_mean": [0.3], "channel_std": [0.3]}
    write_json(tmp_path / "ingest" / "dataset.json", {**about, "digest": "0" * 64, "source": "made up"})
    nodes = [{"name": "n", "op": "Conv", "precision": "fp32", "reason": "why"}]
    extra = {"dense-fp32": {"warning": ""}, "dense-int8": {"nodes": nodes, "warning": "it is inexact"}}
    for name in ("dense-fp32", "dense-int8", "prune-0.5-fp32", "prune-0.5-int8"):
        folder = tmp_path / "quantize" / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(rows_model(90.0 if name == "dense-int8" else 0.0))
        described = {"parameters": 4, "macs": 8, "nodes_int8": 0, "nodes_fp32": 1, "temperature": 1.0}
        write_json(folder / "metrics.json", described | extra.get(name, {}))
    press = tmp_path / "press" / "1"
    press.mkdir(parents=True)
    (press / "model.onnx").write_bytes(rows_model(0.0))
    write_json(
        press / "metrics.json",
        {"parameters": 2, "macs": 4, "nodes_int8": 1, "nodes_fp32": 0, "temperature": 1.0},
    )
    write_json(press.parent / "metrics.json", {"trials": 9, "candidates": {"press-1": {}}})
    settings = tmp_path / "params.yaml"
    settings.write_text(
        "{ingest: {source: unused}, prune: {ratios: [0.5]}, quantize: {schemes: [fp32, int8]}}",
        encoding="utf-8",
    )
    params = EvaluateParams(repeats=20, bootstrap=100)
    (tmp_path / "baselines").mkdir()
    simple = np.where(labels < 2, labels, 0)  # half of the images right
    np.savez(tmp_path / "baselines" / "predicted.npz", val_N=simple, test_N=simple)
    folders = (tmp_path / name for name in ("quantize", "press", "baselines", "ingest"))
    evaluate(params, *folders, settings, tmp_path)
    accuracy, latency = read_json(tmp_path / "accuracy.json"), read_json(tmp_path / "latency.json")
    dense, other = accuracy["dense-fp32"], accuracy["dense-int8"]
    assert accuracy["press-1"]["parameters"] == 2
    assert latency["candidates"]["press-1"]["b1_t1"]["p50_ms"] > 0
    assert (dense["accuracy"], dense["mcnemar_p"], "nodes" in dense) == (1.0, 1.0, False)
    assert (other["accuracy"], other["nodes"]) == (0.75, nodes)
    assert {n: e["warning"] for n, e in accuracy.items() if "warning" in e} == {"dense-int8": "it is inexact"}
    unsure = {"precision": 0.98, "below": None, "answered": 1.0, "right": 0.75}
    assert other["unsure"] == unsure, "40 images are too few to tell"
    assert (dense["margin_points"], other["margin_points"]) == (50.0, 25.0)
    assert 30 < dense["margin_points_ci95"][0] < 50 < dense["margin_points_ci95"][1] < 70
    assert (dense["no_better_than_chance"], other["no_better_than_chance"]) == ([], ["d"])
    assert other["mcnemar_p"] == pytest.approx(2 / 2**10)
    assert other["sparsity"] == 0.75  # its four weights are on a diagonal
    assert 0 < other["size_compressed_bytes"] < other["size_bytes"]
    for timed in latency["candidates"].values():
        for key in ("b1_t1", "b1_tall", "b64_t1", "b64_tall"):
            assert timed[key]["p50_ms_ci95"][0] <= timed[key]["p50_ms"] <= timed[key]["p50_ms_ci95"][1]
            assert timed[key]["speedup_ci95"][0] <= timed[key]["speedup"] <= timed[key]["speedup_ci95"][1]
    reference = latency["candidates"]["dense-fp32"]["b1_t1"]
    assert (reference["speedup"], reference["speedup_ci95"]) == (1.0, [1.0, 1.0])
