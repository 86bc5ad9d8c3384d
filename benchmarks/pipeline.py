"""What the pipeline gives: the selected model against the dense fp32 ONNX model, timed anew.

    python benchmarks/pipeline.py

Reads data/quantize, data/evaluate and data/select as the last run left them. The candidates are timed
once more, interleaved, so that the figures come from one quiet stretch of time.
"""

from __future__ import annotations

from pathlib import Path

from common import write_result

from tasks.core.candidates import DENSE, candidate_folders
from tasks.core.data import open_dataset
from tasks.core.files import read_json
from tasks.core.runtime import latencies

ROOT = Path(__file__).parents[1]
REPEATS = {1: 2000, 64: 100}


def main() -> None:
    """Time all candidates on one thread and write the figures."""
    folders = candidate_folders(ROOT / "data/quantize", ROOT / "params.yaml")
    models = {name: folder / "model.onnx" for name, folder in folders.items()}
    images_NHWC = open_dataset(ROOT / "data/ingest").test.images_NHWC
    accuracy = read_json(ROOT / "data/evaluate/accuracy.json")
    selected = read_json(ROOT / "data/select/metrics.json")
    timed = {b: latencies(models, images_NHWC, b, 1, repeats) for b, repeats in REPEATS.items()}
    rows = {
        name: {
            "accuracy": accuracy[name]["accuracy"],
            "drop_points": accuracy[name]["drop_points"],
            "drop_points_ci95": accuracy[name]["drop_points_ci95"],
            "size_ratio": accuracy[DENSE]["size_bytes"] / accuracy[name]["size_bytes"],
            **{f"p50_ms_b{b}_t1": timed[b][name]["p50_ms"] for b in REPEATS},
            **{f"speedup_b{b}_t1": timed[b][DENSE]["p50_ms"] / timed[b][name]["p50_ms"] for b in REPEATS},
        }
        for name in models
    }
    write_result("pipeline", {"selected": selected["selected"], "candidates": rows})


if __name__ == "__main__":
    main()
