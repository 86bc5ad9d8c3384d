"""What the pipeline gives: the selected model against the dense fp32 ONNX model, timed anew.

    python benchmarks/pipeline.py

Reads data/quantize, data/evaluate and data/select as the last `make run` left them, and from MLflow how long
it took. The candidates are timed once more, interleaved, so that the figures come from one quiet stretch of
time.
"""

from __future__ import annotations

from pathlib import Path

from common import write_result
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.engine.settings import EXPERIMENT
from tasks.core.common.files import read_json
from tasks.core.data.dataset import open_dataset
from tasks.core.evaluation.candidates import DENSE, candidate_folders
from tasks.core.runtime.latency import latencies

ROOT = Path(__file__).parents[1]
REPEATS = {1: 2000, 64: 100}


def cold_run_s() -> float:
    """How long the newest pipeline run took in which every stage ran."""
    client = MlflowClient(f"sqlite:///{ROOT / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise SystemExit("nothing has run here: `make run` first")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)  # the newest first
    outcomes: dict[str, set[str]] = {}
    for run in runs:
        if run.data.tags["modelpress.kind"] == "stage":
            parent = run.data.tags["mlflow.parentRunId"]
            outcomes.setdefault(parent, set()).add(run.data.tags["modelpress.outcome"])
    cold: list[Run] = [run for run in runs if outcomes.get(run.info.run_id) == {"ran"}]
    if not cold:
        raise SystemExit("no run here has computed every stage: `modelpress run --force` does")
    return (cold[0].info.end_time - cold[0].info.start_time) / 1000


def main() -> None:
    """Time all candidates on one thread and write the figures."""
    folders = candidate_folders(ROOT / "data/quantize", ROOT / "data/press", ROOT / "params.yaml")
    models = {name: folder / "model.onnx" for name, folder in folders.items()}
    images_NHWC = open_dataset(ROOT / "data/ingest").test.raw_N
    accuracy = read_json(ROOT / "data/evaluate/accuracy.json")
    selected = read_json(ROOT / "data/select/metrics.json")
    timed = {b: latencies(models, images_NHWC, b, 1, repeats, DENSE) for b, repeats in REPEATS.items()}
    rows = {
        name: {
            "accuracy": accuracy[name]["accuracy"],
            "drop_points": accuracy[name]["drop_points"],
            "drop_points_ci95": accuracy[name]["drop_points_ci95"],
            "size_ratio": accuracy[DENSE]["size_bytes"] / accuracy[name]["size_bytes"],
            **{f"p50_ms_b{b}_t1": timed[b][name].p50_ms for b in REPEATS},
            **{f"speedup_b{b}_t1": timed[b][name].speedup for b in REPEATS},
            **{f"speedup_b{b}_t1_ci95": timed[b][name].speedup_ci95 for b in REPEATS},
        }
        for name in models
    }
    payload = {"run_s": round(cold_run_s(), 1), "selected": selected["selected"], "candidates": rows}
    print(write_result("pipeline", payload, ("torch", "onnxruntime")))


if __name__ == "__main__":
    main()
